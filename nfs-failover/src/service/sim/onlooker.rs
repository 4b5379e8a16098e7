//! What somebody concludes who sees what goes into one machine and what comes out of it, and remembers more than the
//! service does: across its restarts, whose wishes are spent, and what it has to be fenced for.

use super::super::machine::{Found, Input, Machine, Output};
use super::super::{Outcome, Wish, Word};
use crate::carry_out::Way;

const FIRST_HOLD_MS: u64 = 5_000;
const LONGEST_HOLD_MS: u64 = 80_000;
const STABLE_MS: u64 = 300_000;

/// What is left of the service on its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Left {
    #[default]
    Nothing,
    Something,
    All,
}

/// The onlooker of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Onlooker {
    left: Left,
    running: Option<Way>,
    cancelled: bool,
    /// The newest wish that was heard, if it still stands, and whether it is the operator's.
    wish: Option<(Wish, bool)>,
    /// The marks of letters that may never be granted again.
    spent: Vec<u64>,
    heard: Option<u64>,
    /// It goes down before anything else.
    leaving: bool,
    /// A demotion has begun, or a promotion could not take back what it did; it is not over.
    has_to_be_demoted: bool,
    must_fence: bool,
    unfit: bool,
    setbacks: u32,
    hold_until_ms: u64,
    up_since_ms: u64,
    /// When the last plan was started.
    pub(super) started_ms: u64,
}

impl Onlooker {
    /// The service is started and finds something.
    pub(super) fn restart(&mut self, now_ms: u64, found: &Found) {
        let must_fence = matches!(found, Found::MustFence(_));
        assert!(must_fence || !self.must_fence, "it is forgotten that it must be fenced");
        self.must_fence = must_fence;
        self.has_to_be_demoted |= *found == Found::Leaving;
        // The end of the demotion was noted, and the machine was killed before it heard of it.
        self.has_to_be_demoted &= *found != Found::Down;
        (self.running, self.wish, self.heard) = (None, None, None);
        (self.setbacks, self.hold_until_ms, self.up_since_ms) = (0, 0, now_ms);
        self.unfit = self.must_fence;
        self.leaving = self.has_to_be_demoted || self.must_fence;
        self.left = match found {
            Found::Up => Left::All,
            Found::Down => Left::Nothing,
            _ => Left::Something,
        };
    }

    /// The node has lost its power, and with it everything that was noted.
    pub(super) fn power_off(&mut self, now_ms: u64) {
        *self = Onlooker { started_ms: now_ms, ..Onlooker::default() };
    }

    /// The operator has cleared it; the service may not run.
    pub(super) fn clear(&mut self) {
        self.must_fence = false;
        self.has_to_be_demoted |= self.left != Left::Nothing;
        self.leaving = self.left != Left::Nothing;
        self.hold_until_ms = 0;
    }

    /// A letter is taken out of the mailbox.
    pub(super) fn hear(&mut self, mark: u64) {
        assert!(!self.spent.contains(&mark), "a spent wish is heard again");
        self.heard = Some(mark);
    }

    /// Before the machine handles something.
    pub(super) fn goes_in(&mut self, now_ms: u64, input: &Input) {
        match input {
            Input::Wish { wish, by_hand } => {
                self.wish = Some((*wish, *by_hand));
                if *by_hand {
                    (self.setbacks, self.hold_until_ms) = (0, 0);
                }
            }
            Input::Trouble(_) => self.step_down(now_ms),
            Input::Yield if self.running.is_none() && self.left != Left::Nothing => self.step_down(now_ms),
            Input::Ended(outcome) => self.end(now_ms, outcome),
            Input::Cleared | Input::Yield | Input::Tick => {}
        }
    }

    fn step_down(&mut self, now_ms: u64) {
        if !self.leaving {
            self.set_back(now_ms);
        }
        self.leaving |= self.running.is_some() || self.left != Left::Nothing;
        self.spend();
    }

    fn spend(&mut self) {
        if matches!(self.wish, Some((Wish::Up, _))) {
            self.wish = None;
            self.spent.extend(self.heard);
        }
    }

    fn end(&mut self, now_ms: u64, outcome: &Outcome) {
        let plan = self.running.take().expect("something ran");
        let by_hand = matches!(self.wish, Some((Wish::Up, true)));
        if plan == Way::Promote && by_hand && !matches!(outcome, Outcome::Done | Outcome::Cancelled) {
            self.spend();
        }
        match (plan, outcome) {
            (Way::Promote, Outcome::Refused(_)) => {}
            (Way::Promote, Outcome::Done) => (self.left, self.up_since_ms) = (Left::All, now_ms),
            (Way::Demote, Outcome::Done) | (Way::Promote, Outcome::Cancelled | Outcome::Failed(_)) => {
                (self.left, self.leaving, self.has_to_be_demoted) = (Left::Nothing, false, false);
            }
            _ => (self.left, self.leaving, self.has_to_be_demoted) = (Left::Something, true, true),
        }
        self.must_fence |= match outcome {
            Outcome::Stuck(_) => true,
            Outcome::Refused(_) | Outcome::Halfway(_) | Outcome::Failed(_) => plan == Way::Demote,
            Outcome::Done | Outcome::Cancelled => false,
        };
        if !matches!(outcome, Outcome::Done | Outcome::Cancelled) {
            self.set_back(now_ms);
        }
    }

    fn set_back(&mut self, now_ms: u64) {
        self.forgive(now_ms);
        self.hold_until_ms = now_ms + (FIRST_HOLD_MS << self.setbacks.min(8)).min(LONGEST_HOLD_MS);
        self.setbacks += 1;
    }

    fn forgive(&mut self, now_ms: u64) {
        if self.left == Left::All && now_ms - self.up_since_ms >= STABLE_MS {
            self.setbacks = 0;
        }
    }

    /// Everything that the machine wants done.
    pub(super) fn comes_out(&mut self, now_ms: u64, output: &Output) {
        let is_held = now_ms < self.hold_until_ms;
        match output {
            Output::Start(way) => {
                assert_eq!(self.running, None, "two plans at once");
                match way {
                    Way::Promote => {
                        assert!(matches!(self.wish, Some((Wish::Up, _))), "promoted, and nobody wants it");
                        assert!(!self.must_fence, "promoted what must be fenced");
                        assert!(!is_held, "promoted too soon after a setback");
                        assert!(!self.leaving, "promoted what is to be demoted");
                    }
                    Way::Demote => {
                        let is_wished = matches!(self.wish, Some((Wish::Down, _)));
                        assert!(self.leaving || is_wished, "demoted, and nobody wants it");
                        assert!(!(self.must_fence && is_held), "what is stuck is tried too often");
                        self.forgive(now_ms);
                        self.has_to_be_demoted = true;
                    }
                }
                (self.running, self.cancelled, self.started_ms) = (Some(*way), false, now_ms);
            }
            Output::Cancel => {
                assert_eq!(self.running, Some(Way::Promote), "only promotions are cancelled");
                assert!(!self.cancelled, "cancelled twice");
                self.cancelled = true;
            }
            Output::Spend => {
                assert!(
                    self.heard.is_none_or(|mark| self.spent.contains(&mark)),
                    "a wish that stands is spent"
                );
            }
            Output::Tell(Word::Unfit(_)) => self.unfit = true,
            Output::Tell(Word::Fit) => {
                assert!(self.unfit, "told twice that it is fit");
                assert!(!self.must_fence && !is_held && !self.leaving, "it is not fit");
                self.unfit = false;
            }
        }
    }

    /// After the machine has handled something: what is to be done is being done, and nothing is left for later but what
    /// waits for the end of a hold.
    pub(super) fn expect_prompt(&self, now_ms: u64, machine: &Machine, input: &Input, outputs: &[Output]) {
        assert_eq!(machine.must_fence().is_some(), self.must_fence, "whether it must be fenced");
        let is_held = now_ms < self.hold_until_ms;
        let goes_down = self.leaving || matches!(self.wish, Some((Wish::Down, _)));
        let is_wanted = matches!(self.wish, Some((Wish::Up, _))) && !goes_down;
        match self.running {
            Some(Way::Promote) => {
                assert!(is_wanted || self.cancelled, "a promotion that is not wanted goes on")
            }
            Some(Way::Demote) => {}
            None if goes_down && self.left != Left::Nothing => {
                assert!(self.must_fence && is_held, "what is to go down stays");
            }
            None if is_wanted && self.left != Left::All => {
                assert!(self.must_fence || is_held, "a wish is not granted");
            }
            None => {}
        }
        let is_fit = !self.must_fence && !is_held && !self.leaving;
        assert!(!(is_fit && self.unfit), "nobody is told that it is fit again");
        if *input == (Input::Wish { wish: Wish::Up, by_hand: false }) && self.unfit {
            let is_told = outputs.iter().any(|output| matches!(output, Output::Tell(Word::Unfit(_))));
            assert!(is_told, "elected while it is not fit, and nobody is told");
        }
        if self.running.is_none() && is_held {
            let wakes = machine.deadline_ms();
            assert!(wakes.is_some_and(|at| at <= self.hold_until_ms), "sleeps through the end of its hold");
        }
    }
}
