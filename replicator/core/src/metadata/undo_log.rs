//! The undo log of a resync: what its target held before, so that a source that dies in the middle leaves a usable copy.
//!
//! A file of its own. A header in the first 4096 bytes:
//!
//! | bytes of the header | field |
//! |---|---|
//! | 0..8 | magic `TANDEMUN` |
//! | 8..12 | version, 1 |
//! | 12..16 | crc32 of the 4096 bytes with this field zero |
//! | 16..24 | identifier of the log, random; the one that the superblock names counts |
//! | 24..32 | device identifier of the disk |
//! | 32..40 | current generation of the image |
//! | 40..48 | size of the volume in bytes |
//! | 48..50 | length of the resource's name |
//! | 50..306 | the resource's name |
//! | 306..4096 | zero |
//!
//! Behind it the records, each 4096 bytes and the old content, filled up with zeroes to a multiple of 4096:
//!
//! | bytes of a record | field |
//! |---|---|
//! | 0..8 | magic `TANDEMUR` |
//! | 8..12 | crc32 of the record with this field zero, content included |
//! | 12..16 | zero |
//! | 16..24 | identifier of the log |
//! | 24..32 | number of the record, from 0 |
//! | 32..40 | offset in the volume, in bytes |
//! | 40..48 | length in bytes |
//! | 48..4096 | zero |
//!
//! No block is in the log twice. The log ends before the first record that is not whole: nothing that a record behind it, or
//! it, stands for was overwritten.

use bytes::Bytes;

use super::{LoadError, MetaIo, Superblock};
use crate::bitmap::Bitmap;
use crate::units::{BLOCK_BYTES, ByteRange};

/// Longest piece of old content in a record.
pub const UNDO_RECORD_BYTES: u64 = 1 << 20;

const HEADER_MAGIC: [u8; 8] = *b"TANDEMUN";
const RECORD_MAGIC: [u8; 8] = *b"TANDEMUR";
const VERSION: u32 = 1;
const PAGE: usize = 4096;
const MAX_NAME: usize = 256;

/// What is known of the log of an attached disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UndoLog {
    /// Which log the file holds; 0: none that counts.
    pub id: u64,
    /// Where the next record goes.
    pub end: u64,
    /// Its number.
    pub next: u64,
    /// Blocks that no record holds.
    pub unsaved: Bitmap,
}

impl UndoLog {
    /// A log that has just begun.
    pub fn new(id: u64, volume_bytes: u64) -> UndoLog {
        let mut unsaved = Bitmap::new(volume_bytes);
        unsaved.set_all();
        UndoLog { id, end: PAGE as u64, next: 0, unsaved }
    }

    /// The volume has grown: of what is new nothing is saved.
    pub(crate) fn grow_to(&mut self, volume_bytes: u64) {
        let old_bytes = self.unsaved.blocks() * BLOCK_BYTES;
        self.unsaved.grow_to(volume_bytes);
        self.unsaved.set_range(ByteRange::new(old_bytes, volume_bytes.saturating_sub(old_bytes)));
    }

    /// The next record, and where it goes.
    pub(crate) fn append(&mut self, offset: u64, content: &[u8]) -> (u64, Bytes) {
        let mut record = vec![0; PAGE + content.len().next_multiple_of(PAGE)];
        record[0..8].copy_from_slice(&RECORD_MAGIC);
        for (at, n) in [(16, self.id), (24, self.next), (32, offset), (40, content.len() as u64)] {
            record[at..at + 8].copy_from_slice(&n.to_le_bytes());
        }
        record[PAGE..PAGE + content.len()].copy_from_slice(content);
        let crc = crc32fast::hash(&record);
        record[8..12].copy_from_slice(&crc.to_le_bytes());
        let at = self.end;
        self.end += record.len() as u64;
        self.next += 1;
        (at, record.into())
    }
}

/// The header of a log that begins.
pub(crate) fn encode_header(id: u64, superblock: &Superblock, volume_bytes: u64, resource: &str) -> Bytes {
    let mut b = vec![0; PAGE];
    b[0..8].copy_from_slice(&HEADER_MAGIC);
    b[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let fields =
        [(16, id), (24, superblock.device_id), (32, superblock.generations.current), (40, volume_bytes)];
    for (at, n) in fields {
        b[at..at + 8].copy_from_slice(&n.to_le_bytes());
    }
    let name = &resource.as_bytes()[..resource.len().min(MAX_NAME)];
    b[48..50].copy_from_slice(&(name.len() as u16).to_le_bytes());
    b[50..50 + name.len()].copy_from_slice(name);
    let crc = crc32fast::hash(&b);
    b[12..16].copy_from_slice(&crc.to_le_bytes());
    b.into()
}

/// Reads the log that the superblock names, giving each record to `show`. An error if the file holds no such log.
pub fn read_undo_log(
    io: &mut dyn MetaIo,
    superblock: &Superblock,
    volume_bytes: u64,
    mut show: impl FnMut(ByteRange, &[u8]) -> Result<(), LoadError>,
) -> Result<UndoLog, LoadError> {
    let id = superblock.undo_id;
    let mut header = [0; PAGE];
    if io.size_bytes() >= PAGE as u64 {
        io.read_at(0, &mut header)?;
    }
    let crc = u32_at(&header, 12);
    let said = [16, 24, 32, 40].map(|at| u64_at(&header, at));
    header[12..16].fill(0);
    let expected = [id, superblock.device_id, superblock.generations.current];
    let whole =
        header[0..8] == HEADER_MAGIC && u32_at(&header, 8) == VERSION && crc32fast::hash(&header) == crc;
    // The volume may have grown since.
    if id == 0 || !whole || said[..3] != expected || said[3] > volume_bytes {
        return Err(LoadError::Mismatch(
            "the file holds no undo log of this disk's interrupted resync".into(),
        ));
    }
    let mut log = UndoLog::new(id, volume_bytes);
    while let Some((range, record)) = next_record(io, &log, volume_bytes)? {
        show(range, &record[PAGE..PAGE + range.length as usize])?;
        log.unsaved.clear_range(range, volume_bytes);
        log.end += record.len() as u64;
        log.next += 1;
    }
    Ok(log)
}

/// The record at the log's end, if it is whole.
fn next_record(
    io: &mut dyn MetaIo,
    log: &UndoLog,
    volume_bytes: u64,
) -> Result<Option<(ByteRange, Vec<u8>)>, LoadError> {
    if io.size_bytes() < log.end + PAGE as u64 {
        return Ok(None);
    }
    let mut record = vec![0; PAGE];
    io.read_at(log.end, &mut record)?;
    let (offset, length) = (u64_at(&record, 32), u64_at(&record, 40));
    let fits = offset.checked_add(length).is_some_and(|end| end <= volume_bytes);
    let sound = (1..=UNDO_RECORD_BYTES).contains(&length) && offset.is_multiple_of(BLOCK_BYTES) && fits;
    let named =
        record[0..8] == RECORD_MAGIC && [u64_at(&record, 16), u64_at(&record, 24)] == [log.id, log.next];
    let bytes = PAGE as u64 + length.min(UNDO_RECORD_BYTES).next_multiple_of(PAGE as u64);
    if !sound || !named || io.size_bytes() < log.end + bytes {
        return Ok(None);
    }
    record.resize(bytes as usize, 0);
    io.read_at(log.end + PAGE as u64, &mut record[PAGE..])?;
    let crc = u32_at(&record, 8);
    record[8..12].fill(0);
    Ok((crc32fast::hash(&record) == crc).then_some((ByteRange::new(offset, length), record)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut n = [0; 4];
    n.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(n)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(n)
}
