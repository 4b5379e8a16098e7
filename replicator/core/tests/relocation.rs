//! Metadata of a device that has grown: it is found where it was and moved to the end, and no power loss on the way loses it.

#![allow(clippy::unwrap_used)]

use tandem_core::io::DiskError;
use tandem_core::metadata::{
    self, ActivityLogState, LastPlace, LoadError, MetaIo, Metadata, Placement, Superblock, bring_to_end,
    bytes_until_metadata_ends, encode_transaction,
};
use tandem_core::units::{BLOCK_BYTES, ByteRange, NodeId};

const OLD: u64 = 8 << 20;
const NEW: u64 = 9 << 20;
const NODE: NodeId = NodeId(0);
const DEVICE_ID: u64 = 77;
const SECTOR: usize = 512;

fn last(device_bytes: u64) -> LastPlace {
    LastPlace { device_id: DEVICE_ID, ends: vec![OLD / 2, device_bytes] }
}

/// A disk, and what was written to it, sector by sector; a flush ends a group.
struct RecordingDisk {
    bytes: Vec<u8>,
    writes: Vec<Vec<(usize, Vec<u8>)>>,
}

impl MetaIo for RecordingDisk {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        buffer.copy_from_slice(&self.bytes[offset as usize..offset as usize + buffer.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.bytes[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        let sectors = data.chunks(SECTOR).enumerate();
        let sectors = sectors.map(|(i, bytes)| (offset as usize + i * SECTOR, bytes.to_vec()));
        self.writes.last_mut().unwrap().extend(sectors);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        self.writes.push(Vec::new());
        Ok(())
    }
}

impl RecordingDisk {
    fn new(bytes: Vec<u8>) -> Self {
        RecordingDisk { bytes, writes: vec![Vec::new()] }
    }

    /// What a later look finds: the superblock, and what may differ.
    fn found(&mut self) -> (Superblock, u64, Vec<ByteRange>) {
        let used = bring_to_end(self, Some(&last(OLD)), NODE).unwrap();
        self.bytes.truncate(used as usize);
        let metadata = metadata::load(self, Placement::Internal, used, NODE).unwrap();
        let marked = metadata.bitmaps[0].ranges(0, 1000, metadata.volume_bytes()).0;
        let hot = metadata.hot_ranges(metadata::Carelessness::default());
        (metadata.superblock, used, [marked, hot].concat())
    }
}

/// A disk in use: the size was agreed, bits are set, and the activity log counts.
fn used_disk() -> RecordingDisk {
    let mut disk = RecordingDisk::new(vec![0xee; OLD as usize]);
    let geometry = metadata::create(&mut disk, Placement::Internal, OLD, 1, DEVICE_ID).unwrap();
    let Metadata { mut superblock, .. } = metadata::load(&mut disk, Placement::Internal, OLD, NODE).unwrap();
    superblock.agreed_bytes = 7 << 20;
    superblock.activity_log = ActivityLogState::Open(1);
    superblock.node = Some(NODE);
    for offset in geometry.superblock_offsets {
        superblock.sequence += 1;
        disk.write_at(offset, &superblock.encode()).unwrap();
    }
    disk.write_at(geometry.bitmap_offset, &[[0b101; 1].as_slice(), &[0; 4095]].concat()).unwrap();
    let log = encode_transaction(1, 4 << 20, &[1, (1 << 28) - 1], &[0]);
    disk.write_at(geometry.activity_log_offset + 4096, &log).unwrap();
    disk.writes = vec![Vec::new()];
    disk
}

fn grow(disk: &mut RecordingDisk, bytes: u64) {
    disk.bytes.resize(bytes as usize, 0xdd);
}

fn marks() -> Vec<ByteRange> {
    vec![
        ByteRange::new(0, BLOCK_BYTES),
        ByteRange::new(2 * BLOCK_BYTES, BLOCK_BYTES),
        ByteRange::new(4 << 20, 4 << 20),
    ]
}

#[test]
fn a_device_that_has_grown_keeps_its_metadata() {
    let mut disk = used_disk();
    grow(&mut disk, NEW);
    assert_eq!(metadata::load(&mut disk, Placement::Internal, NEW, NODE).unwrap_err(), LoadError::NotFound);
    assert_eq!(bytes_until_metadata_ends(&mut disk, Some(&last(OLD))).unwrap(), OLD);
    let (superblock, used, marked) = disk.found();
    assert_eq!((superblock.agreed_bytes, superblock.backing_bytes, used), (7 << 20, NEW, NEW));
    assert_eq!(marked, marks());
    assert_eq!(bytes_until_metadata_ends(&mut disk, Some(&last(OLD))).unwrap(), NEW);
    // If it should shrink again, nobody takes for metadata what was left behind.
    disk.bytes.truncate(OLD as usize);
    assert_eq!(metadata::load(&mut disk, Placement::Internal, OLD, NODE).unwrap_err(), LoadError::NotFound);
}

/// Whatever of a step has reached the disk, in whatever order: the metadata is found, with every bit.
#[test]
fn no_power_loss_on_the_way_loses_it() {
    let mut disk = used_disk();
    grow(&mut disk, NEW);
    let before = disk.bytes.clone();
    bring_to_end(&mut disk, Some(&last(OLD)), NODE).unwrap();
    let steps = std::mem::take(&mut disk.writes);
    assert!(steps.iter().filter(|step| !step.is_empty()).count() >= 4);
    let mut durable = before;
    for step in steps {
        let patterns: Vec<Box<dyn Fn(usize) -> bool>> = (0..=step.len())
            .map(|n| Box::new(move |i| i < n) as Box<dyn Fn(usize) -> bool>)
            .chain((0..step.len()).map(|n| Box::new(move |i| i != n) as Box<dyn Fn(usize) -> bool>))
            .chain((0..step.len()).map(|n| Box::new(move |i| i >= n) as Box<dyn Fn(usize) -> bool>))
            .collect();
        for lands in patterns {
            let mut bytes = durable.clone();
            for (_, (at, data)) in step.iter().enumerate().filter(|(i, _)| lands(*i)) {
                bytes[*at..*at + data.len()].copy_from_slice(data);
            }
            let (superblock, used, marked) = RecordingDisk::new(bytes).found();
            assert_eq!((superblock.device_id, used), (DEVICE_ID, NEW));
            assert_eq!(marked, marks());
        }
        for (at, data) in step {
            durable[at..at + data.len()].copy_from_slice(&data);
        }
    }
}

/// The daemon ends in the middle of a step and starts again, and then the power is lost: what it read from the cache of the
/// disk need not be there any more.
#[test]
fn what_is_only_in_a_cache_is_made_durable_before_the_old_metadata_goes() {
    let mut disk = used_disk();
    grow(&mut disk, NEW);
    let mut durable = disk.bytes.clone();
    bring_to_end(&mut disk, Some(&last(OLD)), NODE).unwrap();
    let land = |bytes: &mut [u8], step: &[(usize, Vec<u8>)]| {
        step.iter().for_each(|(at, data)| bytes[*at..*at + data.len()].copy_from_slice(data));
    };
    for cached in disk.writes.into_iter().filter(|step| !step.is_empty()) {
        let mut restarted = RecordingDisk::new(durable.clone());
        land(&mut restarted.bytes, &cached);
        bring_to_end(&mut restarted, Some(&last(OLD)), NODE).unwrap();
        let mut bytes = durable.clone();
        land(&mut bytes, &restarted.writes[0]);
        let (superblock, used, marked) = RecordingDisk::new(bytes).found();
        assert_eq!((superblock.device_id, used), (DEVICE_ID, NEW));
        assert_eq!(marked, marks());
        land(&mut durable, &cached);
    }
}

/// The new place would lie over the old one: it stays, and is found again.
#[test]
fn metadata_stays_where_the_device_has_grown_by_less_than_it_takes() {
    let mut disk = used_disk();
    grow(&mut disk, OLD + 8 * BLOCK_BYTES);
    let before = disk.bytes.clone();
    let (superblock, used, marked) = disk.found();
    assert_eq!((superblock.device_id, used), (DEVICE_ID, OLD));
    assert_eq!(marked, marks());
    assert_eq!(disk.bytes, before[..OLD as usize]);
    let mut disk = used_disk();
    grow(&mut disk, OLD + 10 * BLOCK_BYTES);
    assert_eq!(disk.found().1, OLD + 10 * BLOCK_BYTES);
}

/// What lies by chance at the new end, or at the place that was remembered, is not taken for this disk's metadata.
#[test]
fn another_disks_metadata_is_not_taken() {
    let mut disk = used_disk();
    grow(&mut disk, NEW);
    metadata::create(&mut disk, Placement::Internal, NEW, 1, 99).unwrap();
    assert_eq!(disk.found().0.device_id, DEVICE_ID, "the end bears another's");
    let mut disk = used_disk();
    grow(&mut disk, NEW);
    let other = LastPlace { device_id: 99, ..last(OLD) };
    assert_eq!(bring_to_end(&mut disk, Some(&other), NODE).unwrap(), NEW);
    assert_eq!(metadata::probe(&mut disk, Placement::Internal), Err(LoadError::NotFound));
    assert_eq!(bring_to_end(&mut disk, None, NODE).unwrap(), NEW);
}
