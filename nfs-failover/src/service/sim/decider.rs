//! Who wants things, and what befalls the nodes: electors that behave as badly as the real ones, an operator, faults.

use super::super::Wish;
use super::super::machine::Input;
use super::node::{NOTHING, SERVING};
use super::world::{Event, Weather, World};
use crate::health::Phase;
use crate::here::State;

/// A UCARP that was told to step back listens for so long before it competes again.
const STEP_BACK_MS: u64 = 6_000;
const ELECT_INTERVAL_MS: u64 = 1_000;
const LOOK_INTERVAL_MS: u64 = 10_000;
/// For a program that a killed plan has left to end, and for all holds after that.
const OLD_WISHES_MS: u64 = 400_000;

/// What is wanted when all trouble is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The service on this node, and that alone is said.
    There(usize),
    /// The same, and the other node is wished down.
    ThereOnly(usize),
    /// It on neither.
    Nowhere,
    /// It on both.
    Everywhere,
    /// Nobody says anything any more.
    Silence,
    /// UCARP elects; one node may never be able to promote.
    Elected,
}

impl World {
    /// Something happens, to the nodes or to those who elect.
    pub(super) fn act(&mut self) {
        let node = self.chance.node();
        let (soon, late) = (self.chance.below(30), self.chance.below(8_000));
        match self.chance.below(18) {
            // Both at once.
            0..2 => [node, 1 - node].into_iter().for_each(|node| self.wish(node, Wish::Up, soon)),
            // Up before down, which comes when a slow script has ended.
            2..4 => {
                self.wish(node, Wish::Up, soon);
                self.wish(1 - node, Wish::Down, late);
            }
            // Two words, of which the service hears in one order or the other, or both at once.
            4..6 => {
                let first = if self.chance.permille(500) { Wish::Up } else { Wish::Down };
                let second = if first == Wish::Up { Wish::Down } else { Wish::Up };
                self.wish(node, first, late);
                self.wish(node, second, soon);
            }
            6..8 => self.wish(node, Wish::Up, late),
            8 => self.wish(node, Wish::Down, late),
            9 => {
                let wish = if self.chance.permille(700) { Wish::Up } else { Wish::Down };
                self.say(node, "by hand");
                self.wish_by_hand(node, wish);
            }
            10 => self.clear(node),
            11 if self.nodes[node].machine.is_some() => self.kill(node),
            12 => {
                self.black_hole = self.chance.permille(500).then_some(node);
                self.cut();
                let ms = self.chance.between(10, 60_000);
                self.after(ms, node, Event::Heal);
            }
            13 if self.nodes[node].is_on => {
                self.say(node, "power off");
                self.nodes[node].power_off(self.now_ms);
                self.masters[node] = false;
                self.cut();
                let ms = self.chance.between(1_000, 60_000);
                self.after(ms, node, Event::PowerOn);
            }
            14..16 => self.trouble(node),
            16 => self.tell(node, Input::Yield),
            // A few things at once.
            _ => (0..3).for_each(|_| {
                let ms = self.chance.below(200);
                self.after(ms, node, Event::Act);
            }),
        }
    }

    /// Until the next.
    pub(super) fn pause_ms(&mut self) -> u64 {
        match self.chance.below(20) {
            0..9 => self.chance.between(1, 100),
            9..15 => self.chance.between(100, 5_000),
            15..19 => self.chance.between(5_000, 100_000),
            _ => self.chance.between(100_000, 500_000),
        }
    }

    /// What watches a service that is up says so.
    fn trouble(&mut self, node: usize) {
        let is_up = self.nodes[node].machine.as_ref().is_some_and(|machine| machine.phase() == Phase::Up);
        // That of somebody else may come late.
        if is_up || self.chance.permille(100) {
            self.tell(node, Input::Trouble("the disk fails".into()));
        }
    }

    /// The operator says that nothing is left.
    fn clear(&mut self, node: usize) {
        // What the service has not heard of yet cannot be seen.
        let is_known = self.nodes[node].machine.as_ref().is_none_or(|machine| machine.must_fence().is_some());
        if is_known && self.nodes[node].standing.state == State::MustFence {
            self.nodes[node].standing.state = State::Failed;
            self.nodes[node].onlooker.clear();
            self.tell(node, Input::Cleared);
        }
    }

    /// The operator looks after what must be fenced, again and again.
    pub(super) fn look(&mut self, node: usize) {
        self.clear(node);
        self.after(LOOK_INTERVAL_MS, node, Event::Look);
    }

    /// One of two UCARPs: elected when it hears of no other, and of two masters the lower one.
    pub(super) fn elect(&mut self, node: usize) {
        self.after(ELECT_INTERVAL_MS, node, Event::Elect);
        let hears_other = self.has_link && self.masters[1 - node];
        if !self.nodes[node].is_on || !self.weather.has_ucarp || self.now_ms < self.pause_until_ms[node] {
        } else if self.masters[node] && hears_other && node == 1 {
            self.masters[node] = false;
            self.wish(node, Wish::Down, 0);
        } else if !self.masters[node] && !hears_other {
            self.masters[node] = true;
            self.wish(node, Wish::Up, 0);
        }
    }

    /// It is told that its node is not fit.
    pub(super) fn step_back(&mut self, node: usize) {
        if self.weather.has_ucarp {
            self.pause_until_ms[node] = self.now_ms + STEP_BACK_MS;
            if std::mem::take(&mut self.masters[node]) {
                self.wish(node, Wish::Down, 5);
            }
        }
    }

    /// From now on nothing goes wrong; what is wanted in the end.
    pub(super) fn mend(&mut self) -> Ending {
        self.say(0, "all trouble is over");
        let (node, had_ucarp) = (self.chance.node(), self.weather.has_ucarp);
        self.weather = Weather::default();
        self.forget_acts();
        for node in 0..2 {
            self.after(10, node, Event::PowerOn);
            self.after(20, node, Event::Look);
        }
        let ending = match self.chance.below(6) {
            _ if had_ucarp => Ending::Elected,
            0 | 1 => Ending::There(node),
            2 => Ending::ThereOnly(node),
            3 => Ending::Nowhere,
            4 => Ending::Everywhere,
            _ => Ending::Silence,
        };
        // What was wished before is granted, or has been refused often enough.
        self.run_until(self.now_ms + OLD_WISHES_MS);
        match ending {
            Ending::There(node) => self.wish(node, Wish::Up, 0),
            Ending::ThereOnly(node) => {
                self.wish(node, Wish::Up, 0);
                self.wish(1 - node, Wish::Down, 0);
            }
            Ending::Nowhere => (0..2).for_each(|node| self.wish(node, Wish::Down, 0)),
            Ending::Everywhere => (0..2).for_each(|node| self.wish(node, Wish::Up, 0)),
            Ending::Silence => {}
            Ending::Elected => {
                // Both are started anew, which wishes down first.
                (self.weather.has_ucarp, self.masters) = (true, [false; 2]);
                (0..2).for_each(|node| self.wish(node, Wish::Down, 0));
                self.nodes[node].is_sick = self.chance.permille(500) && self.nodes[node].level == NOTHING;
            }
        }
        ending
    }

    /// It has come to rest, and what was wanted in the end is so.
    pub(super) fn expect_rest(&self, ending: Ending, rest_from_ms: u64) {
        for node in &self.nodes {
            assert!(
                node.machine.as_ref().is_some_and(|machine| machine.is_quiet()),
                "it does not come to rest"
            );
            assert!(node.onlooker.started_ms < rest_from_ms, "it is moved to and fro for ever");
            assert!(!node.is_frozen && !node.is_outdated, "they have not met again");
        }
        let up = [0, 1].map(|node| self.nodes[node].level == SERVING);
        match ending {
            Ending::There(node) | Ending::ThereOnly(node) => {
                assert!(up[node] && !up[1 - node], "{ending:?} was wished, and it is {up:?}");
            }
            Ending::Nowhere => assert_eq!(up, [false; 2], "served, and nobody wants it"),
            Ending::Everywhere | Ending::Elected => {
                assert_ne!(up[0], up[1], "{ending:?}, and not served by one")
            }
            Ending::Silence => assert_ne!(up, [true; 2], "served by both"),
        }
        for node in self.nodes.iter().filter(|node| node.level != SERVING && ending != Ending::Silence) {
            assert_eq!(node.level, NOTHING, "something is left");
        }
    }
}
