//! Runs a plan.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Cancel, Ending, Event, Inherited, Journal, Line, Plan, Progress, Report, Step, Trouble, Turn, trouble,
};
use crate::system::Worker;

/// A step that looks at its time ends by itself; it gets this much to say why.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A look at the state of things takes no longer, unless something hangs.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Runs a plan to its end, or to the step that fails. `log` is given every step when it is over.
pub fn run(plan: &Plan, journal: &mut dyn Journal, cancel: &Cancel, log: &mut dyn FnMut(&Line)) -> Report {
    let mut run = Run {
        plan,
        journal,
        cancel,
        log,
        began: Instant::now(),
        mine: BTreeSet::new(),
        lines: Vec::new(),
        worker: Worker::default(),
    };
    let (ending, why) = match run.forwards() {
        Ok(()) => (Ending::Done, None),
        // Nothing takes the place of what a demotion could not take down.
        Err(trouble) if !plan.undo_on_failure => (Ending::MustFence, Some(trouble.message)),
        Err(trouble) => {
            let ending = match run.backwards() {
                Left::Stuck => Ending::MustFence,
                _ if trouble.stuck => Ending::MustFence,
                Left::Something => Ending::Halfway,
                Left::Nothing if cancel.is_set() => Ending::Cancelled,
                Left::Nothing => Ending::Failed,
            };
            (ending, Some(trouble.message))
        }
    };
    // What is left belongs to whoever tries again.
    if !matches!(ending, Ending::MustFence | Ending::Halfway) {
        // Without the line, it is done or taken back once more: harmless.
        let _ = run.journal.note(Progress::Ended(plan.name.into()));
    }
    let took_ms = run.began.elapsed().as_millis() as u64;
    Report { plan: plan.name, service: plan.service.clone(), ending, why, took_ms, lines: run.lines }
}

/// What is left of what was to be taken back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    Something,
    /// The volume: somebody must fence this node.
    Stuck,
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
    /// Does the steps.
    worker: Worker,
}

impl Run<'_> {
    fn forwards(&mut self) -> Result<(), Trouble> {
        self.inherit()?;
        for step in &self.plan.steps {
            if self.cancel.is_set() {
                return Err(Trouble::new("cancelled: somebody wants something else by now"));
            }
            let began = Instant::now();
            let note = |run: &mut Self, event, note: &str| run.say(step.as_ref(), event, began, note);
            // A demotion that hangs has not given the volume up.
            let stuck = !self.plan.undo_on_failure;
            let cancel = self.cancel;
            let checked = self.bounded(step, CHECK_LIMIT, |step, _| step.check(), cancel, stuck);
            let done = match checked {
                Ok(Some(shown)) => {
                    note(self, Event::Already, &shown);
                    continue;
                }
                Ok(None) => {
                    self.own(step.name())?;
                    self.bounded(step, step.limit(), |step, turn| step.act(turn), cancel, stuck)
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

    /// What a killed plan did is this one's to take back.
    fn inherit(&mut self) -> Result<(), Trouble> {
        let inherited = self.journal.start(self.plan.name);
        match self.unless_needless(inherited)? {
            None => {}
            Some(Inherited::Steps(steps)) => self.mine = steps,
            Some(Inherited::Everything) => {
                self.plan.steps.iter().try_for_each(|step| self.own(step.name()))?;
            }
        }
        Ok(())
    }

    fn own(&mut self, step: &str) -> Result<(), Trouble> {
        let noted = self.journal.note(Progress::Begun(step.into()));
        self.unless_needless(noted)?;
        self.mine.insert(step.into());
        Ok(())
    }

    /// A plan that takes nothing back is not to fail for want of a journal.
    fn unless_needless<T>(&self, noted: io::Result<T>) -> Result<Option<T>, Trouble> {
        match noted {
            Ok(noted) => Ok(Some(noted)),
            Err(_) if !self.plan.undo_on_failure => Ok(None),
            Err(error) => Err(trouble("cannot write the journal")(error)),
        }
    }

    /// Takes back what this plan did, the last first.
    fn backwards(&mut self) -> Left {
        // What takes back may not itself be cancelled.
        let never = Cancel::default();
        let mut left = Left::Nothing;
        for step in
            self.plan.steps.iter().rev().filter(|step| self.mine.contains(step.name())).collect::<Vec<_>>()
        {
            let began = Instant::now();
            match self.bounded(step, step.limit(), |step, turn| step.undo(turn), &never, false) {
                Ok(()) => {
                    self.say(step.as_ref(), Event::Undone, began, "");
                    // Without the line, it is taken back once more: harmless.
                    let _ = self.journal.note(Progress::Undone(step.name().into()));
                }
                Err(trouble) => {
                    left = left.max(if trouble.stuck { Left::Stuck } else { Left::Something });
                    self.say(step.as_ref(), Event::UndoFailed, began, &trouble.message);
                }
            }
        }
        left
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

    /// Does something with a step, for so long; whether this node is stuck if that hangs.
    fn bounded<T: Send + 'static>(
        &mut self,
        step: &Arc<dyn Step>,
        limit: Duration,
        what: impl FnOnce(&dyn Step, &Turn) -> Result<T, Trouble> + Send + 'static,
        cancel: &Cancel,
        stuck: bool,
    ) -> Result<T, Trouble> {
        let (own, turn) = (Arc::clone(step), Turn::new(limit, cancel.clone()));
        self.worker.within(limit + LAST_WORDS, move || what(own.as_ref(), &turn)).unwrap_or_else(|| {
            Err(Trouble { message: format!("hangs, after {:.1} s", limit.as_secs_f64()), stuck })
        })
    }
}
