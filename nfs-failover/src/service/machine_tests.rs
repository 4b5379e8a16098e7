//! Every short history of one service.

use super::machine::{Found, Input, Machine, Output};
use super::{Outcome, Wish, Word};
use crate::carry_out::Way;
use crate::health::Phase;

const UP: Input = Input::Wish { wish: Wish::Up, by_hand: false };
const UP_BY_HAND: Input = Input::Wish { wish: Wish::Up, by_hand: true };
const DOWN: Input = Input::Wish { wish: Wish::Down, by_hand: false };
/// Longer than any hold.
const LONG_MS: u64 = 1_000_000;

/// A machine, and what an onlooker concludes from what goes in and comes out.
#[derive(Clone)]
struct Watched {
    machine: Machine,
    now_ms: u64,
    running: Option<Way>,
    cancelled: bool,
    /// The newest wish that nothing has spent.
    wish: Option<Wish>,
    stuck: bool,
    told_unfit: bool,
    history: Vec<Input>,
}

impl Watched {
    fn new(found: Found) -> Watched {
        let stuck = matches!(found, Found::MustFence(_));
        Watched {
            stuck,
            machine: Machine::new(found, 0),
            now_ms: 0,
            running: None,
            cancelled: false,
            wish: None,
            told_unfit: stuck,
            history: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        self.history.push(input.clone());
        let was_there = matches!(self.machine.phase(), Phase::Up | Phase::Unknown);
        match &input {
            Input::Wish { wish, .. } => self.wish = Some(*wish),
            Input::Trouble(_) => self.spend(),
            Input::Yield if was_there => self.spend(),
            Input::Ended(outcome) => {
                let plan = self.running.take().expect("something ran");
                self.cancelled = false;
                let failed =
                    matches!(outcome, Outcome::Failed(_) | Outcome::Halfway(_)) && plan == Way::Demote;
                self.stuck |= matches!(outcome, Outcome::Stuck(_)) || failed;
            }
            Input::Cleared => self.stuck = false,
            Input::Tick => self.now_ms += LONG_MS,
            Input::Yield => {}
        }
        for output in self.machine.handle(self.now_ms, input) {
            self.check(output);
        }
        assert_eq!(self.machine.must_fence().is_some(), self.stuck, "{:?}", self.history);
    }

    fn spend(&mut self) {
        self.wish = self.wish.filter(|wish| *wish == Wish::Down);
    }

    fn check(&mut self, output: Output) {
        let history = &self.history;
        match output {
            Output::Start(plan) => {
                assert_eq!(self.running, None, "two plans at once: {history:?}");
                if plan == Way::Promote {
                    assert_eq!(self.wish, Some(Wish::Up), "promoted although nobody wants it: {history:?}");
                    assert!(!self.stuck, "promoted although it must be fenced: {history:?}");
                    assert!(!self.told_unfit, "promoted while held back: {history:?}");
                }
                self.running = Some(plan);
            }
            Output::Cancel => {
                assert_eq!(self.running, Some(Way::Promote), "only promotions are cancelled: {history:?}");
                assert!(!std::mem::replace(&mut self.cancelled, true), "cancelled twice: {history:?}");
            }
            Output::Spend => assert_eq!(self.wish, None, "a wish that stands is spent: {history:?}"),
            Output::Tell(Word::Unfit(_)) => self.told_unfit = true,
            Output::Tell(Word::Fit) => {
                assert!(std::mem::take(&mut self.told_unfit), "told twice that it is fit: {history:?}");
                assert!(!self.stuck, "fit although it must be fenced: {history:?}");
            }
        }
    }

    fn choices(&self) -> Vec<Input> {
        let mut choices =
            vec![UP, DOWN, Input::Trouble("disk".into()), Input::Yield, Input::Cleared, Input::Tick];
        if self.running.is_some() {
            let outcomes = [
                Outcome::Done,
                Outcome::Cancelled,
                Outcome::Failed("a".into()),
                Outcome::Halfway("b".into()),
                Outcome::Stuck("c".into()),
            ];
            choices.extend(outcomes.map(Input::Ended));
        }
        choices
    }

    /// When everything succeeds from now on, and time passes.
    fn settle(mut self) -> Watched {
        for _ in 0..6 {
            match self.running {
                Some(_) if self.cancelled => self.step(Input::Ended(Outcome::Cancelled)),
                Some(_) => self.step(Input::Ended(Outcome::Done)),
                None => self.step(Input::Tick),
            }
        }
        assert!(self.machine.is_quiet(), "never comes to rest: {:?}", self.history);
        self
    }
}

fn explore(watched: &Watched, depth: usize, seen: &mut u64) {
    *seen += 1;
    let end = watched.clone().settle();
    match (watched.wish, end.stuck) {
        (Some(Wish::Up), false) => assert_eq!(end.machine.phase(), Phase::Up, "{:?}", end.history),
        (Some(Wish::Down), _) | (_, true) => {
            assert_eq!(end.machine.phase(), Phase::Down, "{:?}", end.history);
        }
        (None, false) => assert_ne!(end.machine.phase(), Phase::Promoting),
    }
    if depth == 0 {
        return;
    }
    for input in watched.choices() {
        let mut next = watched.clone();
        next.step(input);
        explore(&next, depth - 1, seen);
    }
}

#[test]
fn every_short_history_keeps_the_rules() {
    let mut seen = 0;
    let fenced = Found::MustFence("since before".into());
    for found in [Found::Halfway, Found::Leaving, Found::Down, Found::Up, fenced] {
        explore(&Watched::new(found), 5, &mut seen);
    }
    assert!(seen > 50_000, "only {seen} histories");
}

fn run(inputs: &[Input]) -> (Machine, Vec<Output>) {
    let mut machine = Machine::new(Found::Down, 0);
    let outputs = inputs.iter().flat_map(|input| machine.handle(0, input.clone())).collect();
    (machine, outputs)
}

#[test]
fn a_later_down_cancels_a_promotion() {
    let (machine, outputs) = run(&[UP, DOWN, UP, DOWN, Input::Ended(Outcome::Cancelled)]);
    assert_eq!(outputs, [Output::Start(Way::Promote), Output::Cancel]);
    assert_eq!(machine.phase(), Phase::Down);
}

#[test]
fn a_promotion_that_was_quicker_than_its_cancellation_is_demoted() {
    let (machine, outputs) = run(&[UP, DOWN, Input::Ended(Outcome::Done)]);
    assert_eq!(outputs, [Output::Start(Way::Promote), Output::Cancel, Output::Start(Way::Demote)]);
    assert_eq!(machine.phase(), Phase::Demoting);
}

#[test]
fn a_cancelled_promotion_that_is_wanted_again_begins_anew() {
    let (_, outputs) = run(&[UP, DOWN, UP, Input::Ended(Outcome::Cancelled)]);
    let promote = Output::Start(Way::Promote);
    assert_eq!(outputs, [promote.clone(), Output::Cancel, promote]);
}

#[test]
fn down_on_a_clean_node_does_nothing_and_on_an_unknown_one_cleans_up() {
    assert_eq!(run(&[DOWN]).1, []);
    let mut unknown = Machine::new(Found::Halfway, 0);
    assert_eq!(unknown.handle(0, DOWN), [Output::Start(Way::Demote)]);
}

#[test]
fn a_service_that_stepped_down_stays_down_until_it_is_wished_up_anew() {
    let trouble = Input::Trouble("the disk is Outdated".into());
    let (mut machine, outputs) =
        run(&[UP, Input::Ended(Outcome::Done), trouble, Input::Ended(Outcome::Done)]);
    let unfit = Output::Tell(Word::Unfit("the disk is Outdated".into()));
    let (promote, demote) = (Output::Start(Way::Promote), Output::Start(Way::Demote));
    assert_eq!(outputs, [promote.clone(), Output::Spend, unfit, demote]);
    assert_eq!(machine.handle(LONG_MS, Input::Tick), [Output::Tell(Word::Fit)]);
    assert_eq!(machine.trouble(), Some("the disk is Outdated"));
    assert_eq!(machine.handle(LONG_MS, UP), [promote]);
}

#[test]
fn who_elects_it_while_it_is_not_fit_is_told_again() {
    let (mut machine, _) = run(&[UP, Input::Ended(Outcome::Failed("no".into()))]);
    let unfit = Output::Tell(Word::Unfit("no".into()));
    assert_eq!(machine.handle(1, DOWN), []);
    assert_eq!(machine.handle(2, UP), [unfit]);
    assert_eq!(machine.handle(LONG_MS, UP), [Output::Tell(Word::Fit), Output::Start(Way::Promote)]);
}

#[test]
fn what_failed_is_tried_again_ever_more_slowly() {
    let mut machine = Machine::new(Found::Down, 0);
    let mut now_ms = 0;
    assert_eq!(machine.handle(0, UP), [Output::Start(Way::Promote)]);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let outputs = machine.handle(now_ms, Input::Ended(Outcome::Failed("no".into())));
        assert_eq!(outputs, [Output::Tell(Word::Unfit("no".into()))]);
        let deadline = machine.deadline_ms().unwrap();
        assert_eq!(machine.handle(deadline - 1, Input::Tick), []);
        let outputs = machine.handle(deadline, Input::Tick);
        assert_eq!(outputs, [Output::Tell(Word::Fit), Output::Start(Way::Promote)]);
        pauses.push(deadline - now_ms);
        now_ms = deadline;
    }
    assert_eq!(pauses, [5_000, 10_000, 20_000, 40_000, 80_000, 80_000, 80_000]);
    // The operator does not wait.
    machine.handle(now_ms, Input::Ended(Outcome::Failed("no".into())));
    assert!(machine.handle(now_ms, UP_BY_HAND).contains(&Output::Start(Way::Promote)));
}

#[test]
fn what_the_operator_wanted_is_tried_once() {
    let failed = Input::Ended(Outcome::Failed("no".into()));
    let (mut machine, _) = run(&[UP_BY_HAND, failed.clone()]);
    assert_eq!((machine.wish(), machine.is_quiet()), (None, true));
    // By then the other node may serve again, behind a link that is cut.
    assert_eq!(machine.handle(LONG_MS, Input::Tick), [Output::Tell(Word::Fit)]);
    // Whoever elects wants it all the same.
    let (mut machine, _) = run(&[UP_BY_HAND, UP, failed]);
    assert!(machine.handle(LONG_MS, Input::Tick).contains(&Output::Start(Way::Promote)));
}

#[test]
fn what_must_be_fenced_stays_so_until_it_is_cleared() {
    let stuck = Input::Ended(Outcome::Stuck("umount hangs".into()));
    let (mut machine, _) = run(&[UP, Input::Ended(Outcome::Done), DOWN, stuck]);
    assert_eq!(machine.must_fence(), Some("umount hangs"));
    // It is tried again, and even if that succeeds it remains to be looked at.
    assert_eq!(machine.handle(LONG_MS, Input::Tick), [Output::Start(Way::Demote)]);
    assert_eq!(machine.handle(LONG_MS, Input::Ended(Outcome::Done)), []);
    let unfit = Output::Tell(Word::Unfit("umount hangs".into()));
    assert_eq!(machine.handle(LONG_MS, UP), [unfit]);
    assert_eq!(machine.must_fence(), Some("umount hangs"));
    let outputs = machine.handle(LONG_MS, Input::Cleared);
    assert_eq!(outputs, [Output::Tell(Word::Fit), Output::Start(Way::Promote)]);
}

#[test]
fn what_must_be_fenced_is_so_after_a_restart_too() {
    let mut machine = Machine::new(Found::MustFence("umount hangs".into()), 0);
    let unfit = Output::Tell(Word::Unfit("umount hangs".into()));
    assert_eq!(machine.handle(0, UP), [Output::Start(Way::Demote), unfit]);
    assert_eq!(machine.handle(0, Input::Ended(Outcome::Done)), []);
    assert_eq!(machine.must_fence(), Some("umount hangs"));
    assert_eq!(machine.handle(0, Input::Cleared).first(), Some(&Output::Tell(Word::Fit)));
}

#[test]
fn what_a_promotion_could_not_undo_is_demoted_before_it_is_tried_again() {
    let halfway = Input::Ended(Outcome::Halfway("the address cannot be removed".into()));
    let (mut machine, outputs) = run(&[UP, halfway, Input::Ended(Outcome::Done)]);
    let unfit = Output::Tell(Word::Unfit("the address cannot be removed".into()));
    assert_eq!(outputs, [Output::Start(Way::Promote), unfit, Output::Start(Way::Demote)]);
    assert_eq!(machine.phase(), Phase::Down);
    assert_eq!(machine.handle(LONG_MS, Input::Tick).last(), Some(&Output::Start(Way::Promote)));
}

#[test]
fn a_peer_that_was_elected_is_given_way_but_not_by_a_competitor() {
    let (_, outputs) = run(&[UP, Input::Yield]);
    assert_eq!(outputs, [Output::Start(Way::Promote)]);
    let (machine, outputs) = run(&[UP, Input::Ended(Outcome::Done), Input::Yield]);
    assert_eq!(outputs.last(), Some(&Output::Start(Way::Demote)));
    assert_eq!(machine.wish(), None);
}

#[test]
fn a_demotion_that_was_killed_is_finished_before_anything_else() {
    let mut machine = Machine::new(Found::Leaving, 0);
    // Nobody wants it here: it is not left behind half demoted.
    assert_eq!(machine.handle(0, Input::Tick), [Output::Start(Way::Demote)]);
    assert_eq!(machine.handle(0, UP), []);
    assert_eq!(machine.handle(0, Input::Ended(Outcome::Done)), [Output::Start(Way::Promote)]);
}

#[test]
fn a_peer_is_given_way_by_what_a_killed_promotion_has_left_too() {
    let mut machine = Machine::new(Found::Halfway, 0);
    assert_eq!(machine.handle(0, Input::Tick), []);
    assert_eq!(machine.handle(0, Input::Yield).last(), Some(&Output::Start(Way::Demote)));
}

#[test]
fn what_the_operator_wanted_is_tried_once_if_it_leaves_something_too() {
    let halfway = Input::Ended(Outcome::Halfway("the address cannot be removed".into()));
    let (mut machine, outputs) = run(&[UP_BY_HAND, halfway, Input::Ended(Outcome::Done)]);
    assert_eq!((outputs[1].clone(), outputs.last()), (Output::Spend, Some(&Output::Start(Way::Demote))));
    assert_eq!(machine.handle(LONG_MS, Input::Tick), [Output::Tell(Word::Fit)]);
}

#[test]
fn a_reason_to_step_down_that_is_said_again_is_no_further_setback() {
    let lost = || Input::Trouble("the other node has gone on".into());
    let (mut machine, _) = run(&[UP, Input::Ended(Outcome::Done), lost(), lost(), lost()]);
    machine.handle(1_000, lost());
    machine.handle(1_000, Input::Ended(Outcome::Done));
    assert_eq!(machine.deadline_ms(), Some(5_000));
}

#[test]
fn setbacks_are_left_behind_by_a_service_that_was_up_for_long_however_it_went_down() {
    let failed = || Input::Ended(Outcome::Failed("no".into()));
    let (mut machine, _) = run(&[UP, failed()]);
    machine.handle(LONG_MS, UP);
    machine.handle(LONG_MS, Input::Ended(Outcome::Done));
    machine.handle(2 * LONG_MS, DOWN);
    machine.handle(2 * LONG_MS, Input::Ended(Outcome::Done));
    machine.handle(3 * LONG_MS, UP);
    machine.handle(3 * LONG_MS, failed());
    assert_eq!(machine.deadline_ms(), Some(3 * LONG_MS + 5_000));
}
