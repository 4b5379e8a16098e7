//! Both nodes, the link between them, and what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::machine::{Found, Input, Machine, Output};
use super::super::{Outcome, Wish, Word};
use super::Bug;
use super::chance::Chance;
use super::node::{Letter, MOUNTED, NOTHING, Node, PRIMARY, Run, SERVING};
use crate::carry_out::Way;
use crate::health::Phase;
use crate::plan::Ending;

/// A peer that was asked to demote is waited for.
const PATIENCE_MS: u64 = 15_000;
/// Whoever has the lock is waited for.
const LOCK_MS: u64 = 90_000;
/// When everything is mended and decided, all is quiet after so long.
const QUIET_AFTER_MS: u64 = 400_000;
const END_MS: u64 = 600_000;

/// What happens to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// Its service is told that there may be mail.
    Ring,
    /// Its service is told this, in the life in which it was sent off.
    Input(Input, u64),
    /// The next step of its plan.
    Step(u64),
    /// Its tandemd asks the witness whether it may go on alone.
    Claim,
    /// Its service is started.
    Start,
    /// It is switched on.
    PowerOn,
    /// The link is there again.
    Heal,
    /// The nodes see each other.
    Meet,
    /// The decider here looks around.
    Elect,
    /// Somebody does something.
    Act,
    /// The operator looks after what must be fenced.
    Look,
}

/// How badly everything behaves in this life.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    /// Out of a thousand steps, so many fail.
    pub(super) failing: u64,
    /// Out of a thousand undone steps, so many are not.
    pub(super) leaving: u64,
    /// Out of a thousand unmounts, so many hang.
    pub(super) sticking: u64,
    /// Out of a thousand moments in which the service has something to do, so many are its last.
    pub(super) killing: u64,
    /// Out of a thousand promotions that are killed, so many leave a program that takes its time, such as mount(8).
    pub(super) hanging: u64,
    /// Each node has a UCARP beside all others that meddle.
    pub(super) has_ucarp: bool,
}

/// Both nodes.
pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) nodes: [Node; 2],
    pub(super) chance: Chance,
    pub(super) weather: Weather,
    pub(super) has_link: bool,
    /// Cut off from the witness, too.
    pub(super) black_hole: Option<usize>,
    /// Who has claimed to go on alone.
    claim: Option<usize>,
    pub(super) masters: [bool; 2],
    /// Until when each UCARP keeps out of it.
    pub(super) pause_until_ms: [u64; 2],
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, (usize, Event)>,
    numbers: u64,
    bug: Option<Bug>,
    log: Vec<(u64, usize, Note)>,
}

/// A line of the history.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "they are printed")]
enum Note {
    In(Input),
    Out(Output),
    Event(Event),
    Said(&'static str),
    Found(Found),
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<Bug>) -> World {
        let mut chance = Chance(seed);
        let mut often = |of: &[u64]| of[chance.below(of.len() as u64) as usize];
        let weather = Weather {
            failing: often(&[0, 20, 200]),
            leaving: often(&[0, 0, 200]),
            sticking: often(&[0, 0, 200]),
            killing: often(&[0, 0, 30]),
            has_ucarp: often(&[0, 1]) == 1,
            hanging: often(&[0, 500]),
        };
        World {
            now_ms: 0,
            nodes: Default::default(),
            chance,
            weather,
            has_link: true,
            black_hole: None,
            claim: None,
            masters: [false; 2],
            pause_until_ms: [0; 2],
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            numbers: 0,
            bug,
            log: Vec::new(),
        }
    }

    /// What has happened.
    pub(super) fn history(&self) -> String {
        self.log.iter().map(|(ms, node, note)| format!("{ms:>9} {} {note:?}\n", ["a", "b"][*node])).collect()
    }

    /// A life: a time of trouble, and an end in which it has to come to rest.
    pub(super) fn live(&mut self) {
        for node in 0..2 {
            self.nodes[node].is_on = true;
            self.start(node);
            if self.weather.has_ucarp {
                let ms = self.chance.below(500);
                self.after(ms, node, Event::Elect);
            }
        }
        for _ in 0..self.chance.between(1, 25) {
            self.act();
            let pause_ms = self.pause_ms();
            self.run_until(self.now_ms + pause_ms);
        }
        let ending = self.mend();
        self.run_until(self.now_ms + QUIET_AFTER_MS);
        let rest_from_ms = self.now_ms;
        self.run_until(self.now_ms + END_MS - QUIET_AFTER_MS);
        self.expect_rest(ending, rest_from_ms);
    }

    pub(super) fn run_until(&mut self, end_ms: u64) {
        while let Some(Reverse((at_ms, number))) = self.queue.peek().copied() {
            if at_ms > end_ms {
                break;
            }
            self.queue.pop();
            self.now_ms = at_ms;
            if let Some((node, event)) = self.events.remove(&number) {
                self.happen(node, event);
                self.check();
            }
        }
        self.now_ms = end_ms;
    }

    /// Something happens later.
    pub(super) fn after(&mut self, ms: u64, node: usize, event: Event) {
        self.numbers += 1;
        self.queue.push(Reverse((self.now_ms + ms, self.numbers)));
        self.events.insert(self.numbers, (node, event));
    }

    /// What would still go wrong does not.
    pub(super) fn forget_acts(&mut self) {
        self.events.retain(|_, (_, event)| *event != Event::Act);
    }

    fn happen(&mut self, node: usize, event: Event) {
        if !matches!(event, Event::Input(..) | Event::Step(_) | Event::Elect | Event::Look) {
            self.note(node, Note::Event(event.clone()));
        }
        match event {
            Event::Ring => self.read_mail(node),
            Event::Input(input, life) if life == self.nodes[node].life => self.tell(node, input),
            Event::Step(plan) if plan == self.nodes[node].plan => self.step(node),
            Event::Claim => self.claim(node),
            Event::Start if self.nodes[node].is_on && self.nodes[node].machine.is_none() => self.start(node),
            Event::PowerOn => {
                self.nodes[node].is_on = true;
                self.heal();
                if self.nodes[node].machine.is_none() {
                    self.start(node);
                }
            }
            Event::Heal => self.heal(),
            Event::Meet => self.meet(),
            Event::Elect => self.elect(node),
            Event::Act => self.act(),
            Event::Look => self.look(node),
            Event::Input(..) | Event::Step(_) | Event::Start => {}
        }
    }

    /// What is so at any moment.
    fn check(&self) {
        for node in &self.nodes {
            let Some(machine) = &node.machine else { continue };
            match machine.phase() {
                Phase::Up if node.run.is_none() => assert_eq!(node.level, SERVING, "called up, and is not"),
                Phase::Down => assert_eq!(node.level, NOTHING, "called down, and is not"),
                _ => {}
            }
        }
        assert!(!self.nodes.iter().all(Node::writes), "both nodes write to the volume");
    }

    pub(super) fn say(&mut self, node: usize, what: &'static str) {
        self.note(node, Note::Said(what));
    }

    fn note(&mut self, node: usize, note: Note) {
        self.log.push((self.now_ms, node, note));
    }

    /// As the keeper does it.
    pub(super) fn start(&mut self, node: usize) {
        let (now_ms, bug) = (self.now_ms, self.bug);
        let Node { standing, has_journal, onlooker, machine, .. } = &mut self.nodes[node];
        let found = Found::of(standing.clone(), *has_journal);
        onlooker.restart(now_ms, &found);
        *machine = Some(Machine::with_bug(bug).found(found.clone(), now_ms));
        self.note(node, Note::Found(found));
        self.read_mail(node);
        self.tell(node, Input::Tick);
    }

    /// Leaves a wish, of which the service hears later.
    pub(super) fn wish(&mut self, node: usize, wish: Wish, later_ms: u64) {
        let letter = self.leave(node, wish, false);
        self.say(node, if letter.wish == Wish::Up { "wished up" } else { "wished down" });
        self.after(later_ms, node, Event::Ring);
    }

    /// The operator's wish, if the service runs.
    pub(super) fn wish_by_hand(&mut self, node: usize, wish: Wish) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        let letter = self.leave(node, wish, true);
        self.hear(node, letter);
    }

    fn leave(&mut self, node: usize, wish: Wish, by_hand: bool) -> Letter {
        self.numbers += 1;
        let letter = Letter { wish, by_hand, mark: self.numbers };
        if self.nodes[node].is_on {
            self.nodes[node].newest = Some(letter);
        }
        letter
    }

    fn read_mail(&mut self, node: usize) {
        let Node { machine: Some(_), read, .. } = &self.nodes[node] else { return };
        match self.nodes[node].newest() {
            Some(letter) if *read != Some(letter.mark) => self.hear(node, letter),
            _ => {}
        }
    }

    fn hear(&mut self, node: usize, letter: Letter) {
        self.nodes[node].read = Some(letter.mark);
        self.nodes[node].onlooker.hear(letter.mark);
        self.tell(node, Input::Wish { wish: letter.wish, by_hand: letter.by_hand });
    }

    /// Tells a machine something and does what it wants done, unless it is killed before.
    pub(super) fn tell(&mut self, node: usize, input: Input) {
        let now_ms = self.now_ms;
        let Some(machine) = &mut self.nodes[node].machine else { return };
        let outputs = machine.handle(now_ms, input.clone());
        if input != Input::Tick || !outputs.is_empty() {
            self.note(node, Note::In(input.clone()));
        }
        let before = self.nodes[node].onlooker.clone();
        self.nodes[node].onlooker.goes_in(now_ms, &input);
        for (number, output) in outputs.iter().enumerate() {
            if self.chance.permille(self.weather.killing) {
                if number == 0 {
                    // Nobody knows that it was told.
                    self.nodes[node].onlooker = before;
                }
                self.kill(node);
                return;
            }
            self.note(node, Note::Out(output.clone()));
            self.nodes[node].onlooker.comes_out(now_ms, output);
            self.obey(node, output);
        }
        let Node { machine: Some(machine), onlooker, life, .. } = &self.nodes[node] else { return };
        onlooker.expect_prompt(now_ms, machine, &input, &outputs);
        if let Some(at_ms) = machine.deadline_ms() {
            let life = *life;
            self.after(at_ms.saturating_sub(now_ms), node, Event::Input(Input::Tick, life));
        }
    }

    fn obey(&mut self, node: usize, output: &Output) {
        match output {
            Output::Spend => self.nodes[node].spent = self.nodes[node].read.or(self.nodes[node].spent),
            Output::Start(way) => {
                let Node { run, plan, .. } = &mut self.nodes[node];
                *plan += 1;
                let (way, waits) = (*way, true);
                *run = Some(Run {
                    way,
                    waits,
                    cancelled: false,
                    undoing: None,
                    has_asked: false,
                    patience_ms: 0,
                });
                self.wait_for_lock(node);
            }
            Output::Cancel => {
                if let Some(run) = &mut self.nodes[node].run {
                    run.cancelled = true;
                }
            }
            Output::Tell(Word::Unfit(_)) => self.step_back(node),
            Output::Tell(Word::Fit) => {}
        }
    }

    /// As [`crate::carry_out`] does it.
    fn wait_for_lock(&mut self, node: usize) {
        let Node { locked_until_ms, plan, .. } = self.nodes[node];
        match locked_until_ms.saturating_sub(self.now_ms) {
            0 => self.begin(node),
            ms => self.after(ms.min(LOCK_MS), node, Event::Step(plan)),
        }
    }

    fn begin(&mut self, node: usize) {
        let Node { standing, has_journal, run: Some(run), .. } = &mut self.nodes[node] else { return };
        (run.waits, run.patience_ms) = (false, self.now_ms + PATIENCE_MS);
        standing.state = run.way.under_way(standing.state);
        *has_journal = true;
        self.step_later(node);
    }

    fn refuse(&mut self, node: usize) {
        let Node { standing, run, life, .. } = &mut self.nodes[node];
        let Some(run) = run.take() else { return };
        standing.state = run.way.refused(standing.state);
        let (life, why) = (*life, "another plan is under way".to_owned());
        self.after(0, node, Event::Input(Input::Ended(Outcome::Refused(why)), life));
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.say(node, "the service is killed");
        let promotes = |run: &Run| (run.way, run.waits, &run.undoing) == (Way::Promote, false, &None);
        let Node { run, level, .. } = &self.nodes[node];
        let has_program = *level >= PRIMARY && run.as_ref().is_some_and(promotes);
        if has_program && self.chance.permille(self.weather.hanging) {
            self.say(node, "what it has started goes on");
            let ms = self.chance.between(1, 200_000);
            self.nodes[node].locked_until_ms = self.now_ms + ms;
        }
        self.nodes[node].kill();
        let ms = self.chance.between(10, 10_000);
        self.after(ms, node, Event::Start);
    }

    fn step_later(&mut self, node: usize) {
        let ms = match self.chance.below(50) {
            0 => self.chance.between(2_000, 15_000),
            1..10 => self.chance.between(60, 2_000),
            _ => self.chance.between(1, 60),
        };
        self.after(ms, node, Event::Step(self.nodes[node].plan));
    }

    fn step(&mut self, node: usize) {
        let Some(run) = self.nodes[node].run.clone() else { return };
        match (run.way, run.undoing) {
            _ if run.waits && self.now_ms < self.nodes[node].locked_until_ms => self.refuse(node),
            _ if run.waits => self.begin(node),
            (Way::Demote, _) => self.go_down(node, Outcome::Done),
            (Way::Promote, Some(why)) => self.go_down(node, why),
            (Way::Promote, None) if run.cancelled => self.undo(node, Outcome::Cancelled),
            (Way::Promote, None) => self.go_up(node, run.patience_ms),
        }
    }

    fn go_up(&mut self, node: usize, patience_ms: u64) {
        let is_ill = self.nodes[node].is_sick || self.chance.permille(self.weather.failing);
        let Node { level, is_frozen, .. } = self.nodes[node];
        match level {
            SERVING => self.end(node, Outcome::Done, Ending::Done),
            _ if is_ill => self.undo(node, Outcome::Failed("a step failed".into())),
            NOTHING => match self.may_become_primary(node) {
                Some(true) => self.become_primary(node),
                Some(false) => self.undo(node, Outcome::Failed("refused".into())),
                None if self.now_ms > patience_ms => {
                    self.undo(node, Outcome::Failed("the peer remains Primary".into()));
                }
                None => self.ask_peer(node),
            },
            _ if is_frozen => self.undo(node, Outcome::Failed("the volume is frozen".into())),
            _ => {
                self.nodes[node].level += 1;
                self.step_later(node);
            }
        }
    }

    /// `None` while the peer is Primary and may give way.
    fn may_become_primary(&self, node: usize) -> Option<bool> {
        let (own, peer) = (&self.nodes[node], &self.nodes[1 - node]);
        if own.is_outdated {
            return Some(false);
        }
        match self.has_link {
            true if peer.level >= PRIMARY => None,
            true => Some(true),
            false => {
                Some(self.black_hole != Some(node) && self.claim.is_none_or(|claimant| claimant == node))
            }
        }
    }

    fn become_primary(&mut self, node: usize) {
        if !self.has_link {
            self.go_on_alone(node);
        }
        self.nodes[node].level = PRIMARY;
        self.step_later(node);
    }

    fn ask_peer(&mut self, node: usize) {
        let has_asked =
            self.nodes[node].run.as_mut().is_some_and(|run| std::mem::replace(&mut run.has_asked, true));
        if !has_asked {
            let (ms, life) = (self.chance.between(1, 20), self.nodes[1 - node].life);
            self.after(ms, 1 - node, Event::Input(Input::Yield, life));
        }
        let ms = self.chance.between(20, 1_000);
        self.after(ms, node, Event::Step(self.nodes[node].plan));
    }

    fn undo(&mut self, node: usize, why: Outcome) {
        if let Some(run) = &mut self.nodes[node].run {
            run.undoing = Some(why);
        }
        self.step_later(node);
    }

    fn go_down(&mut self, node: usize, then: Outcome) {
        let is_undone = then != Outcome::Done;
        if self.nodes[node].level == MOUNTED && self.chance.permille(self.weather.sticking) {
            return self.end(node, Outcome::Stuck("umount hangs".into()), Ending::MustFence);
        }
        if self.chance.permille(self.weather.leaving) {
            return self.end(node, Outcome::Halfway("something is left".into()), Ending::Halfway);
        }
        if self.nodes[node].level == NOTHING {
            let ending = match (is_undone, &then) {
                (false, _) => Ending::Done,
                (true, Outcome::Cancelled) => Ending::Cancelled,
                (true, _) => Ending::Failed,
            };
            return self.end(node, then, ending);
        }
        self.nodes[node].level -= 1;
        if self.nodes[node].level == NOTHING {
            self.nodes[node].is_frozen = false;
            self.meet();
        }
        self.step_later(node);
    }

    fn end(&mut self, node: usize, outcome: Outcome, ending: Ending) {
        let ms = self.chance.between(0, 5);
        let Node { standing, has_journal, run, life, .. } = &mut self.nodes[node];
        let Some(run) = run.take() else { return };
        standing.state = run.way.ended(standing.state, ending);
        *has_journal = matches!(ending, Ending::MustFence | Ending::Halfway);
        let life = *life;
        self.after(ms, node, Event::Input(Input::Ended(outcome), life));
    }

    /// The nodes lose each other.
    pub(super) fn cut(&mut self) {
        if !self.has_link {
            return;
        }
        self.say(0, "cut");
        self.has_link = false;
        for node in 0..2 {
            if self.nodes[node].level >= PRIMARY {
                self.nodes[node].is_frozen = true;
                let ms = self.chance.between(1, 5_000);
                self.after(ms, node, Event::Claim);
            }
        }
    }

    fn claim(&mut self, node: usize) {
        if self.has_link || !self.nodes[node].is_frozen {
            return;
        }
        match self.claim {
            _ if self.black_hole == Some(node) => {
                let ms = self.chance.between(1_000, 5_000);
                self.after(ms, node, Event::Claim);
            }
            Some(claimant) if claimant != node => self.lose(node),
            _ => {
                self.go_on_alone(node);
                self.nodes[node].is_frozen = false;
            }
        }
    }

    fn go_on_alone(&mut self, node: usize) {
        self.claim = Some(node);
        self.nodes[1 - node].is_outdated = true;
    }

    /// Its service hears that the other node has gone on.
    fn lose(&mut self, node: usize) {
        let is_there =
            self.nodes[node].machine.as_ref().is_some_and(|machine| machine.phase() != Phase::Down);
        if is_there {
            self.tell(node, Input::Trouble("the other node has gone on".into()));
        }
    }

    fn heal(&mut self) {
        if self.nodes.iter().all(|node| node.is_on) {
            (self.has_link, self.black_hole) = (true, None);
            self.meet();
        }
    }

    /// Both are one again, unless one is Primary without whom the other has gone on: it has to give way first.
    fn meet(&mut self) {
        if !self.has_link {
            return;
        }
        let late = (0..2).find(|node| self.nodes[*node].is_outdated && self.nodes[*node].level >= PRIMARY);
        if let Some(late) = late {
            self.lose(late);
            self.after(1_000, late, Event::Meet);
            return;
        }
        self.claim = None;
        for node in &mut self.nodes {
            (node.is_frozen, node.is_outdated) = (false, false);
        }
    }
}
