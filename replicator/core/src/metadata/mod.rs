//! The metadata on disk: where it lies, how it is read, how it is created.
//!
//! Version 1: the first. Two superblock copies, a bitmap per peer slot, and the activity log's ring, in exactly the
//! space that DRBD's v09 metadata takes for the same number of peers.

mod geometry;
mod log_ring;
mod offline;
mod plan;
mod relocation;
mod stamp;
mod store;
mod superblock;
mod undo_log;

pub use geometry::{ACTIVITY_LOG_BYTES, Geometry, GeometryError, Placement};
pub use log_ring::{
    Carelessness, MAX_LOG_SLOTS, RING_BYTES, Recovered, encode_transaction, newest_number, recover,
};
pub(crate) use log_ring::{FREE, MAX_CHANGES, WHOLE_BLOCKS, ring_offset};
pub use offline::{Stale, apply_log, forget_peer, replace, restore, staleness};
pub use plan::{PlanError, VolumeDisk, check_volumes, plan, room_bytes};
pub use relocation::{LastPlace, NotMoved, bring_to_end, bytes_until_metadata_ends};
pub use stamp::{bytes_until_stamp_ends, check_stamp, is_stamped, move_stamp, stamp, stamped_before_end};
pub use store::{
    CreateError, LoadError, MetaIo, adopt, create, create_for_volumes, invalidate, load, outdate, probe,
    undone, wipe,
};
pub use superblock::{ActivityLogState, Flags, PeerSlot, SUPERBLOCK_BYTES, Superblock, SuperblockError};
pub(crate) use undo_log::encode_header;
pub use undo_log::{UNDO_RECORD_BYTES, UndoLog, read_undo_log};

use crate::bitmap::Bitmap;
use crate::units::{BLOCK_BYTES, ByteRange};

/// Most peers that a superblock has room for.
pub const MAX_PEERS: u8 = 31;

/// The metadata of a resource's volumes, as it is in memory while the disk is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// Where it lies.
    pub geometry: Geometry,
    /// Bytes of data that the disk of each of several volumes has room for; none of a single one.
    pub rooms: Vec<u64>,
    /// The superblock.
    pub superblock: Superblock,
    /// Which copy of the superblock it was read from. The other one, older or damaged, is written first: at every
    /// moment one copy is whole.
    pub newest_copy: usize,
    /// One bitmap per slot of [`Superblock::peers`].
    pub bitmaps: Vec<Bitmap>,
    /// The activity log's ring as it was read; the engine does not keep it up to date.
    pub log_ring: Vec<u8>,
    /// The file for undo logs, if there is one; the driver adds it to what [`load`] returns.
    pub undo: Option<UndoLog>,
}

impl Metadata {
    /// The size agreed with the peers, or else all that the disk has room for.
    pub fn volume_bytes(&self) -> u64 {
        match self.superblock.agreed_bytes {
            0 => self.geometry.data_bytes,
            agreed => agreed,
        }
    }

    /// Nothing may differ but what the bitmaps mark.
    pub fn is_clean(&self) -> bool {
        self.superblock.activity_log == ActivityLogState::Closed && !self.superblock.flags.primary
    }

    /// Marks in every bitmap what a crash may have left different; `None` if nothing is. Returns the bytes that were not
    /// marked before.
    pub fn mark_hot_ranges(&mut self, careless: Carelessness) -> Option<u64> {
        let hot = self.hot_ranges(careless);
        let mut marked_blocks = 0;
        for (bitmap, slot) in self.bitmaps.iter_mut().zip(&mut self.superblock.peers) {
            let before = bitmap.set_count();
            hot.iter().for_each(|range| bitmap.set_range(*range));
            slot.overcounted |= bitmap.set_count() > before;
            marked_blocks = marked_blocks.max(bitmap.set_count() - before);
        }
        (!hot.is_empty()).then_some(marked_blocks * BLOCK_BYTES)
    }

    /// Where a crash may have left the copies different, besides the blocks that the bitmaps mark.
    pub fn hot_ranges(&self, careless: Carelessness) -> Vec<ByteRange> {
        let everything = vec![ByteRange::new(0, self.geometry.data_bytes)];
        let first = match self.superblock.activity_log {
            // Only a log that is not closed lets a Primary write.
            ActivityLogState::Closed if self.superblock.flags.primary => return everything,
            ActivityLogState::Closed => return Vec::new(),
            ActivityLogState::Unlogged => return everything,
            ActivityLogState::Open(first) => first,
        };
        match recover(&self.log_ring, first, careless) {
            Recovered::Unknown => everything,
            Recovered::Extents { extent_bytes, extents } => extents
                .into_iter()
                .map(|extent| ByteRange::new(u64::from(extent) * extent_bytes, extent_bytes))
                .collect(),
        }
    }
}
