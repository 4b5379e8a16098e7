//! Digests of blocks: two nodes compare them instead of the data.

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::units::BLOCK_BYTES;

/// How a digest is made. Strong ones only: two different blocks must never pass for equal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-1: half the price where the processor does not help, and strong enough against accidents.
    Sha1,
}

impl DigestAlgorithm {
    /// Every algorithm, by its number on the wire.
    pub const ALL: &'static [DigestAlgorithm] = &[DigestAlgorithm::Sha256, DigestAlgorithm::Sha1];

    /// The word of the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::Sha1 => "sha1",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    /// The algorithm with this number on the wire.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Bytes of one digest.
    pub const fn digest_bytes(self) -> usize {
        match self {
            DigestAlgorithm::Sha256 => 32,
            DigestAlgorithm::Sha1 => 20,
        }
    }

    /// The digests of every 4 KiB block of `data`, one after the other; the last block may be shorter.
    pub fn of_blocks(self, data: &[u8]) -> Vec<u8> {
        let blocks = data.chunks(BLOCK_BYTES as usize);
        let mut digests = Vec::with_capacity(blocks.len() * self.digest_bytes());
        for block in blocks {
            match self {
                DigestAlgorithm::Sha256 => digests.extend_from_slice(&Sha256::digest(block)),
                DigestAlgorithm::Sha1 => digests.extend_from_slice(&Sha1::digest(block)),
            }
        }
        digests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_per_block_and_one_for_the_rest() {
        for algorithm in DigestAlgorithm::ALL {
            let digests = algorithm.of_blocks(&[7; 2 * BLOCK_BYTES as usize + 512]);
            let digests: Vec<&[u8]> = digests.chunks(algorithm.digest_bytes()).collect();
            assert_eq!(digests.len(), 3);
            assert!(digests[0] == digests[1] && digests[1] != digests[2]);
            assert_eq!(DigestAlgorithm::from_name(algorithm.name()), Some(*algorithm));
        }
    }

    #[test]
    fn the_algorithms_are_those_that_they_are_called() {
        let hex = |algorithm: DigestAlgorithm| -> String {
            algorithm.of_blocks(b"abc").iter().map(|b| format!("{b:02x}")).collect()
        };
        assert_eq!(
            hex(DigestAlgorithm::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hex(DigestAlgorithm::Sha1), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
