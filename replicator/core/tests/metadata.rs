//! Metadata on a disk in memory: what a torn write, rot or a wrong device must come to.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tandem_core::io::DiskError;
use tandem_core::metadata::{
    self, Geometry, LoadError, MetaIo, Placement, Superblock, SuperblockError, VolumeDisk,
};
use tandem_core::units::NodeId;

struct MemoryDisk(Vec<u8>);

impl MetaIo for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let end = offset as usize + buffer.len();
        buffer.copy_from_slice(self.0.get(offset as usize..end).ok_or(DiskError("beyond the end".into()))?);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let end = offset as usize + data.len();
        self.0.get_mut(offset as usize..end).ok_or(DiskError("beyond the end".into()))?.copy_from_slice(data);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

const SIZE: u64 = 8 << 20;

fn created(placement: Placement) -> (MemoryDisk, Geometry) {
    let mut disk = MemoryDisk(vec![0xee; SIZE as usize]);
    let geometry = metadata::create(&mut disk, placement, SIZE, 1, 77).unwrap();
    (disk, geometry)
}

/// The sizes that drbdmeta prints for 256 MiB.
#[test]
fn internal_metadata_takes_the_space_of_drbd() {
    let size = 256 << 20;
    let one = Geometry::new(Placement::Internal, size, size, 1).unwrap();
    assert_eq!(one.bitmap_offset, 268_390_400);
    assert_eq!(one.activity_log_offset, 268_398_592);
    assert_eq!(one.superblock_offsets[0], 268_431_360);
    assert_eq!(size - one.data_bytes, 88 * 512);
    let three = Geometry::new(Placement::Internal, size, size, 3).unwrap();
    assert_eq!(size - three.data_bytes, 120 * 512);
    let external = Geometry::new(Placement::External, size, 1 << 20, 1).unwrap();
    assert_eq!((external.bitmap_offset, external.data_bytes), (36_864, size));
}

#[test]
fn a_fresh_disk_loads_and_an_empty_one_says_what_to_do() {
    for placement in [Placement::Internal, Placement::External] {
        let (mut disk, _) = created(placement);
        let loaded = metadata::load(&mut disk, placement, SIZE, NodeId(0)).unwrap();
        assert!(loaded.superblock.generations.is_fresh());
        assert_eq!(loaded.bitmaps[0].set_count(), 0);
        metadata::wipe(&mut disk, placement).unwrap();
        let error = metadata::load(&mut disk, placement, SIZE, NodeId(0)).unwrap_err();
        assert_eq!(error, LoadError::NotFound);
        assert!(error.to_string().contains("create-md"));
    }
}

#[test]
fn one_damaged_copy_is_survived_and_two_are_refused() {
    let (mut disk, geometry) = created(Placement::Internal);
    for (damaged, offset) in geometry.superblock_offsets.into_iter().enumerate() {
        disk.0[offset as usize + 100] ^= 1;
        let result = metadata::load(&mut disk, Placement::Internal, SIZE, NodeId(0));
        match damaged {
            0 => assert!(result.is_ok()),
            _ => {
                let error = result.unwrap_err();
                assert!(matches!(
                    &error,
                    LoadError::Damaged { errors: [SuperblockError::Checksum, SuperblockError::Checksum], .. }
                ));
                assert!(error.to_string().contains("damaged"), "{error}");
            }
        }
    }
}

#[test]
fn a_disk_of_another_node_or_that_shrank_is_refused() {
    let (mut disk, geometry) = created(Placement::External);
    let mut superblock = metadata::probe(&mut disk, Placement::External).unwrap();
    superblock.node = Some(NodeId(1));
    superblock.agreed_bytes = SIZE;
    disk.write_at(geometry.superblock_offsets[0], &superblock.encode()).unwrap();
    superblock.sequence += 1;
    disk.write_at(geometry.superblock_offsets[1], &superblock.encode()).unwrap();
    let error = metadata::load(&mut disk, Placement::External, SIZE, NodeId(0)).unwrap_err();
    assert!(error.to_string().contains("belongs to node 1, this is node 0"), "{error}");
    let error = metadata::load(&mut disk, Placement::External, SIZE / 2, NodeId(1)).unwrap_err();
    assert!(
        matches!(error, LoadError::Shrunk { room_bytes, agreed_bytes: SIZE } if room_bytes == SIZE / 2),
        "{error}"
    );
}

/// `resize` is refused then, and the next `up` is not.
#[test]
fn a_disk_that_outgrew_its_meta_disk_is_used_as_far_as_before() {
    const PAGE_OF_BITS: u64 = 128 << 20;
    let one_page = Geometry::new(Placement::External, PAGE_OF_BITS, 1 << 20, 1).unwrap();
    let meta_bytes = one_page.bitmap_offset + one_page.bitmap_bytes;
    let external = |number, bytes| volume(number, Placement::External, bytes);
    let two = vec![external(0, PAGE_OF_BITS / 2), external(1, PAGE_OF_BITS / 4)];
    for disks in [vec![external(0, PAGE_OF_BITS)], two] {
        let first_bytes = disks[0].backing_bytes;
        let mut disk = MemoryDisk(vec![0xee; meta_bytes as usize]);
        let layout = metadata::plan(meta_bytes, 1, &disks).unwrap();
        metadata::create_for_volumes(&mut disk, Placement::External, first_bytes, 1, 77, layout).unwrap();
        let mut load = |bytes| metadata::load(&mut disk, Placement::External, bytes, NodeId(0));
        let before = load(first_bytes).unwrap();
        assert_eq!(load(2 * PAGE_OF_BITS).unwrap(), before);
    }
    // It had grown once before, with the volume.
    let mut disk = MemoryDisk(vec![0xee; meta_bytes as usize]);
    let made = metadata::create(&mut disk, Placement::External, SIZE, 1, 77).unwrap();
    let mut superblock = metadata::probe(&mut disk, Placement::External).unwrap();
    superblock.agreed_bytes = PAGE_OF_BITS;
    made.superblock_offsets.iter().for_each(|offset| disk.write_at(*offset, &superblock.encode()).unwrap());
    let loaded = metadata::load(&mut disk, Placement::External, 2 * PAGE_OF_BITS, NodeId(0)).unwrap();
    assert_eq!((loaded.geometry.data_bytes, loaded.volume_bytes()), (PAGE_OF_BITS, PAGE_OF_BITS));
}

#[test]
fn a_device_without_room_is_refused_with_the_numbers() {
    let error = Geometry::new(Placement::Internal, 40_000, 40_000, 1).unwrap_err();
    assert!(error.to_string().contains("40000 bytes"), "{error}");
    assert!(Geometry::new(Placement::Internal, SIZE, SIZE, 0).is_err());
    assert!(Geometry::new(Placement::Internal, SIZE, SIZE, 32).is_err());
}

fn volume(number: u16, placement: Placement, backing_bytes: u64) -> VolumeDisk {
    VolumeDisk { number, placement, backing_bytes, size_bytes: None }
}

#[test]
fn several_volumes_share_the_metadata_of_the_first() {
    for (placement, meta_bytes) in [(Placement::Internal, SIZE), (Placement::External, 1 << 20)] {
        let disks = [volume(0, placement, SIZE), volume(3, Placement::Internal, 5 << 20)];
        let layout = metadata::plan(meta_bytes, 1, &disks).unwrap();
        let mut disk = MemoryDisk(vec![0xee; meta_bytes as usize]);
        let made = metadata::create_for_volumes(&mut disk, placement, SIZE, 1, 77, layout.clone()).unwrap();
        assert_eq!(made.data_bytes, layout.volumes()[0].bytes);
        // 5 MiB less what DRBD's metadata takes.
        assert_eq!(layout.volumes()[1].bytes, (5 << 20) - 9 * 4096 - 4096);
        let mut loaded = metadata::load(&mut disk, placement, SIZE, NodeId(0)).unwrap();
        assert_eq!((&loaded.superblock.layout, loaded.volume_bytes()), (&layout, layout.space_bytes()));
        assert_eq!(loaded.bitmaps[0].blocks(), layout.space_bytes().div_ceil(4096));
        assert!(loaded.geometry.bitmap_bytes * 8 >= loaded.bitmaps[0].blocks());
        metadata::check_volumes(&mut loaded, &disks).unwrap();

        let mut refused =
            |disks: &[VolumeDisk]| metadata::check_volumes(&mut loaded, disks).unwrap_err().to_string();
        assert!(refused(&disks[..1]).contains("created for volumes 0, 3, the configuration has 1"));
        assert!(refused(&[disks[0], volume(2, placement, SIZE)]).contains("created for volumes 0, 3"));
        let smaller = volume(3, Placement::Internal, 4 << 20);
        assert!(refused(&[disks[0], smaller]).contains("the disk of volume 3 has room for"));
        let resized = VolumeDisk { size_bytes: Some(4096), ..disks[1] };
        assert!(refused(&[disks[0], resized]).contains("('size')"));
        let error = metadata::load(&mut disk, placement, SIZE / 2, NodeId(0)).unwrap_err();
        assert!(matches!(error, LoadError::Shrunk { .. } | LoadError::NotFound), "{error}");
    }
}

#[test]
fn a_size_that_is_wanted_is_what_a_volume_gets_or_an_error() {
    let wants = |number, size_bytes| VolumeDisk {
        size_bytes: Some(size_bytes),
        ..volume(number, Placement::Internal, SIZE)
    };
    let layout = metadata::plan(SIZE, 1, &[wants(0, 4 << 20), wants(1, 1 << 20)]).unwrap();
    assert_eq!(layout.volumes().iter().map(|v| v.bytes).collect::<Vec<_>>(), [4 << 20, 1 << 20]);
    let error = metadata::plan(SIZE, 1, &[wants(0, 4 << 20), wants(1, SIZE)]).unwrap_err().to_string();
    assert!(
        error.starts_with("volume 1 shall have 8388608 bytes ('size'), its disk has room for"),
        "{error}"
    );
    assert!(metadata::plan(SIZE, 1, &[wants(0, 4 << 20)]).unwrap().is_single());

    let (mut disk, _) = created(Placement::Internal);
    let mut single = metadata::load(&mut disk, Placement::Internal, SIZE, NodeId(0)).unwrap();
    metadata::check_volumes(&mut single, &[wants(0, 1 << 20)]).unwrap();
    assert_eq!((single.volume_bytes(), single.bitmaps[0].blocks()), (1 << 20, 256));
    single.superblock.agreed_bytes = 2 << 20;
    assert!(metadata::check_volumes(&mut single, &[wants(0, 1 << 20)]).is_err(), "shrunk");
}

#[test]
fn the_document_has_the_tables_as_the_code_has_them() {
    let document = include_str!("../../../docs/on-disk.md");
    let code = [include_str!("../src/metadata/superblock.rs"), include_str!("../src/metadata/log_ring.rs")];
    for row in code.iter().flat_map(|code| code.lines()).filter_map(|line| line.strip_prefix("//! |")) {
        assert!(document.contains(row), "docs/on-disk.md lacks: {row}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_superblock_panic(bytes in prop::collection::vec(any::<u8>(), 4096), flip in 0usize..4096 * 8) {
        let mut garbage = [0; 4096];
        garbage.copy_from_slice(&bytes);
        prop_assert_eq!(Superblock::decode(&garbage), Err(SuperblockError::Absent));
        let mut good = [0; 4096];
        good.copy_from_slice(&Superblock::fresh(1, 2, Placement::Internal, 3).encode());
        good[flip / 8] ^= 1 << (flip % 8);
        prop_assert!(Superblock::decode(&good).is_err());
    }
}

/// A disk that fails after some writes.
struct Failing<'a> {
    disk: &'a mut MemoryDisk,
    writes_left: usize,
}

impl MetaIo for Failing<'_> {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(DiskError("power failed".into()))?;
        self.disk.write_at(offset, data)
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[test]
fn a_restored_image_is_there_whole_or_not_at_all() {
    for placement in [Placement::Internal, Placement::External] {
        let (mut source, _) = created(placement);
        metadata::invalidate(&mut source, placement, SIZE, NodeId(0)).unwrap();
        let image = metadata::load(&mut source, placement, SIZE, NodeId(0)).unwrap();
        for writes_left in 0.. {
            let (mut disk, _) = created(placement);
            let mut failing = Failing { disk: &mut disk, writes_left };
            let (superblock, bitmaps) = (image.superblock.clone(), image.bitmaps.clone());
            let bytes = image.volume_bytes();
            let done =
                metadata::restore(&mut failing, &[volume(0, placement, SIZE)], bytes, superblock, bitmaps);
            match metadata::load(&mut disk, placement, SIZE, NodeId(0)) {
                // One copy of the old one is wiped, and nothing else is changed.
                Ok(found) if found.superblock.sequence == 0 => assert!(writes_left <= 1),
                Ok(found) => assert_eq!(
                    (found.superblock, found.bitmaps),
                    (image.superblock.clone(), image.bitmaps.clone())
                ),
                Err(error) => assert_eq!(error, LoadError::NotFound),
            }
            if done.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn an_image_of_another_disk_is_refused() {
    let (mut disk, geometry) = created(Placement::Internal);
    let superblock = || Superblock::fresh(1, SIZE, Placement::Internal, 1);
    let too_much = geometry.data_bytes + 4096;
    let disks = [volume(0, Placement::Internal, SIZE)];
    let error = metadata::restore(&mut disk, &disks, too_much, superblock(), Vec::new());
    assert!(matches!(error, Err(LoadError::Shrunk { .. })), "{error:?}");
    let disks = [volume(0, Placement::External, SIZE)];
    let error = metadata::restore(&mut disk, &disks, 4096, superblock(), Vec::new());
    assert!(error.unwrap_err().to_string().contains("another meta-disk setting"));
    assert!(metadata::load(&mut disk, Placement::Internal, SIZE, NodeId(0)).is_ok(), "nothing was changed");
}
