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
use tandem_control::output::errln;

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

    /// What is noted while it goes that way. That it must be fenced remains so until the operator has cleared it: a
    /// demotion that is killed, or at last succeeds, does not hide it.
    pub(crate) fn under_way(self, before: State) -> State {
        match (self, before) {
            (Way::Demote, State::MustFence) => State::MustFence,
            // Serving goes on while a promotion finds that everything is up.
            (Way::Promote, State::Primary) => State::Primary,
            (Way::Promote, _) => State::Promoting,
            (Way::Demote, _) => State::Demoting,
        }
    }

    /// What is noted when it has come to its end.
    pub(crate) fn ended(self, before: State, ending: Ending) -> State {
        match (ending, self) {
            (Ending::Done, Way::Promote) => State::Primary,
            (Ending::Done, Way::Demote) if before == State::MustFence => State::MustFence,
            (Ending::Done, Way::Demote) | (Ending::Failed | Ending::Cancelled, _) => State::Secondary,
            (Ending::Halfway, Way::Promote) => State::Failed,
            (Ending::Halfway, Way::Demote) | (Ending::MustFence, _) => State::MustFence,
        }
    }

    /// What is noted when it could not even begin: whatever holds it up has the volume, perhaps.
    pub(crate) fn refused(self, before: State) -> State {
        match self {
            Way::Promote => before,
            Way::Demote => State::MustFence,
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
    let before = here.standing(name).state;
    let under_way = way.under_way(before);
    if under_way != before {
        note(scene, under_way, None);
    }
    let mut report = run(&way.plan(scene), &mut FileJournal::new(here.file(name, "journal")), cancel, log);
    scene.set_lock(None);
    let was_there = before == way.ended(before, Ending::Done);
    if was_there && matches!(report.ending, Ending::Failed | Ending::Cancelled) {
        // Only what this promotion had to do once more is taken back.
        report.ending = Ending::Halfway;
    }
    // It may have been cleared meanwhile.
    let noted = here.standing(name);
    let state = way.ended(noted.state, report.ending);
    let why = noted.why.filter(|_| state == State::MustFence);
    note(scene, state, report.why.clone().or(why));
    consider_last_resort(scene, &report);
    Ok(report)
}

/// What comes of a plan that could not begin, for the service, which alone moves what it keeps: what a killed plan has left
/// running has the lock.
pub(crate) fn refused(scene: &Arc<Scene>, way: Way, why: &Trouble) {
    let name = &scene.service.name;
    let before = scene.here.standing(name).state;
    let state = way.refused(before);
    if state == before {
        return;
    }
    note(scene, state, Some(why.message.clone()));
    consider_last_resort(
        scene,
        &Report {
            plan: way.plan(scene).name,
            service: name.clone(),
            ending: Ending::MustFence,
            why: Some(why.message.clone()),
            took_ms: LOCK_LIMIT.as_millis() as u64,
            lines: Vec::new(),
        },
    );
}

/// What is so is so, even if it cannot be noted.
fn note(scene: &Scene, state: State, why: Option<String>) {
    let name = &scene.service.name;
    if let Err(error) = scene.here.set_standing(name, state, why) {
        errln!("{name}: noting that it is {}: {error}", state.as_str());
    }
}

fn consider_last_resort(scene: &Scene, report: &Report) {
    if let Err(trouble) = LastResort::default().consider(scene.service.on_stuck, report) {
        errln!("{trouble}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_fenced_remains_noted_however_a_demotion_ends() {
        let before = State::MustFence;
        assert_eq!(Way::Demote.under_way(before), State::MustFence);
        for ending in [Ending::Done, Ending::Halfway, Ending::MustFence] {
            assert_eq!(Way::Demote.ended(before, ending), State::MustFence, "{ending:?}");
        }
        // Once it is cleared, it is as it is found to be.
        assert_eq!(Way::Demote.under_way(State::Failed), State::Demoting);
        assert_eq!(Way::Demote.ended(State::Failed, Ending::Done), State::Secondary);
    }

    #[test]
    fn a_demotion_that_could_not_begin_calls_for_fencing_and_a_promotion_changes_nothing() {
        assert_eq!(Way::Demote.refused(State::Promoting), State::MustFence);
        assert_eq!(Way::Promote.refused(State::Promoting), State::Promoting);
    }

    #[test]
    fn a_demotion_that_leaves_something_calls_for_fencing() {
        assert_eq!(Way::Demote.ended(State::Demoting, Ending::Halfway), State::MustFence);
        assert_eq!(Way::Promote.ended(State::Promoting, Ending::Halfway), State::Failed);
    }
}
