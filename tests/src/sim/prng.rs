//! The only source of chance: xoshiro256** seeded through splitmix64, so that a seed is a whole history.

use tandem_core::entropy::splitmix64;

/// A pseudo-random generator.
#[derive(Clone, Debug)]
pub struct Prng([u64; 4]);

impl Prng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Prng(std::array::from_fn(|_| splitmix64(&mut state)))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 to `n - 1`; `n` is at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `n` times out of `of`.
    pub fn chance(&mut self, n: u64, of: u64) -> bool {
        self.below(of) < n
    }

    /// One of the two nodes.
    pub fn node(&mut self) -> usize {
        self.below(2) as usize
    }

    /// One of the choices, each as often as its weight says; the weights are not all 0.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (choice, &weight) in weights.iter().enumerate() {
            if left < weight {
                return choice;
            }
            left -= weight;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut p = Prng::new(seed);
            (0..100).map(|_| p.between(3, 17)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
        assert!(draw(5).iter().all(|n| (3..=17).contains(n)));
    }

    #[test]
    fn weights_of_zero_are_never_drawn() {
        let mut p = Prng::new(1);
        let mut seen = [0; 3];
        for _ in 0..1000 {
            seen[p.weighted(&[1, 0, 3])] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!(seen[2] > 2 * seen[0]);
    }
}
