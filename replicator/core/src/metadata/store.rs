//! Reading and creating metadata, outside the engine: nothing else happens on the disk meanwhile.

use thiserror::Error;

use super::geometry::room_behind_first;
use super::{
    ActivityLogState, Flags, Geometry, GeometryError, Metadata, PeerSlot, Placement, RING_BYTES,
    SUPERBLOCK_BYTES, Superblock, SuperblockError,
};
use crate::bitmap::{Bitmap, PAGE_BYTES};
use crate::io::DiskError;
use crate::layout::{Layout, VolumeSize};
use crate::units::{ByteRange, NodeId};

/// The disk that holds the metadata. Offsets and lengths are multiples of 4096.
pub trait MetaIo {
    /// Its size in bytes.
    fn size_bytes(&self) -> u64;
    /// Fills `buffer` from `offset`.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes `data` at `offset`.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    /// Makes what was written durable.
    fn flush(&mut self) -> Result<(), DiskError>;
}

/// Why metadata could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LoadError {
    /// There is none: exit code and text are DRBD's 119.
    #[error(
        "No valid meta-data signature found.\n\n\t==> Use 'tandemadm create-md res' to initialize meta-data area. <==\n"
    )]
    NotFound,
    /// Both copies are unusable.
    #[error(
        "The meta-data is damaged and is not used: copy at byte {}: {}; copy at byte {}: {}. \
         If the peer's data is good, run 'tandemadm create-md --force' here and let it resync in full.",
        offsets[0], errors[0], offsets[1], errors[1]
    )]
    Damaged {
        /// Where the copies lie.
        offsets: [u64; 2],
        /// What is wrong with each.
        errors: [SuperblockError; 2],
    },
    /// A copy was written by a newer release; the other may be older than it.
    #[error(
        "the meta-data was written by a newer release (version {0}): install that release, or run \
         'tandemadm create-md --force' if the peer's data is good"
    )]
    Newer(u32),
    /// The device is smaller than the data on it.
    #[error(
        "the device has room for {room_bytes} bytes of data, {agreed_bytes} were agreed with the peer. Implicit device shrinking not allowed."
    )]
    Shrunk {
        /// Bytes of data it has room for.
        room_bytes: u64,
        /// Bytes agreed on.
        agreed_bytes: u64,
    },
    /// The disk of a volume is smaller than the data on it.
    #[error(
        "the disk of volume {} has room for {room_bytes} bytes of data, it had {} at 'create-md'. Implicit device shrinking \
         not allowed.", volume.number, volume.bytes
    )]
    VolumeShrunk {
        /// What it was at `create-md`.
        volume: VolumeSize,
        /// Bytes of data its disk has room for.
        room_bytes: u64,
    },
    /// The superblock was made for another placement or belongs to another node.
    #[error("{0}")]
    Mismatch(String),
    /// The layout is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] DiskError),
}

/// Why metadata could not be created.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CreateError {
    /// The layout is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The disk failed.
    #[error("writing meta-data failed: {0}")]
    Io(#[from] DiskError),
}

/// Bytes of the bitmaps that are read at a time.
const READ_BYTES: u64 = 4 << 20;
const NO_BITS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Reads the superblock copies: the newest valid one, or why there is none.
pub fn probe(io: &mut dyn MetaIo, placement: Placement) -> Result<Superblock, LoadError> {
    newest(io, placement).map(|(superblock, _)| superblock)
}

/// The newest valid superblock, and which copy it is.
pub(super) fn newest(io: &mut dyn MetaIo, placement: Placement) -> Result<(Superblock, usize), LoadError> {
    let offsets = superblock_offsets(io, placement).ok_or(LoadError::NotFound)?;
    if io.size_bytes() < offsets[0].max(offsets[1]) + SUPERBLOCK_BYTES as u64 {
        return Err(LoadError::NotFound);
    }
    let mut copies = Vec::with_capacity(2);
    for offset in offsets {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        io.read_at(offset, &mut bytes)?;
        copies.push(Superblock::decode(&bytes));
    }
    let (second, first) = (copies.pop(), copies.pop());
    let newer = |copy: &Option<Result<Superblock, SuperblockError>>| match copy {
        Some(Err(SuperblockError::Version(version))) => Some(*version),
        _ => None,
    };
    if let Some(version) = newer(&first).or(newer(&second)) {
        return Err(LoadError::Newer(version));
    }
    match (first, second) {
        (Some(Ok(a)), Some(Ok(b))) => Ok(if b.sequence > a.sequence { (b, 1) } else { (a, 0) }),
        (Some(Ok(a)), _) => Ok((a, 0)),
        (_, Some(Ok(b))) => Ok((b, 1)),
        (Some(Err(SuperblockError::Absent)), Some(Err(SuperblockError::Absent))) => Err(LoadError::NotFound),
        (Some(Err(a)), Some(Err(b))) => Err(LoadError::Damaged { offsets, errors: [a, b] }),
        _ => Err(LoadError::NotFound),
    }
}

/// Reads the metadata of `node`'s disk. `backing_bytes` is the size of the data's device.
pub fn load(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
) -> Result<Metadata, LoadError> {
    let (superblock, newest_copy) = newest(io, placement)?;
    if superblock.placement != placement {
        let text = "the meta-data was created for another meta-disk setting (internal or external); correct the configuration";
        return Err(LoadError::Mismatch(text.into()));
    }
    if superblock.node.is_some_and(|n| n != node) {
        let text = format!(
            "the meta-data belongs to node {}, this is node {node}: is the disk plugged into the wrong node? \
             A copy of that node's disk on its way here is taken into use with 'tandemadm adopt-md'; if the data may be \
             overwritten, run 'tandemadm create-md --force'",
            superblock.node.map_or(255, |n| n.0)
        );
        return Err(LoadError::Mismatch(text));
    }
    let geometry = geometry_of(&superblock, placement, backing_bytes, io.size_bytes())?;
    let first_room = geometry_on_disk(&superblock, placement, backing_bytes, io.size_bytes())?.data_bytes;
    if geometry.data_bytes < superblock.agreed_bytes {
        return Err(LoadError::Shrunk {
            room_bytes: geometry.data_bytes,
            agreed_bytes: superblock.agreed_bytes,
        });
    }
    let volume_bytes =
        if superblock.agreed_bytes == 0 { geometry.data_bytes } else { superblock.agreed_bytes };
    let mut log_ring = vec![0; RING_BYTES];
    io.read_at(geometry.activity_log_offset, &mut log_ring)?;
    let mut metadata = Metadata {
        rooms: rooms_until_measured(&superblock, first_room),
        geometry,
        log_ring,
        newest_copy,
        bitmaps: superblock.peers.iter().map(|_| Bitmap::new(volume_bytes)).collect(),
        superblock,
        undo: None,
    };
    metadata.read_groups(io)?;
    metadata.bitmaps.iter_mut().for_each(Bitmap::mark_written);
    Ok(metadata)
}

/// What is known of the volumes' room before anybody has looked at the disks behind the first one's, which has this room.
fn rooms_until_measured(superblock: &Superblock, first_room: u64) -> Vec<u64> {
    let mut rooms: Vec<u64> = superblock.layout.volumes().iter().map(|volume| volume.bytes).collect();
    rooms.iter_mut().take(1).for_each(|room| *room = first_room);
    rooms
}

/// Where the metadata lies that this superblock belongs to. Of several volumes the first must have room for its data;
/// whoever opens the others' disks checks those. Of a disk that has outgrown its meta-disk as much counts as before.
pub(super) fn geometry_of(
    superblock: &Superblock,
    placement: Placement,
    backing_bytes: u64,
    meta_bytes: u64,
) -> Result<Geometry, LoadError> {
    let geometry = geometry_on_disk(superblock, placement, backing_bytes, meta_bytes)?;
    match superblock.layout.volumes().first() {
        Some(first) if geometry.data_bytes < first.bytes => {
            Err(LoadError::Shrunk { room_bytes: geometry.data_bytes, agreed_bytes: first.bytes })
        }
        Some(_) => Ok(Geometry { data_bytes: superblock.layout.space_bytes(), ..geometry }),
        None => Ok(geometry),
    }
}

/// The same, with the room for data on the disk: of several volumes, the first one's.
fn geometry_on_disk(
    superblock: &Superblock,
    placement: Placement,
    backing_bytes: u64,
    meta_bytes: u64,
) -> Result<Geometry, GeometryError> {
    let (layout, max_peers) = (&superblock.layout, superblock.peers.len() as u8);
    let others_bytes = superblock.covered_behind_first();
    let of_a_disk =
        |bytes| Geometry::with_more_volumes(placement, bytes, meta_bytes, max_peers, others_bytes);
    let volume_bytes = layout.volumes().first().map_or(superblock.agreed_bytes, |first| first.bytes);
    let used_bytes = superblock.backing_bytes.max(volume_bytes);
    match of_a_disk(backing_bytes) {
        Err(GeometryError::TooSmall { .. })
            if placement == Placement::External && used_bytes < backing_bytes =>
        {
            of_a_disk(used_bytes)
        }
        geometry => geometry,
    }
}

/// Writes fresh metadata of a single volume: no data seen yet, every bitmap clear.
pub fn create(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    max_peers: u8,
    device_id: u64,
) -> Result<Geometry, CreateError> {
    create_for_volumes(io, placement, backing_bytes, max_peers, device_id, Layout::default())
}

/// The same on the disk of the first of several volumes, or of the only one; see [`super::plan`].
pub fn create_for_volumes(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    max_peers: u8,
    device_id: u64,
    layout: Layout,
) -> Result<Geometry, CreateError> {
    let (meta_bytes, behind) = (io.size_bytes(), layout.bytes_behind_first());
    let room_behind_first = room_behind_first(placement, backing_bytes, meta_bytes, max_peers, behind);
    let geometry =
        Geometry::with_more_volumes(placement, backing_bytes, meta_bytes, max_peers, room_behind_first)?;
    clear(io, &geometry)?;
    let fresh = Superblock::fresh(device_id, backing_bytes, placement, max_peers);
    write_first(io, &geometry, &Superblock { layout, room_behind_first, ..fresh })?;
    Ok(geometry)
}

/// An empty activity log and empty bitmaps, and no superblock: nobody may find an old one over them.
pub(super) fn clear(io: &mut dyn MetaIo, geometry: &Geometry) -> Result<(), DiskError> {
    wipe(io, geometry.placement)?;
    let zeroes = vec![0u8; 1 << 20];
    for (start, length) in
        [(geometry.activity_log_offset, RING_BYTES as u64), (geometry.bitmap_offset, geometry.bitmap_bytes)]
    {
        let mut done = 0;
        while done < length {
            let step = (length - done).min(zeroes.len() as u64);
            io.write_at(start + done, &zeroes[..step as usize])?;
            done += step;
        }
    }
    io.flush()
}

/// Both copies where there is none.
pub(super) fn write_first(
    io: &mut dyn MetaIo,
    geometry: &Geometry,
    superblock: &Superblock,
) -> Result<(), DiskError> {
    let copy = superblock.encode();
    for offset in geometry.superblock_offsets {
        io.write_at(offset, &copy)?;
        io.flush()?;
    }
    Ok(())
}

/// Notes that the data is old; false if it is not even consistent, and nothing is noted.
pub fn outdate(io: &mut dyn MetaIo, placement: Placement) -> Result<bool, LoadError> {
    let (mut superblock, newest_copy) = newest(io, placement)?;
    if !superblock.flags.consistent {
        return Ok(false);
    }
    superblock.flags.up_to_date = false;
    rewrite(io, placement, superblock, newest_copy)?;
    Ok(true)
}

/// Notes that the image of before an interrupted resync is back: what was put back differs from the peers' data, and is older.
pub fn undone(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
    put_back: &[ByteRange],
) -> Result<(), LoadError> {
    let mut metadata = load(io, placement, backing_bytes, node)?;
    for bitmap in &mut metadata.bitmaps {
        put_back.iter().for_each(|range| bitmap.set_range(*range));
    }
    metadata.write_groups(io)?;
    (metadata.superblock.flags.consistent, metadata.superblock.flags.up_to_date) = (true, false);
    metadata.superblock.undo_id = 0;
    rewrite(io, placement, metadata.superblock, metadata.newest_copy)
}

/// Notes that every block of `node`'s disk may differ from every peer's, and that its data is not to be used.
pub fn invalidate(
    io: &mut dyn MetaIo,
    placement: Placement,
    backing_bytes: u64,
    node: NodeId,
) -> Result<(), LoadError> {
    let mut metadata = load(io, placement, backing_bytes, node)?;
    metadata.bitmaps.iter_mut().for_each(Bitmap::set_all);
    metadata.write_groups(io)?;
    metadata.superblock.undo_id = 0;
    metadata.superblock.flags.consistent = false;
    metadata.superblock.flags.up_to_date = false;
    rewrite(io, placement, metadata.superblock, metadata.newest_copy)
}

/// Makes the copy of another node's disk this node's own. Since it was made the other node may have written anywhere: the copy is
/// Inconsistent, and what it lacks is in the other node's bitmap, which counts from the copy's generation.
pub fn adopt(io: &mut dyn MetaIo, placement: Placement, node: NodeId) -> Result<(), LoadError> {
    let (mut superblock, newest_copy) = newest(io, placement)?;
    let Some(owner) = superblock.node.filter(|owner| *owner != node) else {
        return Err(LoadError::Mismatch("this is not a copy of another node's disk".into()));
    };
    let counts = |p: &&mut PeerSlot| p.node == Some(node) && (p.bitmap_id != 0 || p.resync_id != 0);
    let Some(slot) = superblock.peers.iter_mut().find(counts) else {
        let text = "the copy was not prepared for this node: disconnect the node that it comes from, run \
                    'tandemadm new-current-uuid --clear-bitmap' there, and copy its disk again";
        return Err(LoadError::Mismatch(text.into()));
    };
    *slot = PeerSlot { node: Some(owner), ..PeerSlot::FREE };
    superblock.node = Some(node);
    superblock.flags = Flags::default();
    superblock.activity_log = ActivityLogState::Closed;
    superblock.undo_id = 0;
    rewrite(io, placement, superblock, newest_copy)
}

/// Both copies anew, one after the other.
pub(super) fn rewrite(
    io: &mut dyn MetaIo,
    placement: Placement,
    mut superblock: Superblock,
    newest_copy: usize,
) -> Result<(), LoadError> {
    superblock.sequence += 1;
    let copy = superblock.encode();
    let offsets = superblock_offsets(io, placement).ok_or(LoadError::NotFound)?;
    for which in [1 - newest_copy, newest_copy] {
        io.write_at(offsets[which], &copy)?;
        io.flush()?;
    }
    Ok(())
}

pub(super) fn superblock_offsets(io: &dyn MetaIo, placement: Placement) -> Option<[u64; 2]> {
    match placement {
        Placement::Internal => Geometry::internal_superblocks(io.size_bytes()),
        Placement::External => Some(Geometry::EXTERNAL_SUPERBLOCKS),
    }
}

/// Destroys the superblocks, so that no metadata is found any more.
pub fn wipe(io: &mut dyn MetaIo, placement: Placement) -> Result<(), DiskError> {
    for offset in superblock_offsets(io, placement).into_iter().flatten() {
        io.write_at(offset, &[0; SUPERBLOCK_BYTES])?;
    }
    io.flush()
}

/// Pages of all slots interleave on disk: group `n` holds page `n` of every slot.
impl Metadata {
    /// Where group `number` lies on the metadata's device.
    pub(crate) fn group_offset(&self, number: u64) -> u64 {
        self.geometry.bitmap_offset + number * self.full_group_bytes()
    }

    /// Length of group `number` on disk, whole pages; the last may be shorter.
    pub(crate) fn group_bytes(&self, number: u64) -> usize {
        let left = self.geometry.bitmap_bytes.saturating_sub(number * self.full_group_bytes());
        left.min(self.full_group_bytes()) as usize
    }

    /// The bytes of group `number`.
    pub(crate) fn group(&self, number: u64) -> Vec<u8> {
        let pages: Vec<Vec<u8>> = self.bitmaps.iter().map(|b| b.page(number)).collect();
        let mut bytes = Vec::with_capacity(self.full_group_bytes() as usize);
        for word in (0..PAGE_BYTES).step_by(8) {
            for page in &pages {
                bytes.extend_from_slice(&page[word..word + 8]);
            }
        }
        bytes.truncate(self.group_bytes(number));
        bytes
    }

    /// True if the disk lacks a change of group `number`; it counts as written from now on.
    pub(crate) fn take_unwritten_group(&mut self, number: u64) -> bool {
        self.bitmaps.iter_mut().fold(false, |any, bitmap| bitmap.take_unwritten_page(number) | any)
    }

    /// The groups of which the disk lacks a change, in ascending order; they count as written from now on.
    pub(crate) fn take_unwritten_groups(&mut self) -> Vec<u64> {
        let groups = self.bitmaps.first().map_or(0, Bitmap::pages);
        (0..groups).filter(|number| self.take_unwritten_group(*number)).collect()
    }

    /// Reads many groups at a time: of 16 TiB there are 131072. Most have no bit.
    fn read_groups(&mut self, io: &mut dyn MetaIo) -> Result<(), DiskError> {
        let pages = self.bitmaps.first().map_or(0, Bitmap::pages);
        let at_once = (READ_BYTES / self.full_group_bytes()).min(pages).max(1);
        let mut buffer = vec![0; (at_once * self.full_group_bytes()) as usize];
        for first in (0..pages).step_by(at_once as usize) {
            let numbers = first..(first + at_once).min(pages);
            let bytes: usize = numbers.clone().map(|number| self.group_bytes(number)).sum();
            io.read_at(self.group_offset(first), &mut buffer[..bytes])?;
            for (number, group) in numbers.zip(buffer[..bytes].chunks(self.full_group_bytes() as usize)) {
                if group.chunks(PAGE_BYTES).any(|part| part != &NO_BITS[..part.len()]) {
                    self.merge_group(number, group);
                }
            }
        }
        Ok(())
    }

    pub(super) fn write_groups(&mut self, io: &mut dyn MetaIo) -> Result<(), DiskError> {
        for number in self.take_unwritten_groups() {
            io.write_at(self.group_offset(number), &self.group(number))?;
        }
        io.flush()
    }

    fn merge_group(&mut self, number: u64, bytes: &[u8]) {
        let slots = self.bitmaps.len();
        for (slot, bitmap) in self.bitmaps.iter_mut().enumerate() {
            let mut page = vec![0; PAGE_BYTES];
            for (target, source) in
                page.chunks_exact_mut(8).zip(bytes.chunks_exact(8).skip(slot).step_by(slots))
            {
                target.copy_from_slice(source);
            }
            bitmap.merge_page(number, &page);
        }
    }

    fn full_group_bytes(&self) -> u64 {
        (self.bitmaps.len() * PAGE_BYTES) as u64
    }
}
