//! What is exported: the catalog the handshake asks, and an export's size, flags and block sizes.

use std::ops::BitOr;

use thiserror::Error;

use crate::constants::{MAX_MINIMUM_BLOCK_BYTES, MAX_PAYLOAD_BYTES};

/// The exports of this server, as of now. Asked anew for each option, so a promotion takes effect at once.
pub trait ExportCatalog {
    /// Every export a client may learn of, refused ones included.
    fn list(&self) -> Vec<ExportSummary>;

    /// What a client that chooses `name` (never empty) would get. INFO and GO both ask this and nothing else,
    /// which keeps them in agreement.
    fn open(&self, name: &str) -> Result<ExportInfo, OpenError>;
}

/// One line of the list of exports; strings of at most 4096 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// The name to ask for.
    pub name: String,
    /// For humans; may be empty.
    pub description: String,
}

/// Why an export cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// There is no export of this name.
    #[error("no such export")]
    Unknown,
    /// It exists but must not be used here now; the text tells the client's operator what to do instead.
    #[error("{0}")]
    Refused(String),
}

/// One export, as promised to a client at the end of the handshake; requests are judged by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Canonical name, at most 4096 bytes.
    pub name: String,
    /// For humans; may be empty.
    pub description: String,
    /// Size in bytes. A remainder beyond a multiple of the minimum block size cannot be reached.
    pub size_bytes: u64,
    /// What the client may ask for.
    pub flags: TransmissionFlags,
    /// The sizes requests must keep to.
    pub block_size: BlockSize,
}

/// Block sizes in bytes. Only valid ones exist (spec, *Block size constraints*): minimum a power of two up to
/// 64 KiB; preferred a power of two, at least 512 and the minimum; maximum a multiple of the minimum, at least the
/// preferred, and here at most [`MAX_PAYLOAD_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    minimum: u32,
    preferred: u32,
    maximum: u32,
}

impl BlockSize {
    /// Checks the three sizes (bytes) against the rules above.
    pub fn new(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSize, InvalidBlockSize> {
        let valid = minimum.is_power_of_two()
            && minimum <= MAX_MINIMUM_BLOCK_BYTES
            && preferred.is_power_of_two()
            && preferred >= minimum.max(512)
            && (preferred..=MAX_PAYLOAD_BYTES).contains(&maximum)
            && maximum.is_multiple_of(minimum);
        match valid {
            true => Ok(BlockSize { minimum, preferred, maximum }),
            false => Err(InvalidBlockSize { minimum, preferred, maximum }),
        }
    }

    /// Offsets and lengths are multiples of this many bytes.
    pub fn minimum(self) -> u32 {
        self.minimum
    }

    /// The size at which this export is fast, in bytes.
    pub fn preferred(self) -> u32 {
        self.preferred
    }

    /// The longest read or write, in bytes; trims and zeroes may be longer.
    pub fn maximum(self) -> u32 {
        self.maximum
    }
}

impl Default for BlockSize {
    /// 512-byte sectors, 4 KiB pages, 32 MiB payloads.
    fn default() -> BlockSize {
        BlockSize { minimum: 512, preferred: 4096, maximum: MAX_PAYLOAD_BYTES }
    }
}

/// Block sizes that no client would accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "block sizes {minimum}/{preferred}/{maximum} are not valid: choose powers of two with minimum <= 65536, \
     preferred >= 512 and >= minimum, and a maximum between preferred and 33554432, multiple of minimum"
)]
pub struct InvalidBlockSize {
    /// Refused minimum, bytes.
    pub minimum: u32,
    /// Refused preferred size, bytes.
    pub preferred: u32,
    /// Refused maximum, bytes.
    pub maximum: u32,
}

/// What an export offers (spec, *Transmission flags*). `HAS_FLAGS` is always part of it: the spec demands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransmissionFlags(u16);

impl TransmissionFlags {
    /// Nothing but reads and writes.
    pub const HAS_FLAGS: TransmissionFlags = TransmissionFlags(1 << 0);
    /// Writes, trims and zeroes are refused.
    pub const READ_ONLY: TransmissionFlags = TransmissionFlags(1 << 1 | 1);
    /// FLUSH is offered.
    pub const SEND_FLUSH: TransmissionFlags = TransmissionFlags(1 << 2 | 1);
    /// The FUA flag is offered, on all commands.
    pub const SEND_FUA: TransmissionFlags = TransmissionFlags(1 << 3 | 1);
    /// TRIM is offered.
    pub const SEND_TRIM: TransmissionFlags = TransmissionFlags(1 << 5 | 1);
    /// WRITE_ZEROES is offered.
    pub const SEND_WRITE_ZEROES: TransmissionFlags = TransmissionFlags(1 << 6 | 1);
    /// A flush on one connection covers writes acknowledged on any other; clients may open several.
    pub const CAN_MULTI_CONN: TransmissionFlags = TransmissionFlags(1 << 8 | 1);

    /// Whether all of `flags` are set.
    pub fn contains(self, flags: TransmissionFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// As received.
    pub(crate) fn from_bits(bits: u16) -> TransmissionFlags {
        TransmissionFlags(bits)
    }

    /// As sent.
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl BitOr for TransmissionFlags {
    type Output = TransmissionFlags;

    fn bitor(self, other: TransmissionFlags) -> TransmissionFlags {
        TransmissionFlags(self.0 | other.0)
    }
}
