//! How large the volumes of a resource can be: the first one's disk also holds the metadata of all.

use thiserror::Error;

use super::{Geometry, GeometryError, LoadError, Metadata, Placement};
use crate::layout::{Layout, LayoutError, VolumeSize};

/// The disk of a volume that metadata is to be created for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeDisk {
    /// The volume's number.
    pub number: u16,
    /// Where its own metadata would be. The space for internal metadata stays free on every disk, so that a disk has the
    /// room for data that it has in a resource of its own, or under DRBD.
    pub placement: Placement,
    /// Its size.
    pub backing_bytes: u64,
    /// The volume shall be as large as this.
    pub size_bytes: Option<u64>,
}

/// Why the volumes cannot be so.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// No room for the metadata and any data.
    #[error("volume {0}: {1}")]
    Geometry(u16, GeometryError),
    /// Less room than is wanted.
    #[error("volume {number} shall have {wanted_bytes} bytes ('size'), its disk has room for {room_bytes}")]
    TooSmall {
        /// The volume.
        number: u16,
        /// What the configuration says.
        wanted_bytes: u64,
        /// What there is.
        room_bytes: u64,
    },
    /// Too many, or too large together.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Bytes of data that the disk of a volume other than the first has room for.
pub fn room_bytes(placement: Placement, backing_bytes: u64, max_peers: u8) -> Result<u64, GeometryError> {
    // Where the metadata is elsewhere, its disk has room enough.
    let geometry = Geometry::new(placement, backing_bytes, u64::MAX, max_peers)?;
    Ok(geometry.data_bytes)
}

/// The layout of these volumes, by ascending number, each as large as its disk lets it be, or as it shall be. `meta_bytes` is
/// the size of the disk that holds the metadata: the first one's, if that is internal.
pub fn plan(meta_bytes: u64, max_peers: u8, disks: &[VolumeDisk]) -> Result<Layout, PlanError> {
    let [first, others @ ..] = disks else { return Ok(Layout::default()) };
    if others.is_empty() {
        return Ok(Layout::default());
    }
    let mut volumes = Vec::with_capacity(disks.len());
    for disk in others {
        let room = room_bytes(disk.placement, disk.backing_bytes, max_peers);
        volumes.push(sized(disk, room.map_err(|error| PlanError::Geometry(disk.number, error))?)?);
    }
    // The first one's size is not known yet, and does not count.
    let unknown = VolumeSize { number: first.number, bytes: first.backing_bytes.next_multiple_of(4096) };
    let others_bytes = Layout::new([vec![unknown], volumes.clone()].concat())?.bytes_behind_first();
    let geometry =
        Geometry::for_new(first.placement, first.backing_bytes, meta_bytes, max_peers, others_bytes);
    let room = geometry.map_err(|error| PlanError::Geometry(first.number, error))?.data_bytes;
    volumes.insert(0, sized(first, room)?);
    Ok(Layout::new(volumes)?)
}

/// Compares what the metadata was made for with the volumes of the configuration and their disks.
pub fn check_volumes(metadata: &mut Metadata, disks: &[VolumeDisk]) -> Result<(), LoadError> {
    let superblock = &metadata.superblock;
    let layout = &superblock.layout;
    if let [only] = disks
        && layout.is_single()
    {
        return limit_size(metadata, only.size_bytes);
    }
    let numbers: Vec<u16> = layout.volumes().iter().map(|volume| volume.number).collect();
    if !numbers.iter().eq(disks.iter().map(|disk| &disk.number)) {
        let made_for = match numbers.as_slice() {
            [] => "a single volume".to_owned(),
            many => format!("volumes {}", many.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
        };
        return Err(LoadError::Mismatch(format!(
            "the meta-data was created for {made_for}, the configuration has {}: correct it; or, if the peer's data is good, \
             run 'tandemadm create-md --force' and let it resync in full",
            disks.len()
        )));
    }
    for (disk, volume) in disks.iter().zip(layout.volumes()) {
        check_size(disk, volume)?;
    }
    let first_room = metadata.rooms.first().copied().unwrap_or(u64::MAX);
    let mut rooms = Vec::with_capacity(disks.len());
    for (index, (disk, volume)) in disks.iter().zip(layout.volumes()).enumerate() {
        let room_bytes = match index {
            0 => first_room,
            _ => room_bytes(disk.placement, disk.backing_bytes, superblock.peers.len() as u8)?,
        };
        if room_bytes < volume.bytes {
            return Err(LoadError::VolumeShrunk { volume: *volume, room_bytes });
        }
        rooms.push(room_bytes.min(disk.size_bytes.unwrap_or(u64::MAX)));
    }
    metadata.rooms = rooms;
    Ok(())
}

fn check_size(disk: &VolumeDisk, volume: &VolumeSize) -> Result<(), LoadError> {
    match disk.size_bytes {
        Some(bytes) if bytes < volume.bytes => Err(LoadError::Mismatch(format!(
            "volume {} has {} bytes, the configuration says {bytes} ('size'), and no volume shrinks: correct it; or, if the \
             peer's data is good, run 'tandemadm create-md --force' on both nodes",
            volume.number, volume.bytes
        ))),
        _ => Ok(()),
    }
}

/// Of a single volume no more than this is used.
fn limit_size(metadata: &mut Metadata, limit: Option<u64>) -> Result<(), LoadError> {
    let agreed_bytes = metadata.superblock.agreed_bytes;
    match limit {
        Some(limit) if limit < agreed_bytes => Err(LoadError::Shrunk { room_bytes: limit, agreed_bytes }),
        Some(limit) if limit > metadata.geometry.data_bytes => Err(LoadError::Mismatch(format!(
            "the configuration says {limit} bytes ('size'), the disk has room for {}",
            metadata.geometry.data_bytes
        ))),
        Some(limit) if limit < metadata.geometry.data_bytes => {
            metadata.geometry.data_bytes = limit;
            if agreed_bytes == 0 {
                // No peer was met yet; one may have been promoted, and have written.
                metadata.bitmaps.iter_mut().for_each(|bitmap| *bitmap = bitmap.cut_to(limit));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn sized(disk: &VolumeDisk, room_bytes: u64) -> Result<VolumeSize, PlanError> {
    let number = disk.number;
    match disk.size_bytes {
        Some(wanted_bytes) if wanted_bytes > room_bytes => {
            Err(PlanError::TooSmall { number, wanted_bytes, room_bytes })
        }
        wanted => Ok(VolumeSize { number, bytes: wanted.unwrap_or(room_bytes) }),
    }
}
