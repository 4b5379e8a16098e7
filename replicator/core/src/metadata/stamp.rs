//! What says, on the disk of every volume but the first, to which metadata it belongs: that lies with the first one's disk,
//! and would take a replaced disk, or another volume's, for the one whose blocks it knows.

use super::store::superblock_offsets;
use super::{Geometry, LastPlace, LoadError, MetaIo, Placement};
use crate::io::DiskError;

const STAMP_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"TNDMvol1";

/// Writes it, durably, where the second copy of the superblock would be. The disk has internal metadata's room.
pub fn stamp(io: &mut dyn MetaIo, device_id: u64, volume: u16) -> Result<(), DiskError> {
    if let Some([_, offset]) = superblock_offsets(io, Placement::Internal) {
        io.write_at(offset, &encode(device_id, volume))?;
    }
    io.flush()
}

/// It has one, whosever it is.
pub fn is_stamped(io: &mut dyn MetaIo) -> Result<bool, DiskError> {
    Ok(read(io)?.starts_with(MAGIC))
}

/// The stamp moves from where it was when the disk had `old_bytes` to its end: it is there before it is taken away here, where
/// data will be.
pub fn move_stamp(io: &mut dyn MetaIo, old_bytes: u64, device_id: u64, volume: u16) -> Result<(), DiskError> {
    stamp(io, device_id, volume)?;
    let old = Geometry::internal_superblocks(old_bytes).map(|[_, offset]| offset);
    let new = superblock_offsets(io, Placement::Internal).map(|[_, offset]| offset);
    if let Some(old) = old.filter(|_| old != new) {
        io.write_at(old, &[0; STAMP_BYTES])?;
    }
    io.flush()
}

/// Where a disk ended that has grown since, if this stamp lies there: one of the places that were remembered.
pub fn stamped_before_end(
    io: &mut dyn MetaIo,
    last: Option<&LastPlace>,
    device_id: u64,
    volume: u16,
) -> Result<Option<u64>, DiskError> {
    let disk_bytes = io.size_bytes();
    let mut found = None;
    for end in last.iter().flat_map(|last| &last.ends).copied().filter(|end| *end < disk_bytes) {
        let mut bytes = [0; STAMP_BYTES];
        if let Some([_, offset]) = Geometry::internal_superblocks(end) {
            io.read_at(offset, &mut bytes)?;
        }
        if bytes == encode(device_id, volume) {
            found = Some(end);
        }
    }
    Ok(found)
}

/// How many bytes of a disk count that is only looked at: those before the end that it had when it was stamped.
pub fn bytes_until_stamp_ends(
    io: &mut dyn MetaIo,
    last: Option<&LastPlace>,
    device_id: u64,
    volume: u16,
) -> Result<u64, DiskError> {
    match stamped_before_end(io, last, device_id, volume)? {
        Some(end) if read(io)? != encode(device_id, volume) => Ok(end),
        _ => Ok(io.size_bytes()),
    }
}

/// Refuses a disk that has none, or another's.
pub fn check_stamp(io: &mut dyn MetaIo, device_id: u64, volume: u16) -> Result<(), LoadError> {
    if read(io)? == encode(device_id, volume) {
        return Ok(());
    }
    Err(LoadError::Mismatch(format!(
        "the disk of volume {volume} is not the one that the meta-data was created for: correct its 'disk'; or, if it is new and \
         the peer's data is good, run 'tandemadm create-md --force' and let all volumes resync in full"
    )))
}

fn read(io: &mut dyn MetaIo) -> Result<[u8; STAMP_BYTES], DiskError> {
    let mut found = [0; STAMP_BYTES];
    if let Some([_, offset]) = superblock_offsets(io, Placement::Internal) {
        io.read_at(offset, &mut found)?;
    }
    Ok(found)
}

/// Byte order is little endian:
///
/// | bytes | content |
/// |---|---|
/// | 0..8 | "TNDMvol1" |
/// | 8..16 | the device id of the first volume's superblock |
/// | 16..18 | the volume's number |
/// | 18..4092 | zero |
/// | 4092..4096 | crc32 of the bytes before |
fn encode(device_id: u64, volume: u16) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&device_id.to_le_bytes());
    bytes[16..18].copy_from_slice(&volume.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..STAMP_BYTES - 4]);
    bytes[STAMP_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}
