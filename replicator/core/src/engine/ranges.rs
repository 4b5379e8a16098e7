//! Work that needs a range of the volume for itself, and its way to its start: it gets its range, then its extents of the
//! activity log ([`activity`](super::activity)), then what it overwrites is saved ([`undo`](super::undo)).

use std::collections::{BTreeMap, VecDeque};

use super::Engine;
use super::primary_disk::Ask;
use super::receiver::Applied;
use super::resync::ResyncRead;
use crate::range_lock::{RangeLock, Token};
use crate::seeded;
use crate::units::ByteRange;

/// Who has which range, and who waits for one.
#[derive(Clone, Default, Debug)]
pub(super) struct Ranges {
    lock: RangeLock,
    /// Work that waits for its range, or has just got it.
    waiting: BTreeMap<Token, Locked>,
    /// Those that have got it.
    granted: VecDeque<Token>,
    is_starting: bool,
}

/// Work that holds, or waits for, a range of the volume.
#[derive(Clone, Debug)]
pub(super) enum Locked {
    ClientWrite(u64),
    ResyncRead(ResyncRead),
    Ask(Ask),
    Apply(Applied),
}

impl Engine {
    /// Asks for a range, and starts the work at once if nobody is in the way.
    pub(super) fn acquire(&mut self, token: Token, range: ByteRange, work: Locked) {
        self.ranges.waiting.insert(token, work);
        if self.ranges.lock.acquire(token, range) || seeded!(self, IgnoresOverlap) {
            self.start_locked(token);
        }
    }

    /// Gives a range back and starts those who waited for it.
    pub(super) fn release(&mut self, token: Token, range: ByteRange) {
        self.ranges.granted.extend(self.ranges.lock.release(token, range));
        // Work that ends as soon as it starts, on a disk that has failed, gives its range back in turn.
        if std::mem::replace(&mut self.ranges.is_starting, true) {
            return;
        }
        while let Some(next) = self.ranges.granted.pop_front() {
            self.start_locked(next);
        }
        self.ranges.is_starting = false;
    }

    fn start_locked(&mut self, token: Token) {
        if let Some(work) = self.ranges.waiting.remove(&token) {
            self.log_and_start(work);
        }
    }

    /// Starts work that may begin; `logged` if it holds extents of the activity log.
    pub(super) fn start_work(&mut self, work: Locked, logged: bool) {
        if let Some(range) = self.range_to_save(&work) {
            return self.wait_for_undo(range, work, logged);
        }
        match work {
            Locked::ClientWrite(key) => self.start_client_write(key, logged),
            Locked::ResyncRead(read) => self.start_resync_read(read),
            Locked::Ask(ask) => self.start_ask(ask),
            Locked::Apply(applied) => self.start_apply(Applied { logged, ..applied }),
        }
    }
}
