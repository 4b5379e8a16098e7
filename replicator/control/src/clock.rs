//! What `tandemadm doctor` asks the tandemd of another node, as the first and only thing on a connection to its replication port:
//! what time is it? Only peers' addresses are answered.

use std::time::{SystemTime, UNIX_EPOCH};

/// The question, as long as the header of a frame and unlike any.
pub const QUESTION: [u8; 24] = *b"TANDEM WHAT TIME IS IT?\n";
/// Length of the answer.
pub const ANSWER_BYTES: usize = 16;

/// The answer: microseconds since 1970, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// When the question came.
    pub received_us: u64,
    /// When the answer went.
    pub sent_us: u64,
}

impl Answer {
    /// As it travels.
    pub fn encode(self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        bytes[..8].copy_from_slice(&self.received_us.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sent_us.to_le_bytes());
        bytes
    }

    /// As it arrived.
    pub fn decode(bytes: [u8; ANSWER_BYTES]) -> Answer {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Answer { received_us: number(0), sent_us: number(8) }
    }
}

/// This node's clock.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        let answer = Answer { received_us: now_us(), sent_us: 0x0102_0304_0506_0708 };
        assert_eq!(Answer::decode(answer.encode()), answer);
        assert!(answer.received_us > 1_500_000_000_000_000, "{answer:?}");
    }
}
