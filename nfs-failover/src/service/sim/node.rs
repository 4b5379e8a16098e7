//! One node: its machine, what outlives it, and what there is of the service.

use super::super::machine::Machine;
use super::super::{Outcome, Wish};
use super::onlooker::Onlooker;
use crate::carry_out::Way;
use crate::here::Standing;

/// How much of the service is there: nothing, the role, the mount, the address.
pub(super) const NOTHING: u8 = 0;
pub(super) const PRIMARY: u8 = 1;
pub(super) const MOUNTED: u8 = 2;
pub(super) const SERVING: u8 = 3;

/// A wish in the mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    pub(super) wish: Wish,
    pub(super) by_hand: bool,
    pub(super) mark: u64,
}

/// A plan under way.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) way: Way,
    /// It waits for the lock.
    pub(super) waits: bool,
    pub(super) cancelled: bool,
    /// It is being taken back, and why.
    pub(super) undoing: Option<Outcome>,
    pub(super) has_asked: bool,
    /// Waits for the peer no longer than this.
    pub(super) patience_ms: u64,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) is_on: bool,
    /// The service, while it runs, and the letter that it has read.
    pub(super) machine: Option<Machine>,
    pub(super) read: Option<u64>,
    pub(super) run: Option<Run>,
    /// Events for an earlier life of the service, or an earlier plan, are void.
    pub(super) life: u64,
    pub(super) plan: u64,
    pub(super) newest: Option<Letter>,
    pub(super) spent: Option<u64>,
    pub(super) standing: Standing,
    pub(super) has_journal: bool,
    pub(super) level: u8,
    /// A killed plan has left a program running until then, which has its lock.
    pub(super) locked_until_ms: u64,
    /// Requests wait until the peer is fenced.
    pub(super) is_frozen: bool,
    /// The other node has gone on without this one.
    pub(super) is_outdated: bool,
    /// What promotions fail with whatever is done, until the end.
    pub(super) is_sick: bool,
    pub(super) onlooker: Onlooker,
}

impl Node {
    /// The newest wish that is not spent.
    pub(super) fn newest(&self) -> Option<Letter> {
        self.newest.filter(|letter| self.spent != Some(letter.mark))
    }

    /// Clients may change what is on the volume.
    pub(super) fn writes(&self) -> bool {
        self.level >= MOUNTED && !self.is_frozen
    }

    /// The service, its plan and its threads are gone; what they have done remains.
    pub(super) fn kill(&mut self) {
        (self.machine, self.read, self.run) = (None, None, None);
        self.life += 1;
        self.plan += 1;
    }

    /// Everything is gone that is not on a disk.
    pub(super) fn power_off(&mut self, now_ms: u64) {
        self.kill();
        (self.newest, self.spent) = (None, None);
        (self.standing, self.has_journal) = (Standing::default(), false);
        (self.level, self.is_frozen, self.is_on) = (NOTHING, false, false);
        self.locked_until_ms = 0;
        self.onlooker.power_off(now_ms);
    }
}
