//! Recognises what lies on a disk by its magic numbers, so that nobody's data is overwritten unasked.

use tandem_core::io::DiskError;
use tandem_core::metadata::MetaIo;
use tandem_core::units::BLOCK_BYTES;

use crate::device::Device;

/// Bytes at the start of the device that are looked at.
const HEAD_BYTES: usize = 256 << 10;
/// Bytes at the end of the device that are looked at: version 0.90 of the RAID superblock lies furthest from it.
const TAIL_BYTES: u64 = 128 << 10;

/// Something recognised on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What it is.
    pub what: &'static str,
    /// How much of the device it takes, from the start, where that is known.
    pub size_bytes: Option<u64>,
}

/// What is on `device`, the first match of the table; then RAID members by their end; then, if the start of the
/// device is not all zero, "some data".
pub fn find(device: &Device) -> Result<Option<Found>, DiskError> {
    let head = device.read_up_to(0, HEAD_BYTES)?;
    if let Some(found) = in_head(&head) {
        return Ok(Some(found));
    }
    if raid_at_end(device)? {
        return Ok(Some(Found { what: "Linux software RAID member", size_bytes: None }));
    }
    let blank = head.iter().all(|byte| *byte == 0);
    Ok((!blank).then_some(Found { what: "some data", size_bytes: None }))
}

/// DRBD's metadata superblock where `superblock_offset` says: its format's name.
pub fn drbd_metadata(device: &Device, superblock_offset: u64) -> Result<Option<&'static str>, DiskError> {
    const MAGIC_OFFSET: u64 = 60;
    let magic = device.read_up_to(superblock_offset + MAGIC_OFFSET, 4)?;
    Ok(match be32(&magic, 0) {
        Some(0x8374_026a) => Some("v07"),
        Some(0x8374_026b | 0x8374_026c) => Some("v08"),
        Some(0x8374_026d) => Some("v09"),
        _ => None,
    })
}

/// A kind of content, the places of its magic number, and how it tells its size.
struct Signature {
    what: &'static str,
    places: &'static [(usize, &'static [u8])],
    size_bytes: fn(&[u8]) -> Option<u64>,
}

const fn signature(what: &'static str, places: &'static [(usize, &'static [u8])]) -> Signature {
    Signature { what, places, size_bytes: |_| None }
}

/// Containers come before partition tables: some leave a boot sector in front.
const SIGNATURES: &[Signature] = &[
    signature("LUKS encrypted volume", &[(0, b"LUKS\xba\xbe")]),
    Signature {
        what: "LVM2 physical volume",
        places: &[(0, b"LABELONE"), (512, b"LABELONE"), (1024, b"LABELONE"), (1536, b"LABELONE")],
        size_bytes: lvm_size,
    },
    Signature { what: "xfs filesystem", places: &[(0, b"XFSB")], size_bytes: xfs_size },
    Signature { what: "btrfs filesystem", places: &[(BTRFS + 64, b"_BHRfS_M")], size_bytes: btrfs_size },
    Signature { what: "ext2/ext3/ext4 filesystem", places: &[(EXT + 56, b"\x53\xef")], size_bytes: ext_size },
    Signature { what: "NTFS filesystem", places: &[(3, b"NTFS    ")], size_bytes: ntfs_size },
    signature("BitLocker volume", &[(3, b"-FVE-FS-")]),
    signature("exFAT filesystem", &[(3, b"EXFAT   ")]),
    signature("FAT filesystem", &[(54, b"FAT12   "), (54, b"FAT16   "), (82, b"FAT32   ")]),
    signature("f2fs filesystem", &[(1024, b"\x10\x20\xf5\xf2")]),
    signature("reiserfs filesystem", &[(65536 + 52, b"ReIsEr"), (8192 + 52, b"ReIsEr")]),
    signature("jfs filesystem", &[(32768, b"JFS1")]),
    signature("iso9660 filesystem", &[(32769, b"CD001")]),
    signature("squashfs filesystem", &[(0, b"hsqs")]),
    signature("bcache device", &[(4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca")]),
    signature("qcow2 image", &[(0, b"QFI\xfb")]),
    signature(
        "swap space",
        &[
            (4096 - 10, b"SWAPSPACE2"),
            (8192 - 10, b"SWAPSPACE2"),
            (16384 - 10, b"SWAPSPACE2"),
            (65536 - 10, b"SWAPSPACE2"),
            (4096 - 10, b"SWAP-SPACE"),
        ],
    ),
    signature("Linux software RAID member", &[(0, RAID_MAGIC), (4096, RAID_MAGIC)]),
    signature("GPT partition table", &[(512, b"EFI PART"), (4096, b"EFI PART")]),
];

fn in_head(head: &[u8]) -> Option<Found> {
    SIGNATURES
        .iter()
        .find(|s| s.places.iter().any(|(at, magic)| holds(head, *at, magic)))
        .map(|s| Found { what: s.what, size_bytes: (s.size_bytes)(head) })
        .or_else(|| zfs(head).then_some(Found { what: "zfs member", size_bytes: None }))
        .or_else(|| mbr(head).then_some(Found { what: "MBR partition table", size_bytes: None }))
}

const EXT: usize = 1024;
const BTRFS: usize = 65536;
const RAID_MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";

fn ext_size(head: &[u8]) -> Option<u64> {
    const INCOMPAT_64BIT: u32 = 0x80;
    let block_bytes = 1024u64.checked_shl(le32(head, EXT + 24)?)?;
    let wide = le32(head, EXT + 96)? & INCOMPAT_64BIT != 0;
    let high = if wide { u64::from(le32(head, EXT + 0x150)?) } else { 0 };
    (high << 32 | u64::from(le32(head, EXT + 4)?)).checked_mul(block_bytes)
}

fn xfs_size(head: &[u8]) -> Option<u64> {
    let blocks = u64::from(be32(head, 8)?) << 32 | u64::from(be32(head, 12)?);
    blocks.checked_mul(u64::from(be32(head, 4)?))
}

fn btrfs_size(head: &[u8]) -> Option<u64> {
    const THIS_DEVICE: usize = 0xc9;
    le64(head, BTRFS + THIS_DEVICE + 8)
}

fn ntfs_size(head: &[u8]) -> Option<u64> {
    let sector_bytes = u64::from(*head.get(11)?) | u64::from(*head.get(12)?) << 8;
    // The backup boot sector lies behind the sectors counted.
    le64(head, 0x28)?.checked_add(1)?.checked_mul(sector_bytes)
}

fn lvm_size(head: &[u8]) -> Option<u64> {
    let label = [0, 512, 1024, 1536].into_iter().find(|at| holds(head, *at, b"LABELONE"))?;
    le64(head, label + 64)
}

/// A boot signature and four plausible entries of which one is in use.
fn mbr(head: &[u8]) -> bool {
    let Some(entries) = head.get(446..510) else { return false };
    let plausible = |entry: &[u8]| matches!(entry[0], 0 | 0x80);
    let used = |entry: &[u8]| entry[4] != 0;
    holds(head, 510, b"\x55\xaa") && entries.chunks(16).all(plausible) && entries.chunks(16).any(used)
}

/// An uberblock in the first label's ring, of either byte order.
fn zfs(head: &[u8]) -> bool {
    const MAGIC: u64 = 0x00ba_b10c;
    (128 << 10..256 << 10)
        .step_by(1024)
        .filter_map(|at| le64(head, at))
        .any(|word| word == MAGIC || word == MAGIC.swap_bytes())
}

/// RAID superblock versions 0.90 and 1.0.
fn raid_at_end(device: &Device) -> Result<bool, DiskError> {
    let size = device.size_bytes();
    let tail_offset = size.saturating_sub(TAIL_BYTES);
    let tail = device.read_up_to(tail_offset, TAIL_BYTES as usize)?;
    let old = (size / (64 << 10) * (64 << 10)).checked_sub(64 << 10);
    let new = size.checked_sub(8 << 10).map(|at| at / BLOCK_BYTES * BLOCK_BYTES);
    let there = |at: u64| at >= tail_offset && holds(&tail, (at - tail_offset) as usize, RAID_MAGIC);
    Ok([old, new].into_iter().flatten().any(there))
}

fn holds(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn every_signature_is_found_at_each_of_its_places() {
        for s in SIGNATURES {
            for (at, magic) in s.places {
                let found = in_head(&head_with(*at, magic)).map(|f| f.what);
                assert_eq!(found, Some(s.what), "at {at}");
            }
        }
    }

    #[test]
    fn blank_and_truncated_heads_hold_nothing() {
        for length in [0, 3, 511, 512, 1025, 4096, 65537, HEAD_BYTES] {
            assert_eq!(in_head(&vec![0; length]), None, "{length}");
        }
        for s in SIGNATURES {
            for (at, magic) in s.places {
                let _ = in_head(&head_with(*at, magic)[..at + magic.len()]);
            }
        }
    }

    #[test]
    fn ext_tells_its_size_in_32_and_64_bits() {
        let mut head = head_with(EXT + 56, b"\x53\xef");
        head[EXT + 4..EXT + 8].copy_from_slice(&100u32.to_le_bytes());
        head[EXT + 24..EXT + 28].copy_from_slice(&2u32.to_le_bytes());
        head[EXT + 0x150] = 1;
        assert_eq!(ext_size(&head), Some(100 * 4096));
        head[EXT + 96] = 0x80;
        assert_eq!(ext_size(&head), Some((1 << 32 | 100) * 4096));
        head[EXT + 24..EXT + 28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(ext_size(&head), None);
    }

    #[test]
    fn xfs_and_btrfs_tell_their_size() {
        let mut head = head_with(0, b"XFSB");
        head[4..8].copy_from_slice(&4096u32.to_be_bytes());
        head[8..16].copy_from_slice(&1000u64.to_be_bytes());
        assert_eq!(in_head(&head).and_then(|f| f.size_bytes), Some(4_096_000));
        let mut head = head_with(BTRFS + 64, b"_BHRfS_M");
        head[BTRFS + 0xd1..BTRFS + 0xd9].copy_from_slice(&(1u64 << 30).to_le_bytes());
        assert_eq!(in_head(&head).and_then(|f| f.size_bytes), Some(1 << 30));
    }

    #[test]
    fn a_boot_signature_alone_is_no_partition_table() {
        let mut head = head_with(510, b"\x55\xaa");
        assert_eq!(in_head(&head), None);
        head[446 + 4] = 0x83;
        assert_eq!(in_head(&head).map(|f| f.what), Some("MBR partition table"));
        head[446] = 0x17;
        assert_eq!(in_head(&head), None);
    }

    #[test]
    fn zfs_is_found_in_either_byte_order() {
        for bytes in [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()] {
            assert_eq!(
                in_head(&head_with((128 << 10) + 5 * 1024, &bytes)).map(|f| f.what),
                Some("zfs member")
            );
        }
    }
}
