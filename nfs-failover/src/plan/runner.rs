//! Runs a plan.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cancel, Ending, Event, Journal, Line, Plan, Progress, Report, Step, Trouble, Turn};
use crate::system::within;

/// A step that looks at its time ends by itself; it gets this much to say why.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A look at the state of things takes no longer, unless something hangs.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Runs a plan to its end, or to the step that fails. `log` is given every step when it is over.
pub fn run(plan: &Plan, journal: &mut dyn Journal, cancel: &Cancel, log: &mut dyn FnMut(&Line)) -> Report {
    let mut run =
        Run { plan, journal, cancel, log, began: Instant::now(), mine: BTreeSet::new(), lines: Vec::new() };
    let (ending, why) = match run.forwards() {
        Ok(()) => (Ending::Done, None),
        Err(trouble) => {
            let stuck = plan.undo_on_failure && run.backwards();
            let ending = match () {
                () if trouble.stuck || stuck => Ending::MustFence,
                () if cancel.is_set() => Ending::Cancelled,
                () => Ending::Failed,
            };
            (ending, Some(trouble.message))
        }
    };
    // What cannot be taken back belongs to whoever tries again.
    if ending != Ending::MustFence && run.journal.note(Progress::Ended(plan.name.into())).is_err() {
        // The next run finds everything by looking; only what to take back is not known then.
    }
    let took_ms = run.began.elapsed().as_millis() as u64;
    Report { plan: plan.name, service: plan.service.clone(), ending, why, took_ms, lines: run.lines }
}

struct Run<'a> {
    plan: &'a Plan,
    journal: &'a mut dyn Journal,
    cancel: &'a Cancel,
    log: &'a mut dyn FnMut(&Line),
    began: Instant,
    /// What this plan has done, in this run or in one that was killed.
    mine: BTreeSet<String>,
    lines: Vec<Line>,
}

impl Run<'_> {
    fn forwards(&mut self) -> Result<(), Trouble> {
        let journal = |error: io::Error| Trouble::new(format!("cannot write the journal: {error}"));
        self.mine = self.journal.start(self.plan.name).map_err(journal)?;
        for step in &self.plan.steps {
            if self.cancel.is_set() {
                return Err(Trouble::new("cancelled: somebody wants something else by now"));
            }
            let began = Instant::now();
            let note = |run: &mut Self, event, note: &str| run.say(step.as_ref(), event, began, note);
            let checked = bounded(step, CHECK_LIMIT, |step, _| step.check(), self.cancel);
            let done = match checked {
                Ok(Some(shown)) => {
                    note(self, Event::Already, &shown);
                    continue;
                }
                Ok(None) => {
                    self.journal.note(Progress::Begun(step.name().into())).map_err(journal)?;
                    self.mine.insert(step.name().into());
                    bounded(step, step.limit(), |step, turn| step.act(turn), self.cancel)
                }
                Err(trouble) => Err(trouble),
            };
            match done {
                Ok(said) => note(self, Event::Done, &said),
                Err(trouble) if step.optional() => note(self, Event::Skipped, &trouble.message),
                Err(trouble) => {
                    note(self, Event::Failed, &trouble.message);
                    return Err(Trouble { message: format!("{}: {trouble}", step.name()), ..trouble });
                }
            }
        }
        Ok(())
    }

    /// Takes back what this plan did, the last first. Whether this node cannot give the volume up.
    fn backwards(&mut self) -> bool {
        // What takes back may not itself be cancelled.
        let never = Cancel::default();
        let mut stuck = false;
        for step in
            self.plan.steps.iter().rev().filter(|step| self.mine.contains(step.name())).collect::<Vec<_>>()
        {
            let began = Instant::now();
            match bounded(step, step.limit(), |step, turn| step.undo(turn), &never) {
                Ok(()) => {
                    self.say(step.as_ref(), Event::Undone, began, "");
                    // Without the line, it is taken back once more: harmless.
                    let _ = self.journal.note(Progress::Undone(step.name().into()));
                }
                Err(trouble) => {
                    stuck |= trouble.stuck;
                    self.say(step.as_ref(), Event::UndoFailed, began, &trouble.message);
                }
            }
        }
        stuck
    }

    fn say(&mut self, step: &dyn Step, event: Event, began: Instant, note: &str) {
        let line = Line {
            plan: self.plan.name,
            service: self.plan.service.clone(),
            step: step.name(),
            event,
            at_ms: self.began.elapsed().as_millis() as u64,
            took_us: began.elapsed().as_micros() as u64,
            note: note.to_owned(),
        };
        (self.log)(&line);
        self.lines.push(line);
    }
}

/// Does something with a step, for so long.
fn bounded<T: Send + 'static>(
    step: &Arc<dyn Step>,
    limit: Duration,
    what: impl FnOnce(&dyn Step, &Turn) -> Result<T, Trouble> + Send + 'static,
    cancel: &Cancel,
) -> Result<T, Trouble> {
    let (own, turn) = (Arc::clone(step), Turn::new(limit, cancel.clone()));
    within(limit + LAST_WORDS, move || what(own.as_ref(), &turn))
        .unwrap_or_else(|| Err(Trouble::new(format!("hangs, after {:.1} s", limit.as_secs_f64()))))
}
