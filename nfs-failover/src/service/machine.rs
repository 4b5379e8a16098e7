//! What is done about wishes and events: a value without clock, thread or socket.
//!
//! A decider's word is a wish and only the newest counts. One plan runs at a time. A promotion that is no longer wanted
//! is cancelled, and undoes what it has done; a demotion is short, leaves a clean node, and is never interrupted. What
//! went wrong holds promotions back for a while, twice as long each time, lest two failing nodes hand the service to and
//! fro. A service that had to step down by itself stays down until it is wished up anew, and what the operator wanted is
//! tried once.

use super::{Outcome, Wish, Word};
use crate::carry_out::Way;
use crate::health::Phase;

/// True when the named seeded bug is switched on, which only the tests can do.
#[cfg(test)]
macro_rules! seeded {
    ($machine:expr, $name:ident) => {
        $machine.bug == Some(super::sim::Bug::$name)
    };
}
#[cfg(not(test))]
macro_rules! seeded {
    ($machine:expr, $name:ident) => {
        false
    };
}

/// After a setback nothing is promoted for so long; twice as long after each further one.
const FIRST_HOLD_MS: u64 = 5_000;
/// But never longer.
const LONGEST_HOLD_MS: u64 = 80_000;
/// A service that was up for so long has left its setbacks behind.
const STABLE_MS: u64 = 300_000;

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// Somebody wants the service here, or away.
    Wish {
        /// Which.
        wish: Wish,
        /// The operator's word ends any hold.
        by_hand: bool,
    },
    /// What is up must not stay up, and why.
    Trouble(String),
    /// The peer has been elected and wants to be Primary.
    Yield,
    /// The plan that ran has ended.
    Ended(Outcome),
    /// The operator has seen to it that nothing is left of what could not be demoted.
    Cleared,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// The newest wish that was heard of is not to be granted again, even after a restart. Comes before everything else:
    /// whoever is killed in between has not stepped down, and finds out anew that it has to.
    Spend,
    /// Run this plan.
    Start(Way),
    /// Stop the promotion at the next boundary between steps and undo it.
    Cancel,
    /// Tell whoever elects.
    Tell(Word),
}

/// How a service is found when it begins to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// All of it is here.
    Up,
    /// Nothing of it is here.
    Down,
    /// A promotion was killed halfway.
    Halfway,
    /// A demotion was killed, or a promotion could not take back what it had done: first of all, it is demoted.
    Leaving,
    /// It could not be demoted, and why; nobody has cleared that. Whoever elects has to be told so.
    MustFence(String),
}

/// One service on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Machine {
    /// The newest wish. It is spent when the service had to step down, or when the operator has been told that it failed.
    wish: Option<Wish>,
    /// It is the operator's.
    by_hand: bool,
    settled: Settled,
    running: Option<Running>,
    /// It is to go down whatever was wished before.
    must_step_down: bool,
    must_fence: Option<String>,
    trouble: Option<String>,
    /// Whoever elects was told to look elsewhere.
    told_unfit: bool,
    setbacks: u32,
    hold_until_ms: Option<u64>,
    up_since_ms: u64,
    #[cfg(test)]
    bug: Option<super::sim::Bug>,
}

/// What the last plan left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Settled {
    #[default]
    Unknown,
    Down,
    Up,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Running {
    plan: Way,
    cancelled: bool,
}

impl Machine {
    /// A service as it has been found.
    pub(crate) fn new(found: Found, now_ms: u64) -> Machine {
        Machine::default().found(found, now_ms)
    }

    /// One with a seeded bug, which has not found anything yet.
    #[cfg(test)]
    pub(super) fn with_bug(bug: Option<super::sim::Bug>) -> Machine {
        Machine { bug, ..Machine::default() }
    }

    /// The machine of a service that was found like this.
    pub(super) fn found(self, found: Found, now_ms: u64) -> Machine {
        let machine = Machine { up_since_ms: now_ms, ..self };
        match found {
            Found::Halfway => machine,
            Found::Leaving => Machine { must_step_down: !seeded!(machine, LeavesHalfDemoted), ..machine },
            Found::Down => Machine { settled: Settled::Down, ..machine },
            Found::Up => Machine { settled: Settled::Up, ..machine },
            Found::MustFence(_) if seeded!(machine, ForgetsMustFence) => machine,
            Found::MustFence(why) => Machine {
                trouble: Some(why.clone()),
                must_fence: Some(why),
                must_step_down: true,
                told_unfit: true,
                hold_until_ms: Some(now_ms),
                ..machine
            },
        }
    }

    /// One input, and everything that is to be done about it.
    pub(crate) fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        let was_elected = matches!(input, Input::Wish { wish: Wish::Up, by_hand: false });
        match input {
            Input::Wish { wish, by_hand } => self.note_wish(wish, by_hand),
            Input::Trouble(reason) => self.step_down(reason, now_ms, &mut outputs),
            // A node that is not up yet competes for the role: tandemd decides.
            Input::Yield
                if self.settled != Settled::Down
                    && self.running.is_none()
                    && !seeded!(self, IgnoresYield) =>
            {
                self.step_down("the peer was elected and asked for it".into(), now_ms, &mut outputs);
            }
            Input::Ended(outcome) => self.note_end(outcome, now_ms, &mut outputs),
            Input::Cleared if self.must_fence.take().is_some() => {
                self.must_step_down = self.settled != Settled::Down;
                self.hold_until_ms = None;
            }
            Input::Yield | Input::Cleared | Input::Tick => {}
        }
        self.advance(now_ms, &mut outputs);
        if was_elected && self.told_unfit && !seeded!(self, ElectedInVain) {
            // Whoever elects hears of nobody else, or has forgotten.
            outputs.push(Output::Tell(Word::Unfit(self.trouble.clone().unwrap_or_default())));
        }
        outputs
    }

    /// When time alone will change something.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.hold_until_ms.filter(|_| self.running.is_none())
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        match (&self.running, self.settled) {
            (Some(Running { plan: Way::Promote, .. }), _) => Phase::Promoting,
            (Some(Running { plan: Way::Demote, .. }), _) => Phase::Demoting,
            (None, Settled::Up) => Phase::Up,
            (None, Settled::Down) => Phase::Down,
            (None, Settled::Unknown) => Phase::Unknown,
        }
    }

    /// The newest wish, if it still stands.
    pub(crate) fn wish(&self) -> Option<Wish> {
        self.wish
    }

    /// Why this node has to be fenced.
    pub(crate) fn must_fence(&self) -> Option<&str> {
        self.must_fence.as_deref()
    }

    /// What went wrong last, until it is up.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether promotions are held back for a while.
    pub(crate) fn is_held(&self) -> bool {
        self.hold_until_ms.is_some()
    }

    /// Nothing runs and nothing is about to.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running.is_none() && self.next_plan().is_none()
    }

    fn note_wish(&mut self, wish: Wish, by_hand: bool) {
        if self.running.is_some() && seeded!(self, KeepsOlderWish) {
            return;
        }
        (self.wish, self.by_hand) = (Some(wish), by_hand);
        if by_hand && !seeded!(self, OperatorWaits) {
            (self.setbacks, self.hold_until_ms) = (0, None);
        }
        if by_hand && !self.must_step_down {
            self.trouble = None;
        }
    }

    fn step_down(&mut self, reason: String, now_ms: u64, outputs: &mut Vec<Output>) {
        // Who is told so again while it goes down has not failed twice.
        let is_news = !self.must_step_down || seeded!(self, CountsOneSetbackTwice);
        if self.running.is_some() || self.settled != Settled::Down {
            self.must_step_down = true;
        }
        // A later wish has still to be granted, an earlier one is spent.
        self.spend(outputs);
        if is_news {
            self.set_back(reason, now_ms, outputs);
        }
        if seeded!(self, SpendsLast) && !outputs.is_empty() {
            outputs.rotate_left(1);
        }
    }

    fn spend(&mut self, outputs: &mut Vec<Output>) {
        if self.wish == Some(Wish::Up) {
            if !seeded!(self, ForgetsToSpend) {
                outputs.push(Output::Spend);
            }
            if !seeded!(self, KeepsSpentWish) {
                self.wish = None;
            }
        }
    }

    fn note_end(&mut self, outcome: Outcome, now_ms: u64, outputs: &mut Vec<Output>) {
        let Some(Running { plan, .. }) = self.running.take() else { return };
        // Whoever elects goes on wanting it. The operator has seen to it otherwise by the time it would succeed.
        let is_over = !matches!(outcome, Outcome::Done | Outcome::Cancelled);
        if plan == Way::Promote && is_over && self.by_hand && !seeded!(self, TriesAgainForOperator) {
            self.spend(outputs);
        }
        match (plan, outcome) {
            (Way::Promote, Outcome::Done) => {
                self.settled = Settled::Up;
                self.up_since_ms = now_ms;
                if !self.must_step_down {
                    self.trouble = None;
                }
            }
            (Way::Demote, Outcome::Done) | (Way::Promote, Outcome::Cancelled) => self.is_down(),
            (Way::Promote, Outcome::Failed(reason)) => {
                self.is_down();
                self.set_back(reason, now_ms, outputs);
            }
            (Way::Promote, Outcome::Refused(_)) if seeded!(self, TakesRefusedForDown) => self.is_down(),
            (Way::Promote, Outcome::Refused(reason)) => self.set_back(reason, now_ms, outputs),
            (Way::Promote, Outcome::Halfway(_)) if seeded!(self, TakesHalfwayForDown) => self.is_down(),
            // A demotion may still get rid of what a promotion could not undo.
            (Way::Promote, Outcome::Halfway(reason)) => {
                self.settled = Settled::Unknown;
                self.must_step_down = true;
                self.set_back(reason, now_ms, outputs);
            }
            (_, Outcome::Stuck(reason))
            | (Way::Demote, Outcome::Refused(reason) | Outcome::Failed(reason) | Outcome::Halfway(reason)) => {
                self.is_stuck(reason, now_ms, outputs)
            }
            (Way::Demote, Outcome::Cancelled) => self.settled = Settled::Unknown,
        }
    }

    fn is_down(&mut self) {
        self.settled = Settled::Down;
        self.must_step_down = false;
    }

    fn is_stuck(&mut self, reason: String, now_ms: u64, outputs: &mut Vec<Output>) {
        self.settled = Settled::Unknown;
        self.must_step_down = true;
        self.must_fence = Some(reason.clone());
        self.set_back(reason, now_ms, outputs);
    }

    fn set_back(&mut self, reason: String, now_ms: u64, outputs: &mut Vec<Output>) {
        self.leave_setbacks_behind(now_ms);
        let hold_ms = (FIRST_HOLD_MS << self.setbacks.min(8)).min(LONGEST_HOLD_MS);
        if !seeded!(self, HoldDoesNotGrow) {
            self.setbacks = self.setbacks.saturating_add(1);
        }
        if !seeded!(self, ForgetsHold) {
            self.hold_until_ms = Some(now_ms + hold_ms);
        }
        self.trouble = Some(reason.clone());
        self.told_unfit = true;
        outputs.push(Output::Tell(Word::Unfit(reason)));
    }

    fn leave_setbacks_behind(&mut self, now_ms: u64) {
        let up_ms = now_ms.saturating_sub(self.up_since_ms);
        if self.settled == Settled::Up && up_ms >= STABLE_MS && !seeded!(self, NeverForgives) {
            self.setbacks = 0;
        }
    }

    /// Looks at the state, not at what has just happened.
    fn advance(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        if self.hold_until_ms.is_some_and(|until| until <= now_ms) {
            self.hold_until_ms = None;
        }
        let is_fit = self.hold_until_ms.is_none() && self.must_fence.is_none() && !self.must_step_down
            || seeded!(self, TellsFitTooEarly);
        if is_fit && std::mem::take(&mut self.told_unfit) {
            outputs.push(Output::Tell(Word::Fit));
        }
        if let Some(running) = self.running.as_mut().filter(|_| !seeded!(self, RunsTwoPlans)) {
            let unwanted = match running.plan {
                Way::Promote => {
                    (self.must_step_down || self.wish != Some(Wish::Up)) && !seeded!(self, NeverCancels)
                }
                Way::Demote => self.wish == Some(Wish::Up) && seeded!(self, CancelsDemotion),
            };
            if unwanted && !running.cancelled {
                running.cancelled = true;
                outputs.push(Output::Cancel);
            }
        } else if let Some(plan) = self.next_plan() {
            self.leave_setbacks_behind(now_ms);
            self.running = Some(Running { plan, cancelled: false });
            outputs.push(Output::Start(plan));
        }
    }

    fn next_plan(&self) -> Option<Way> {
        let held = self.hold_until_ms.is_some();
        let goes_down = self.must_step_down || self.wish == Some(Wish::Down);
        match self.settled {
            // What could not be taken down is tried again after a while.
            _ if goes_down && self.settled != Settled::Down => {
                let again = !held && !seeded!(self, NeverTriesAgain);
                (self.must_fence.is_none() || again).then_some(Way::Demote)
            }
            Settled::Up | Settled::Down | Settled::Unknown
                if goes_down
                    || held
                    || self.must_fence.is_some() && !seeded!(self, PromotesWhatMustBeFenced) =>
            {
                None
            }
            Settled::Up => None,
            Settled::Down | Settled::Unknown => (self.wish == Some(Wish::Up)).then_some(Way::Promote),
        }
    }
}
