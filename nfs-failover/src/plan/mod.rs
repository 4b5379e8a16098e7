//! Plans: ordered steps, each of which knows whether it is done, how to do it, how to take it back, and for how long it
//! may take. [`run`] can be killed at any moment: whoever runs the plan again goes on from there, and knows from the
//! journal what to take back if it then fails.

mod journal;
mod runner;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use journal::{FileJournal, Inherited, Journal, Progress};
pub use runner::run;

/// What runs one small program takes no longer, unless something hangs.
pub const SMALL_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at something that only time changes: at least so long, and as many times as long as the look took, for
/// what is waited for may need this very processor; but at most so long.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
const POLL_SHARE: u32 = 3;
const LONGEST_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// One step of a plan. Whatever a step does must be harmless if it is done already.
pub trait Step: Send + Sync {
    /// One word.
    fn name(&self) -> &'static str;
    /// What it is going to do, for `plan` and `--dry-run`.
    fn intention(&self) -> String;
    /// For how long it may take.
    fn limit(&self) -> Duration {
        SMALL_LIMIT
    }
    /// Whether the plan goes on if it fails.
    fn optional(&self) -> bool {
        false
    }
    /// What shows that it is done; `None` if it has to be done, as what nothing shows has each time.
    fn check(&self) -> Result<Option<String>, Trouble> {
        Ok(None)
    }
    /// Does it; says what was done.
    fn act(&self, turn: &Turn) -> Result<String, Trouble>;
    /// Takes it back, or what was done of it.
    fn undo(&self, _turn: &Turn) -> Result<(), Trouble> {
        Ok(())
    }
}

/// Steps in their order.
pub struct Plan {
    /// `promote` or `demote`.
    pub name: &'static str,
    /// Of which service.
    pub service: String,
    /// In order.
    pub steps: Vec<Arc<dyn Step>>,
    /// Whether a step that fails takes everything before it along. Without that, the plan needs no journal.
    pub undo_on_failure: bool,
}

/// Why a step failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// For the operator, with what to do about it.
    pub message: String,
    /// This node cannot give the volume up: whoever wants to be sure must fence it.
    pub stuck: bool,
}

impl Trouble {
    /// A failure that leaves nothing behind.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), stuck: false }
    }

    /// This node cannot give the volume up.
    pub fn stuck(message: impl Into<String>) -> Self {
        Self { message: message.into(), stuck: true }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Turns a failure of the system into one of the step.
pub fn trouble<E: fmt::Display>(doing: impl fmt::Display) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble::new(format!("{doing}: {error}"))
}

/// Does all of it, whatever becomes of one; the first trouble, if there is any.
pub(crate) fn all(attempts: impl Iterator<Item = Result<(), Trouble>>) -> Result<(), Trouble> {
    attempts.fold(Ok(()), Result::and)
}

/// What a step that waits has to look at.
#[derive(Clone, Debug)]
pub struct Turn {
    deadline: Instant,
    cancel: Cancel,
}

impl Turn {
    /// A turn of so long.
    pub fn new(limit: Duration, cancel: Cancel) -> Self {
        Self { deadline: Instant::now() + limit, cancel }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// What ends it from outside.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether somebody wants something else by now.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }

    /// Looks until there is something; `None` when the time is up or the plan is cancelled.
    pub fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let began = Instant::now();
            if let Some(found) = look() {
                return Some(found);
            }
            if self.left().is_zero() || self.is_cancelled() {
                return None;
            }
            let pause = (began.elapsed() * POLL_SHARE).clamp(POLL_INTERVAL, LONGEST_POLL_INTERVAL);
            thread::sleep(pause.min(self.left()));
        }
    }
}

/// Ends a plan from outside: what it has done so far is taken back.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was ended.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What became of one step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Line {
    /// `promote` or `demote`.
    pub plan: &'static str,
    /// Of which service.
    pub service: String,
    /// The step's name.
    pub step: &'static str,
    /// What became of it.
    pub event: Event,
    /// When, since the plan began.
    pub at_ms: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// In words.
    pub note: String,
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// There was nothing to do.
    Already,
    /// It is done.
    Done,
    /// It failed, and the plan goes on without it.
    Skipped,
    /// It failed.
    Failed,
    /// It is taken back.
    Undone,
    /// It could not be taken back.
    UndoFailed,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.event {
            Event::Already => "already ",
            Event::Done => "",
            Event::Skipped => "skipped: ",
            Event::Failed => "FAILED: ",
            Event::Undone => "undone",
            Event::UndoFailed => "CANNOT BE UNDONE: ",
        };
        let took_ms = self.took_us as f64 / 1000.0;
        let (plan, service, at_s) = (self.plan, &self.service, self.at_ms as f64 / 1000.0);
        write!(f, "{plan} {service} +{at_s:.3} {:<10} {word}{} ({took_ms:.1} ms)", self.step, self.note)
    }
}

/// What became of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every step is done.
    Done,
    /// A step failed; everything is taken back.
    Failed,
    /// A step of a promotion failed, and something is left that was to be taken back.
    Halfway,
    /// Somebody wanted something else; everything is taken back.
    Cancelled,
    /// This node cannot give the service up.
    MustFence,
}

/// What became of a plan, in full.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// `promote` or `demote`.
    pub plan: &'static str,
    /// Of which service.
    pub service: String,
    /// How it ended.
    pub ending: Ending,
    /// Why, if it is not done.
    pub why: Option<String>,
    /// How long it took.
    pub took_ms: u64,
    /// What became of each step.
    pub lines: Vec<Line>,
}
