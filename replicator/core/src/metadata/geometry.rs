//! Where the metadata lies.
//!
//! Internal: `[data][bitmaps][activity log 32 KiB][superblock 4 KiB]`, the superblock in the last whole 4 KiB of the
//! device. External: `[superblock][activity log][bitmaps]` from offset 0. The second superblock copy takes the
//! activity log's block next to the first copy, so the ring has seven blocks where DRBD's has eight.

use thiserror::Error;

use super::{MAX_PEERS, SUPERBLOCK_BYTES};
use crate::layout::SLOT_BYTES;
use crate::units::BLOCK_BYTES;

/// Bytes reserved for the activity log, the second superblock copy included.
pub const ACTIVITY_LOG_BYTES: u64 = 32 << 10;

const SUPERBLOCK: u64 = SUPERBLOCK_BYTES as u64;
/// So many times their size may volumes grow to before the bitmaps' room is used up.
const MOST_GROWTH: u64 = 8;
/// Of the first volume's disk that room takes no more than this part.
const LEAST_SHARE: u64 = 64;

/// Where the metadata is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Placement {
    /// At the end of the data's own device.
    Internal,
    /// At the start of a device of its own.
    External,
}

/// Byte offsets on the device that holds the metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Where the metadata is kept.
    pub placement: Placement,
    /// The two copies of the superblock.
    pub superblock_offsets: [u64; 2],
    /// The activity log's ring.
    pub activity_log_offset: u64,
    /// The bitmaps of all slots, 64-bit words interleaved: word `i` of slot `s` is number `i * max_peers + s`.
    pub bitmap_offset: u64,
    /// Bytes of the bitmaps on disk, whole pages.
    pub bitmap_bytes: u64,
    /// Bytes of data that the backing device has room for; of several volumes, the space that they take.
    pub data_bytes: u64,
    /// Bitmap slots.
    pub max_peers: u8,
}

/// Why metadata cannot lie where it should.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GeometryError {
    /// The device cannot hold the metadata and any data.
    #[error("Low.dev. too small: {device_bytes} bytes, metadata for {max_peers} peers takes {needed_bytes}")]
    TooSmall {
        /// Size of the device.
        device_bytes: u64,
        /// Slots wanted.
        max_peers: u8,
        /// Size of the metadata and one block of data.
        needed_bytes: u64,
    },
    /// The number of peers is out of range.
    #[error("max-peers must be 1 to {MAX_PEERS}, not {0}")]
    MaxPeers(u8),
}

impl Geometry {
    /// As much of a space of blocks as the bitmaps have room for.
    pub fn covered_bytes(&self) -> u64 {
        self.bitmap_bytes / 8 / u64::from(self.max_peers) * 64 * BLOCK_BYTES
    }

    /// The superblock copies of internal metadata on a device of this size, whatever its number of slots; `None` if
    /// it is too small to have any.
    pub fn internal_superblocks(device_bytes: u64) -> Option<[u64; 2]> {
        let first = (device_bytes / BLOCK_BYTES * BLOCK_BYTES).checked_sub(SUPERBLOCK)?;
        Some([first, first.checked_sub(SUPERBLOCK)?])
    }

    /// The superblock copies of external metadata.
    pub const EXTERNAL_SUPERBLOCKS: [u64; 2] = [0, SUPERBLOCK];

    /// Lays out the metadata. `backing_bytes` is the size of the data's device; `meta_bytes` of the metadata's, the
    /// same one if internal.
    pub fn new(
        placement: Placement,
        backing_bytes: u64,
        meta_bytes: u64,
        max_peers: u8,
    ) -> Result<Geometry, GeometryError> {
        Self::with_more_volumes(placement, backing_bytes, meta_bytes, max_peers, 0)
    }

    /// The same for metadata that is to be created for several volumes, whose pieces behind the first take `others_bytes`.
    pub fn for_new(
        placement: Placement,
        backing_bytes: u64,
        meta_bytes: u64,
        max_peers: u8,
        others_bytes: u64,
    ) -> Result<Geometry, GeometryError> {
        let room = room_behind_first(placement, backing_bytes, meta_bytes, max_peers, others_bytes);
        Self::with_more_volumes(placement, backing_bytes, meta_bytes, max_peers, room)
    }

    /// The same on the disk of a resource's first volume, where the bitmaps also cover `others_bytes` behind its slot.
    pub fn with_more_volumes(
        placement: Placement,
        backing_bytes: u64,
        meta_bytes: u64,
        max_peers: u8,
        others_bytes: u64,
    ) -> Result<Geometry, GeometryError> {
        if max_peers == 0 || max_peers > MAX_PEERS {
            return Err(GeometryError::MaxPeers(max_peers));
        }
        let covered_bytes = match others_bytes {
            0 => backing_bytes,
            others => backing_bytes.next_multiple_of(SLOT_BYTES) + others,
        };
        let bitmaps_bytes = bitmaps_bytes(covered_bytes, max_peers);
        let needed = bitmaps_bytes + ACTIVITY_LOG_BYTES + SUPERBLOCK;
        let too_small =
            |device_bytes, needed_bytes| GeometryError::TooSmall { device_bytes, max_peers, needed_bytes };
        match placement {
            Placement::Internal => {
                let superblocks = Self::internal_superblocks(backing_bytes)
                    .filter(|_| backing_bytes >= needed + 2 * BLOCK_BYTES)
                    .ok_or(too_small(backing_bytes, needed + 2 * BLOCK_BYTES))?;
                let activity_log_offset = superblocks[0] - ACTIVITY_LOG_BYTES;
                let bitmap_offset = activity_log_offset - bitmaps_bytes;
                Ok(Geometry {
                    placement,
                    superblock_offsets: superblocks,
                    activity_log_offset,
                    bitmap_offset,
                    bitmap_bytes: bitmaps_bytes,
                    data_bytes: bitmap_offset,
                    max_peers,
                })
            }
            Placement::External => {
                if meta_bytes < needed {
                    return Err(too_small(meta_bytes, needed));
                }
                if backing_bytes < BLOCK_BYTES {
                    return Err(too_small(backing_bytes, BLOCK_BYTES));
                }
                Ok(Geometry {
                    placement,
                    superblock_offsets: Self::EXTERNAL_SUPERBLOCKS,
                    activity_log_offset: 2 * SUPERBLOCK,
                    bitmap_offset: SUPERBLOCK + ACTIVITY_LOG_BYTES,
                    bitmap_bytes: bitmaps_bytes,
                    data_bytes: backing_bytes / BLOCK_BYTES * BLOCK_BYTES,
                    max_peers,
                })
            }
        }
    }
}

/// What the bitmaps are to cover behind the first volume's slot, of which `others_bytes` are taken: the volumes grow there, all
/// together to eight times of that. What it costs is no more than a 64th of the disk that it lies on; or, if that holds nothing
/// else, what it has.
pub(super) fn room_behind_first(
    placement: Placement,
    backing_bytes: u64,
    meta_bytes: u64,
    max_peers: u8,
    others_bytes: u64,
) -> u64 {
    let covered_bytes = backing_bytes.next_multiple_of(SLOT_BYTES) + others_bytes;
    let needed = bitmaps_bytes(covered_bytes, max_peers) + ACTIVITY_LOG_BYTES + SUPERBLOCK;
    let spare_bytes = match placement {
        Placement::Internal => backing_bytes / LEAST_SHARE,
        Placement::External => meta_bytes.saturating_sub(needed),
    };
    // Of a page that is begun some bits are spare already; rounding up must not begin another one.
    let spare_words =
        (spare_bytes / BLOCK_BYTES * BLOCK_BYTES / 8).checked_div(max_peers.into()).unwrap_or(0);
    let affordable = spare_words.saturating_mul(64 * BLOCK_BYTES) / SLOT_BYTES * SLOT_BYTES;
    others_bytes + affordable.min(others_bytes.saturating_mul(MOST_GROWTH - 1))
}

/// Bytes of all bitmaps: DRBD counts one bit per 4 KiB of the whole backing device, in 64-bit words, times the
/// peers, in whole 4 KiB.
fn bitmaps_bytes(covered_bytes: u64, max_peers: u8) -> u64 {
    let words = covered_bytes.div_ceil(BLOCK_BYTES).div_ceil(64);
    (words * 8 * u64::from(max_peers)).next_multiple_of(BLOCK_BYTES)
}
