//! As much of a disk is left for data as `drbdmeta create-md` leaves, for the same number of peers.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use tandem_core::metadata::{Geometry, Placement};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECTOR_BYTES: u64 = 512;
const BLOCK_BYTES: u64 = 4096;

/// Around every place where something is rounded: blocks, words of the bitmap, blocks of it.
const SIZES: &[u64] = &[
    MIB,
    MIB + 1,
    MIB + SECTOR_BYTES,
    MIB + BLOCK_BYTES - 1,
    10 * MIB + 256 * KIB,
    128 * MIB - BLOCK_BYTES,
    128 * MIB,
    128 * MIB + BLOCK_BYTES,
    256 * MIB,
    999 * MIB + 13 * SECTOR_BYTES,
    GIB,
    GIB + 128 * KIB,
    7 * GIB + 3 * MIB + 7 * BLOCK_BYTES,
    100 * GIB,
    1024 * GIB,
];
const MAX_PEERS: &[u8] = &[1, 2, 3, 7, 31];
/// What drbdmeta writes for the largest disk and the most peers is not worth the seconds.
const MAX_BITMAP_BYTES: u64 = 32 * MIB;

/// What drbdmeta leaves of the disk.
fn theirs(disk: &Path, size_bytes: u64, max_peers: u8) -> u64 {
    File::create(disk).unwrap().set_len(size_bytes).unwrap();
    let drbdmeta = |arguments: &[&str]| {
        let mut command = Command::new("drbdmeta");
        command.args(["--force", "0", "v09"]).arg(disk).arg("internal").args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    drbdmeta(&["create-md", &max_peers.to_string()]);
    let dump = drbdmeta(&["dump-md"]);
    let sectors = dump.split_once("md_size_sect ").unwrap().1.split_whitespace().next().unwrap();
    let metadata_bytes = sectors.parse::<u64>().unwrap() * SECTOR_BYTES;
    size_bytes / BLOCK_BYTES * BLOCK_BYTES - metadata_bytes
}

#[test]
#[ignore = "needs drbd-utils"]
fn as_much_is_left_for_data_as_drbdmeta_leaves() {
    let disk = std::env::temp_dir().join(format!("tandem-oracle-disk-{}", std::process::id()));
    let mut compared = 0;
    for &size_bytes in SIZES {
        for &max_peers in MAX_PEERS {
            let ours = Geometry::new(Placement::Internal, size_bytes, size_bytes, max_peers).unwrap();
            if ours.bitmap_bytes > MAX_BITMAP_BYTES {
                continue;
            }
            let theirs = theirs(&disk, size_bytes, max_peers);
            assert_eq!(ours.data_bytes, theirs, "{size_bytes} bytes, {max_peers} peers");
            compared += 1;
        }
    }
    fs::remove_file(&disk).unwrap();
    println!("{compared} disks compared");
}
