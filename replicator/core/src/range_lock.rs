//! Ranges of the volume in use: overlapping users take turns, in the order in which they came.

use std::collections::{BTreeMap, VecDeque};

use crate::units::ByteRange;

/// A user of a range, numbered by the engine.
pub(crate) type Token = u64;

/// Held ranges are disjoint, so that one look at each neighbour finds a conflict.
#[derive(Clone, Default, Debug)]
pub(crate) struct RangeLock {
    held: BTreeMap<u64, (u64, Token)>,
    waiting: VecDeque<(Token, ByteRange)>,
}

impl RangeLock {
    /// Takes the range at once and says true, or queues behind those who overlap.
    pub(crate) fn acquire(&mut self, token: Token, range: ByteRange) -> bool {
        let free = self.is_free(range) && !self.waiting.iter().any(|(_, w)| w.overlaps(range));
        if free {
            self.held.insert(range.offset, (range.length, token));
        } else {
            self.waiting.push_back((token, range));
        }
        free
    }

    /// Gives the range back; returns those who hold theirs from now on, in order.
    pub(crate) fn release(&mut self, token: Token, range: ByteRange) -> Vec<Token> {
        if self.held.get(&range.offset).is_some_and(|(_, holder)| *holder == token) {
            self.held.remove(&range.offset);
        }
        let mut granted = Vec::new();
        let mut still_waiting: VecDeque<(Token, ByteRange)> = VecDeque::new();
        for (token, range) in std::mem::take(&mut self.waiting) {
            if self.is_free(range) && !still_waiting.iter().any(|(_, w)| w.overlaps(range)) {
                self.held.insert(range.offset, (range.length, token));
                granted.push(token);
            } else {
                still_waiting.push_back((token, range));
            }
        }
        self.waiting = still_waiting;
        granted
    }

    fn is_free(&self, range: ByteRange) -> bool {
        let before = self.held.range(..range.end()).next_back();
        before.is_none_or(|(offset, (length, _))| offset + length <= range.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_users_take_turns_in_order() {
        let mut lock = RangeLock::default();
        let (a, b, c, d) =
            (ByteRange::new(0, 10), ByteRange::new(5, 10), ByteRange::new(12, 10), ByteRange::new(30, 1));
        assert!(lock.acquire(1, a));
        assert!(!lock.acquire(2, b));
        assert!(!lock.acquire(3, c), "must not overtake the waiting overlap");
        assert!(lock.acquire(4, d));
        assert_eq!(lock.release(1, a), vec![2]);
        assert_eq!(lock.release(4, d), vec![]);
        assert_eq!(lock.release(2, b), vec![3]);
    }

    #[test]
    fn a_large_range_sees_small_ones_inside() {
        let mut lock = RangeLock::default();
        assert!(lock.acquire(1, ByteRange::new(50, 5)));
        assert!(lock.acquire(2, ByteRange::new(60, 5)));
        assert!(!lock.acquire(3, ByteRange::new(0, 100)));
        assert_eq!(lock.release(1, ByteRange::new(50, 5)), vec![]);
        assert_eq!(lock.release(2, ByteRange::new(60, 5)), vec![3]);
    }
}
