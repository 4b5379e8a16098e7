//! The metadata on disk: where it lies, how it is read, how it is created.
//!
//! Version 1: the first. Two superblock copies, a bitmap per peer slot, and a ring reserved for the activity log, in
//! exactly the space that DRBD's v09 metadata takes for the same number of peers.

mod geometry;
mod store;
mod superblock;

pub use geometry::{ACTIVITY_LOG_BYTES, Geometry, GeometryError, Placement};
pub use store::{CreateError, LoadError, MetaIo, create, load, probe, wipe};
pub use superblock::{Flags, PeerSlot, SUPERBLOCK_BYTES, Superblock, SuperblockError};

use crate::bitmap::Bitmap;

/// Most peers that a superblock has room for.
pub const MAX_PEERS: u8 = 31;

/// The metadata of one volume, as it is in memory while the disk is attached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// Where it lies.
    pub geometry: Geometry,
    /// The superblock.
    pub superblock: Superblock,
    /// Which copy of the superblock it was read from. The other one, older or damaged, is written first: at every
    /// moment one copy is whole.
    pub newest_copy: usize,
    /// One bitmap per slot of [`Superblock::peers`].
    pub bitmaps: Vec<Bitmap>,
}
