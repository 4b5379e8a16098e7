//! What the administrator changes on a disk that is not in use: the log applied, a peer forgotten, an image restored.

use std::cmp::Ordering;

use thiserror::Error;

use super::store::{clear, geometry_of, load, newest, rewrite, write_first};
use super::{
    ActivityLogState, Carelessness, LoadError, MetaIo, Metadata, PeerSlot, Placement, Superblock, VolumeDisk,
    check_volumes, probe,
};
use crate::bitmap::Bitmap;
use crate::generation::new_identifier;
use crate::state::Role;
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

/// Writes a superblock that was read from there, and that the administrator has changed.
pub fn replace(io: &mut dyn MetaIo, placement: Placement, superblock: Superblock) -> Result<(), LoadError> {
    let (_, newest_copy) = newest(io, placement)?;
    rewrite(io, placement, superblock, newest_copy)
}

/// Frees the slot of a peer that will not come back; false if it has none. If it does come back, it is known to be older, and
/// gets everything: good data begins a new generation, made of `random`, so that what is written without that peer is never
/// taken for what it has, and its old disk, forced to go on, meets a split brain.
pub fn forget_peer(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
    peer: NodeId,
    random: u64,
) -> Result<bool, LoadError> {
    let mut metadata = load(io, placement, backing_bytes, node)?;
    let superblock = &mut metadata.superblock;
    let Some(at) = superblock.peers.iter().position(|slot| slot.node == Some(peer)) else {
        return Ok(false);
    };
    let slot = std::mem::replace(&mut superblock.peers[at], PeerSlot::FREE);
    superblock.generations.remember(slot.bitmap_id);
    superblock.generations.remember(slot.resync_id);
    if superblock.flags.up_to_date && !superblock.generations.is_fresh() {
        superblock.begin_generation(new_identifier(random, Role::Secondary));
    }
    metadata.bitmaps[at].set_all();
    metadata.write_groups(io)?;
    rewrite(io, placement, metadata.superblock, metadata.newest_copy)?;
    Ok(true)
}

/// Why a dump may not tell what the disk is now.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Stale {
    /// Something was written since.
    #[error(
        "the dump is older than the meta-data on the disk (its sequence is {dump}, there {now}): what was written since is \
         not marked in it, so every block will count as different"
    )]
    Older {
        /// The dump's number.
        dump: u64,
        /// The disk's.
        now: u64,
    },
    /// The disk has gone back, and its data with it.
    #[error(
        "the dump is newer than the meta-data on the disk (its sequence is {dump}, there {now}), and with that than the data: \
         it does not belong there any more"
    )]
    Newer {
        /// The dump's number.
        dump: u64,
        /// The disk's.
        now: u64,
    },
    /// What is on this disk is not what the dump speaks of.
    #[error(
        "the dump is of the meta-data with device id {dump:016X}, the disk has that with {now:016X}: it is another disk's, or \
         was made before 'create-md'"
    )]
    OtherDisk {
        /// The dump's.
        dump: u64,
        /// The disk's.
        now: u64,
    },
}

impl Stale {
    /// Restoring it loses nothing but time.
    pub fn may_be_restored(&self) -> bool {
        matches!(self, Stale::Older { .. })
    }
}

/// What is on the disk, if it was ever in use.
fn in_use(io: &mut dyn MetaIo, placement: Placement) -> Result<Option<Superblock>, LoadError> {
    match probe(io, placement) {
        Ok(superblock) => Ok(Some(superblock).filter(|s| s.node.is_some() || !s.generations.is_fresh())),
        Err(LoadError::Io(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Whether a dump tells what the disk is now; `None` if so, or if nothing on the disk says that it does not.
pub fn staleness(
    io: &mut dyn MetaIo,
    placement: Placement,
    dumped: &Superblock,
) -> Result<Option<Stale>, LoadError> {
    Ok(in_use(io, placement)?.and_then(|now| compare(dumped, &now)))
}

fn compare(dumped: &Superblock, now: &Superblock) -> Option<Stale> {
    if dumped.device_id != now.device_id {
        return Some(Stale::OtherDisk { dump: dumped.device_id, now: now.device_id });
    }
    let (dump, now) = (dumped.sequence, now.sequence);
    match dump.cmp(&now) {
        Ordering::Less => Some(Stale::Older { dump, now }),
        Ordering::Greater => Some(Stale::Newer { dump, now }),
        Ordering::Equal => None,
    }
}

/// What the disk says against its data, and does not say in favour of the peers', holds whatever the dump says: it may be old,
/// or was edited.
fn keep_what_is_known(image: &mut Metadata, now: Option<&Superblock>) {
    let superblock = &mut image.superblock;
    for slot in &mut superblock.peers {
        let says_so = |now: &Superblock| now.peers.iter().any(|s| s.node == slot.node && s.outdated);
        slot.outdated &= now.is_some_and(says_so);
    }
    let Some(now) = now else { return };
    let flags = &mut superblock.flags;
    flags.consistent &= now.flags.consistent;
    flags.up_to_date &= now.flags.up_to_date;
    flags.crashed_primary |= now.flags.crashed_primary || now.flags.primary;
    flags.failed |= now.flags.failed;
    if compare(superblock, now).is_some() {
        superblock.sequence = now.sequence.max(superblock.sequence) + 1;
        superblock.undo_id = 0;
        image.bitmaps.iter_mut().for_each(Bitmap::set_all);
    }
}

/// Writes the superblock and its bitmaps in place of whatever is there. `disks` are those of the volumes, the first of which
/// the metadata belongs to; `volume_bytes` is what the bitmaps are for.
///
/// Of a dump that is older than what is there, nothing is believed about what differs; one that does not belong to the disk at
/// all is refused.
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
    let mut image = Metadata {
        geometry,
        rooms: Vec::new(),
        superblock,
        newest_copy: 0,
        bitmaps,
        log_ring: Vec::new(),
        undo: None,
    };
    check_volumes(&mut image, disks)?;
    let now = in_use(io, first.placement)?;
    let stale = now.as_ref().and_then(|now| compare(&image.superblock, now));
    if let Some(stale) = stale.filter(|stale| !stale.may_be_restored()) {
        return Err(LoadError::Mismatch(stale.to_string()));
    }
    keep_what_is_known(&mut image, now.as_ref());
    clear(io, &geometry)?;
    for number in 0..image.bitmaps.first().map_or(0, Bitmap::pages) {
        if image.bitmaps.iter().any(|bitmap| bitmap.page_has_bits(number)) {
            io.write_at(image.group_offset(number), &image.group(number))?;
        }
    }
    io.flush()?;
    Ok(write_first(io, &geometry, &image.superblock)?)
}
