//! Digests of blocks: two nodes compare them instead of the data.

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use xxhash_rust::xxh64::xxh64;

use crate::units::BLOCK_BYTES;

/// How a digest is made: as DRBD's users have it from the kernel. Their number on the wire is their place here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DigestAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-1: half the price where the processor does not help, and strong enough against accidents.
    Sha1,
    /// MD5: as strong against accidents; whoever writes to the volume can make blocks that pass for equal.
    Md5,
    /// SHA-224.
    Sha224,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// CRC-32C, which the processor computes: one of four billion blocks that differ passes for equal.
    Crc32c,
    /// CRC-32 (IEEE), likewise.
    Crc32,
    /// 64-bit xxHash: strong enough against accidents.
    Xxhash64,
}

impl DigestAlgorithm {
    /// Every algorithm, by its number on the wire.
    pub const ALL: &'static [DigestAlgorithm] = &[
        DigestAlgorithm::Sha256,
        DigestAlgorithm::Sha1,
        DigestAlgorithm::Md5,
        DigestAlgorithm::Sha224,
        DigestAlgorithm::Sha384,
        DigestAlgorithm::Sha512,
        DigestAlgorithm::Crc32c,
        DigestAlgorithm::Crc32,
        DigestAlgorithm::Xxhash64,
    ];

    /// The word of the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::Sha1 => "sha1",
            DigestAlgorithm::Md5 => "md5",
            DigestAlgorithm::Sha224 => "sha224",
            DigestAlgorithm::Sha384 => "sha384",
            DigestAlgorithm::Sha512 => "sha512",
            DigestAlgorithm::Crc32c => "crc32c",
            DigestAlgorithm::Crc32 => "crc32",
            DigestAlgorithm::Xxhash64 => "xxhash64",
        }
    }

    /// The algorithm of this name, or of the kernel's name for one implementation of it: `crc32c-intel`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == base_name(name))
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
            DigestAlgorithm::Md5 => 16,
            DigestAlgorithm::Sha224 => 28,
            DigestAlgorithm::Sha384 => 48,
            DigestAlgorithm::Sha512 => 64,
            DigestAlgorithm::Crc32c | DigestAlgorithm::Crc32 => 4,
            DigestAlgorithm::Xxhash64 => 8,
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
                DigestAlgorithm::Md5 => digests.extend_from_slice(&Md5::digest(block)),
                DigestAlgorithm::Sha224 => digests.extend_from_slice(&Sha224::digest(block)),
                DigestAlgorithm::Sha384 => digests.extend_from_slice(&Sha384::digest(block)),
                DigestAlgorithm::Sha512 => digests.extend_from_slice(&Sha512::digest(block)),
                DigestAlgorithm::Crc32c => digests.extend_from_slice(&crc32c::crc32c(block).to_be_bytes()),
                DigestAlgorithm::Crc32 => digests.extend_from_slice(&crc32fast::hash(block).to_be_bytes()),
                DigestAlgorithm::Xxhash64 => digests.extend_from_slice(&xxh64(block, 0).to_be_bytes()),
            }
        }
        digests
    }
}

/// The digest of which the kernel has an implementation of this name.
pub(crate) fn base_name(name: &str) -> &str {
    name.split_once('-').map_or(name, |(digest, _)| digest)
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
    fn each_has_its_place_as_its_number_on_the_wire() {
        for (place, algorithm) in DigestAlgorithm::ALL.iter().enumerate() {
            assert_eq!(place, *algorithm as usize);
            assert_eq!(DigestAlgorithm::from_u8(place as u8), Some(*algorithm));
        }
    }

    #[test]
    fn an_implementation_stands_for_its_digest() {
        assert_eq!(DigestAlgorithm::from_name("crc32c-intel"), Some(DigestAlgorithm::Crc32c));
        assert_eq!(DigestAlgorithm::from_name("sha1-generic"), Some(DigestAlgorithm::Sha1));
        assert_eq!(DigestAlgorithm::from_name("whirlpool-generic"), None);
    }

    #[test]
    fn the_algorithms_are_those_that_they_are_called() {
        let beginnings = [
            ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha224", "23097d223405d8228642a477bda255b3"),
            ("sha384", "cb00753f45a35e8bb5a03d699ac65007"),
            ("sha512", "ddaf35a193617abacc417349ae204131"),
            ("crc32c", "364b3fb7"),
            ("crc32", "352441c2"),
            ("xxhash64", "44bc2cf5ad770999"),
        ];
        assert_eq!(beginnings.len(), DigestAlgorithm::ALL.len());
        for (name, beginning) in beginnings {
            let digest = DigestAlgorithm::from_name(name).map(|algorithm| algorithm.of_blocks(b"abc"));
            let hex: String = digest.iter().flatten().map(|b| format!("{b:02x}")).collect();
            assert!(hex.starts_with(beginning), "{name}: {hex}");
        }
    }
}
