//! Internal metadata lies at the end of its device. When the device has grown it moves to the new end.
//!
//! 1. Bitmaps and activity log are written to their new places, then flushed.
//! 2. The first superblock copy at the new end, durable; then the second.
//! 3. What was the metadata is overwritten with zeroes: if the device should ever end there again, nobody may take it for
//!    the metadata.
//!
//! The two places have nothing in common, so the old metadata is whole until the new one is. Until the first new copy is
//! whole, the old place must be known: it is remembered outside of the device ([`LastPlace`]).

use bytes::Bytes;

use super::geometry::room_behind_first;
use super::store::{load, newest};
use super::{
    ACTIVITY_LOG_BYTES, Geometry, GeometryError, LoadError, MetaIo, Metadata, Placement, SUPERBLOCK_BYTES,
    Superblock, store,
};
use crate::bitmap::Bitmap;
use crate::io::DiskError;
use crate::layout::Layout;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId};

/// Zeroes written at a time.
const ZEROES_BYTES: u64 = 1 << 20;

/// Where internal metadata may be if it is not at the end of its device: where that ended since it was last taken into use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LastPlace {
    /// The identifier in its superblock.
    pub device_id: u64,
    /// How many bytes the device had.
    pub ends: Vec<u64>,
}

/// Why metadata stays where it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotMoved {
    /// The device ends where the metadata does.
    #[error("the device has not grown")]
    AtTheEnd,
    /// The new place would lie over the old one.
    #[error(
        "the device has grown by {grown_bytes} bytes, less than its meta-data takes: that stays where it is, and the volume \
         cannot grow, until the device has grown by {needed_bytes} bytes"
    )]
    Overlap {
        /// By so much.
        grown_bytes: u64,
        /// So much is needed.
        needed_bytes: u64,
    },
    /// The device cannot hold it.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

/// Writes, by offset, that may be done in any order; durable before the next step begins.
pub(crate) type Step = Vec<(u64, Bytes)>;

/// Finds the internal metadata of a device, which may have grown since it was last in use, and moves it to the device's end.
/// Returns how many bytes of the device count: all, or as many as it had where the metadata must stay.
pub fn bring_to_end(io: &mut dyn MetaIo, last: Option<&LastPlace>, node: NodeId) -> Result<u64, LoadError> {
    let device_bytes = io.size_bytes();
    let Some((old, end)) = found_before_end(io, last)? else { return Ok(device_bytes) };
    if let Some(new) = successor(io, &old)? {
        // It had moved, and what was left behind is still there.
        if new.agreed_bytes <= end_of_data(end) {
            // What is there may have been read from a cache.
            io.flush()?;
            store::wipe(&mut Ending { io, at: end }, Placement::Internal)?;
        }
        return Ok(device_bytes);
    }
    let mut metadata = load(&mut Ending { io, at: end }, Placement::Internal, end, node)?;
    let Ok(geometry) = metadata.place_at_end_of(device_bytes) else { return Ok(end) };
    let ring = vec![(0, Bytes::from(metadata.log_ring.clone()))];
    for step in metadata.move_to(geometry, device_bytes, ring) {
        step.iter().try_for_each(|(offset, data)| io.write_at(*offset, data))?;
        io.flush()?;
    }
    Ok(device_bytes)
}

/// How many bytes of a device count, of which internal metadata is only looked at: those before its end, wherever that is.
pub fn bytes_until_metadata_ends(io: &mut dyn MetaIo, last: Option<&LastPlace>) -> Result<u64, LoadError> {
    match found_before_end(io, last)? {
        Some((old, end)) if successor(io, &old)?.is_none() => Ok(end),
        _ => Ok(io.size_bytes()),
    }
}

/// The newest superblock at the places that were remembered, but for the device's end; and where the device ended there.
fn found_before_end(
    io: &mut dyn MetaIo,
    last: Option<&LastPlace>,
) -> Result<Option<(Superblock, u64)>, LoadError> {
    let device_blocks = io.size_bytes() / BLOCK_BYTES;
    let mut found: Option<(Superblock, u64)> = None;
    let Some(LastPlace { device_id, ends }) = last else { return Ok(None) };
    for end in ends.iter().copied().filter(|end| end / BLOCK_BYTES < device_blocks) {
        match newest(&mut Ending { io: &mut *io, at: end }, Placement::Internal) {
            Ok((superblock, _)) if superblock.device_id == *device_id => {
                if found.as_ref().is_none_or(|(other, _)| other.sequence < superblock.sequence) {
                    found = Some((superblock, end));
                }
            }
            Err(LoadError::Io(error)) => return Err(error.into()),
            // Overwritten, or another's.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

/// The superblock at the device's end, if it has taken the place of this one.
fn successor(io: &mut dyn MetaIo, old: &Superblock) -> Result<Option<Superblock>, LoadError> {
    match newest(io, Placement::Internal) {
        Ok((new, _)) if new.device_id == old.device_id && new.sequence > old.sequence => Ok(Some(new)),
        Err(LoadError::Io(error)) => Err(error.into()),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Where on a device of this size, at the latest, internal metadata begins.
fn end_of_data(device_bytes: u64) -> u64 {
    Geometry::internal_superblocks(device_bytes).map_or(0, |copies| copies[0] - ACTIVITY_LOG_BYTES)
}

/// A device as it was when it ended there.
struct Ending<'a> {
    io: &'a mut dyn MetaIo,
    at: u64,
}

impl MetaIo for Ending<'_> {
    fn size_bytes(&self) -> u64 {
        self.at
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.io.read_at(offset, buffer)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.io.write_at(offset, data)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.io.flush()
    }
}

impl Metadata {
    /// Where the metadata lies that is to be moved to the end of a device of this size.
    pub(crate) fn place_at_end_of(&self, device_bytes: u64) -> Result<Geometry, NotMoved> {
        let old = self.place();
        if device_bytes / BLOCK_BYTES * BLOCK_BYTES <= old.end() {
            return Err(NotMoved::AtTheEnd);
        }
        let max_peers = self.geometry.max_peers;
        let room = self.room_behind_first(Placement::Internal, device_bytes, device_bytes);
        let geometry =
            Geometry::with_more_volumes(Placement::Internal, device_bytes, device_bytes, max_peers, room)?;
        if geometry.bitmap_offset < old.end() {
            let grown_bytes = device_bytes - old.end();
            let needed_bytes = grown_bytes + old.end() - geometry.bitmap_offset;
            return Err(NotMoved::Overlap { grown_bytes, needed_bytes });
        }
        Ok(geometry)
    }

    /// What internal metadata takes.
    pub(crate) fn place(&self) -> ByteRange {
        let end = self.geometry.superblock_offsets[0] + SUPERBLOCK_BYTES as u64;
        ByteRange::new(self.geometry.bitmap_offset, end - self.geometry.bitmap_offset)
    }

    /// From now on it lies there, on a device of this size, once these steps are done. `ring` is the activity log, by
    /// offset in its ring.
    pub(crate) fn move_to(&mut self, geometry: Geometry, device_bytes: u64, ring: Step) -> Vec<Step> {
        let old = self.place();
        let volume_bytes = self.volume_bytes();
        self.use_place(geometry, device_bytes, device_bytes);
        self.superblock.sequence += 1;
        self.newest_copy = 0;
        if self.volume_bytes() != volume_bytes {
            // Nobody has used it yet.
            let bytes = self.volume_bytes();
            self.bitmaps.iter_mut().for_each(|bitmap| bitmap.grow_to(bytes));
        }
        let mut first = self.all_groups();
        let log = self.geometry.activity_log_offset;
        first.extend(ring.into_iter().map(|(offset, data)| (log + offset, data)));
        let superblock = Bytes::from(self.superblock.encode());
        let [one, other] = self.geometry.superblock_offsets;
        vec![first, vec![(one, superblock.clone())], vec![(other, superblock)], zeroes(old)]
    }

    /// What the bitmaps shall cover behind the first piece on a device of this size: made anew for the volumes as they are.
    pub(crate) fn room_behind_first(&self, placement: Placement, backing_bytes: u64, meta_bytes: u64) -> u64 {
        let (behind, max_peers) = (self.superblock.layout.bytes_behind_first(), self.geometry.max_peers);
        // Nothing is behind a single volume.
        let room = room_behind_first(placement, backing_bytes, meta_bytes, max_peers, behind);
        room.max(self.superblock.covered_behind_first())
    }

    /// What the metadata takes that has room for these volumes to grow: by so much its disk grows, so that it can move.
    pub(crate) fn bytes_to_cover(&self, layout: &Layout) -> u64 {
        let (backing_bytes, behind) = (self.superblock.backing_bytes, layout.bytes_behind_first());
        let geometry = &self.geometry;
        let covering = Geometry::with_more_volumes(
            Placement::External,
            backing_bytes,
            u64::MAX,
            geometry.max_peers,
            behind,
        );
        covering.map_or(0, |new| new.bitmap_bytes + ACTIVITY_LOG_BYTES + SUPERBLOCK_BYTES as u64)
    }

    /// The metadata lies there from now on, and the data, or that of the first of several volumes, has room until there.
    pub(crate) fn use_place(&mut self, geometry: Geometry, backing_bytes: u64, meta_bytes: u64) {
        let layout = &self.superblock.layout;
        let space_bytes = if layout.is_single() { geometry.data_bytes } else { layout.space_bytes() };
        if let Some(first) = self.rooms.first_mut() {
            *first = geometry.data_bytes;
            self.superblock.room_behind_first =
                self.room_behind_first(geometry.placement, backing_bytes, meta_bytes);
        }
        self.geometry = Geometry { data_bytes: space_bytes, ..geometry };
        self.superblock.backing_bytes = backing_bytes;
    }

    /// The bitmaps with everything that belongs to them; they count as written from now on.
    fn all_groups(&mut self) -> Step {
        let mut step = Step::new();
        let mut empty_from = self.geometry.bitmap_offset;
        for number in 0..self.bitmaps.first().map_or(0, Bitmap::pages) {
            self.take_unwritten_group(number);
            if self.bitmaps.iter().any(|bitmap| bitmap.page_has_bits(number)) {
                let offset = self.group_offset(number);
                step.extend(zeroes(ByteRange::new(empty_from, offset - empty_from)));
                step.push((offset, self.group(number).into()));
                empty_from = offset + self.group_bytes(number) as u64;
            }
        }
        let end = self.geometry.bitmap_offset + self.geometry.bitmap_bytes;
        step.extend(zeroes(ByteRange::new(empty_from, end - empty_from)));
        step
    }
}

fn zeroes(range: ByteRange) -> Step {
    let piece = Bytes::from(vec![0; range.length.min(ZEROES_BYTES) as usize]);
    let starts = (range.offset..range.end()).step_by(ZEROES_BYTES as usize);
    starts.map(|at| (at, piece.slice(..(range.end() - at).min(ZEROES_BYTES) as usize))).collect()
}
