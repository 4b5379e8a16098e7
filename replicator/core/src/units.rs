//! Newtypes for identifiers, offsets and time.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// Bytes in a sector, the smallest unit a client may address.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes covered by one bit of the quick-sync bitmap.
pub const BLOCK_BYTES: u64 = 4096;

/// A node of a resource: its number in the configuration, 0 to 31.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u8);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client's request, numbered by the driver; unique among the requests in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A disk operation, numbered by the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskOpId(pub u64);

/// An administrator's command, numbered by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// A run of a handler, numbered by the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HandlerId(pub u64);

/// A replicated write's number on one connection, in the order of sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteSeq(pub u64);

/// An epoch's number: writes of one epoch may be applied in any order, never across its barrier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

/// A point in time: microseconds since an arbitrary start that the driver chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds since `earlier`, 0 if `earlier` lies ahead.
    pub const fn ms_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }

    /// This time, `ms` milliseconds later.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add(ms.saturating_mul(1000)))
    }
}

/// A byte range of the volume: `offset .. offset + length`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl ByteRange {
    /// The range of `length` bytes from `offset`.
    pub const fn new(offset: u64, length: u64) -> Self {
        ByteRange { offset, length }
    }

    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// True if the two share a byte.
    pub const fn overlaps(self, other: ByteRange) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// The numbers of the 4 KiB blocks that the range touches, wholly or in part.
    pub const fn blocks_touched(self) -> std::ops::Range<u64> {
        if self.length == 0 {
            return 0..0;
        }
        self.offset / BLOCK_BYTES..self.end().div_ceil(BLOCK_BYTES)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

impl Add<u64> for Epoch {
    type Output = Epoch;
    fn add(self, n: u64) -> Epoch {
        Epoch(self.0 + n)
    }
}
