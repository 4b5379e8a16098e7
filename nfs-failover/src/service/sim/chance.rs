//! The only source of chance: a seed is a whole life.

use tandem_core::entropy::splitmix64;

/// A generator of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        splitmix64(&mut self.0)
    }

    /// A number from 0 to `n - 1`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times out of a thousand.
    pub(super) fn permille(&mut self, n: u64) -> bool {
        self.below(1000) < n
    }

    /// One of the two nodes.
    pub(super) fn node(&mut self) -> usize {
        self.below(2) as usize
    }
}
