//! Numbers that follow from the entropy that came in.

/// The next number (splitmix64).
pub fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Sebastiano Vigna's splitmix64.c draws them.
    #[test]
    fn the_numbers_are_those_of_everybody() {
        let mut state = 1_234_567;
        let drawn = [(); 3].map(|()| splitmix64(&mut state));
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
