//! What the administrator changes on a disk that is not in use: the log applied, a peer forgotten, an image restored.

use super::store::{clear, geometry_of, load, rewrite, write_first};
use super::{
    ActivityLogState, Carelessness, LoadError, MetaIo, Metadata, PeerSlot, Placement, Superblock, VolumeDisk,
    check_volumes,
};
use crate::bitmap::Bitmap;
use crate::units::NodeId;

/// Marks in the bitmaps what the activity log says may differ, and empties the log, as attaching would do. Returns the bytes
/// that were not marked before; `None` if the metadata is clean.
pub fn apply_log(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
) -> Result<Option<u64>, LoadError> {
    let mut metadata = load(io, placement, backing_bytes, node)?;
    if metadata.is_clean() {
        return Ok(None);
    }
    let marked_bytes = metadata.mark_hot_ranges(Carelessness::default()).unwrap_or(0);
    let flags = &mut metadata.superblock.flags;
    flags.crashed_primary |= std::mem::take(&mut flags.primary);
    metadata.superblock.activity_log = ActivityLogState::Closed;
    metadata.write_groups(io)?;
    rewrite(io, placement, metadata.superblock, metadata.newest_copy)?;
    Ok(Some(marked_bytes))
}

/// Frees the slot of a peer that will not come back. If it does, it is known to be older, and gets everything. Returns false
/// if it has none.
pub fn forget_peer(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
    peer: NodeId,
) -> Result<bool, LoadError> {
    let mut metadata = load(io, placement, backing_bytes, node)?;
    let superblock = &mut metadata.superblock;
    let Some(at) = superblock.peers.iter().position(|slot| slot.node == Some(peer)) else {
        return Ok(false);
    };
    let slot = std::mem::replace(&mut superblock.peers[at], PeerSlot::FREE);
    superblock.generations.remember(slot.bitmap_id);
    superblock.generations.remember(slot.resync_id);
    metadata.bitmaps[at].set_all();
    metadata.write_groups(io)?;
    rewrite(io, placement, metadata.superblock, metadata.newest_copy)?;
    Ok(true)
}

/// Writes the superblock and its bitmaps in place of whatever is there. `disks` are those of the volumes, the first of which
/// the metadata belongs to; `volume_bytes` is what the bitmaps are for.
pub fn restore(
    io: &mut dyn MetaIo,
    disks: &[VolumeDisk],
    volume_bytes: u64,
    superblock: Superblock,
    bitmaps: Vec<Bitmap>,
) -> Result<(), LoadError> {
    let Some(first) = disks.first().filter(|first| first.placement == superblock.placement) else {
        let text =
            "the meta-data was dumped from a disk with another meta-disk setting (internal or external)";
        return Err(LoadError::Mismatch(text.into()));
    };
    let geometry = geometry_of(&superblock, first.placement, first.backing_bytes, io.size_bytes())?;
    if geometry.data_bytes < volume_bytes {
        return Err(LoadError::Shrunk { room_bytes: geometry.data_bytes, agreed_bytes: volume_bytes });
    }
    let mut image =
        Metadata { geometry, superblock, newest_copy: 0, bitmaps, log_ring: Vec::new(), undo: None };
    check_volumes(&mut image, disks)?;
    clear(io, &geometry)?;
    for number in 0..image.bitmaps.first().map_or(0, Bitmap::pages) {
        if image.bitmaps.iter().any(|bitmap| bitmap.page_has_bits(number)) {
            io.write_at(image.group_offset(number), &image.group(number))?;
        }
    }
    io.flush()?;
    Ok(write_first(io, &geometry, &image.superblock)?)
}
