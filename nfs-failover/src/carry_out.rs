//! Carries a plan out on this node: one at a time, with the journal, and with what becomes of the service noted for
//! whoever wants to know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::here::State;
use crate::last_resort::LastResort;
use crate::plan::{Cancel, Ending, FileJournal, Line, Plan, Report, Trouble, run, trouble};
use crate::service::Wish;
use crate::steps::{self, Scene};

/// Somebody else's plan takes no longer, unless it hangs.
const LOCK_LIMIT: Duration = Duration::from_secs(90);

/// Where the service is to go on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To serve here.
    Promote,
    /// Not to serve here.
    Demote,
}

impl Way {
    /// The plan for it.
    pub fn plan(self, scene: &Arc<Scene>) -> Plan {
        match self {
            Way::Promote => steps::promote(scene),
            Way::Demote => steps::demote(scene),
        }
    }

    /// The wish that asks for it.
    pub(crate) fn wish(self) -> Wish {
        match self {
            Way::Promote => Wish::Up,
            Way::Demote => Wish::Down,
        }
    }

    fn states(self) -> (State, State) {
        match self {
            Way::Promote => (State::Promoting, State::Primary),
            Way::Demote => (State::Demoting, State::Secondary),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Promote => "promote",
            Way::Demote => "demote",
        })
    }
}

/// Goes that way. An error is about the lock or the runtime folder; everything else is in the report.
pub fn carry_out(
    scene: &Arc<Scene>,
    way: Way,
    cancel: &Cancel,
    log: &mut dyn FnMut(&Line),
) -> Result<Report, Trouble> {
    let (here, name) = (&scene.here, &scene.service.name);
    let lock = here.lock(name, LOCK_LIMIT).map_err(trouble("another plan of this service is under way"))?;
    scene.set_lock(Some(lock.try_clone().map_err(trouble("the lock"))?));
    // What is so is so, even if it cannot be noted.
    let note = |state: State, why| {
        if let Err(error) = here.set_standing(name, state, why) {
            eprintln!("{name}: noting that it is {}: {error}", state.as_str());
        }
    };
    let (under_way, there) = way.states();
    let was_there = here.standing(name).state == there;
    // Serving goes on while a promotion finds that everything is up.
    if !was_there {
        note(under_way, None);
    }
    let mut report = run(&way.plan(scene), &mut FileJournal::new(here.file(name, "journal")), cancel, log);
    scene.set_lock(None);
    if was_there && matches!(report.ending, Ending::Failed | Ending::Cancelled) {
        // Only what this promotion had to do once more is taken back.
        report.ending = Ending::Halfway;
    }
    let state = match report.ending {
        Ending::Done => there,
        Ending::Failed | Ending::Cancelled => State::Secondary,
        Ending::Halfway => State::Failed,
        Ending::MustFence => State::MustFence,
    };
    note(state, report.why.clone());
    if let Err(trouble) = LastResort::default().consider(scene.service.on_stuck, &report) {
        eprintln!("{trouble}");
    }
    Ok(report)
}
