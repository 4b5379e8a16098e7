//! create-md, wipe-md, get-gi, show-gi and dstate on files.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};

use nix::fcntl::{Flock, FlockArg};
use support::{Node, Ran};

const MIB: u64 = 1 << 20;
const SUCCESS: &str = "New tandem meta data block successfully created.\n";
const FRESH: &str =
    "0000000000000004:0000000000000000:0000000000000000:0000000000000000:0:0:0:0:1:0:0:0:0:0:0:0\n";

#[test]
fn create_md_on_a_blank_disk_prints_drbdmetas_lines() {
    let node = Node::new(256 * MIB);
    let ran = node.adm("create-md r0");
    ran.expect(0, &[]);
    assert_eq!(
        ran.stdout,
        format!(
            "initializing activity log\ninitializing bitmap (8 KB) to all zero\nWriting meta data...\n{SUCCESS}"
        )
    );
    assert_eq!(node.adm("get-gi r0").stdout, FRESH);
    node.adm("show-gi r0").expect(0, &["fresh meta-data", "Secondary, Inconsistent, not up"]);
    assert_eq!(node.adm("dstate r0").stdout, "Inconsistent\n");
}

#[test]
fn max_peers_makes_room_for_their_bitmaps() {
    let node = Node::new(256 * MIB);
    node.adm("create-md --max-peers 3 r0").expect(0, &["bitmap (24 KB)"]);
    node.adm("create-md --max-peers 0 r0").expect(1, &[]);
    node.adm("create-md --max-peers 32 r0").expect(1, &[]);
}

#[test]
fn existing_metadata_is_overwritten_on_force_only() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    let before = fs::read(node.disk()).unwrap();
    node.adm("create-md r0").expect(
        1,
        &[
            "Found tandem meta-data",
            "current generation   0000000000000004",
            "device id",
            "Operation cancelled.",
        ],
    );
    assert_eq!(fs::read(node.disk()).unwrap(), before);
    node.adm("create-md --force r0").expect(0, &[SUCCESS]);
    assert_ne!(fs::read(node.disk()).unwrap(), before, "the device id is drawn anew");
}

/// As in `yes yes | tandemadm create-md r0`.
#[test]
fn whoever_says_yes_need_not_be_a_terminal() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    for (answer, code, said) in [("no", 1, "or --force"), ("yes", 0, SUCCESS)] {
        fs::write(node.path("answer"), format!("{answer}\n")).unwrap();
        let told = File::open(node.path("answer")).unwrap();
        let ran = Ran::from(node.command("create-md r0").stdin(told).output().unwrap());
        ran.expect(code, &["[need to type 'yes' to confirm]", said]);
    }
}

#[test]
fn damaged_metadata_is_named_and_kept() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    for copy in [MIB - 4096, MIB - 8192] {
        node.write_to_disk(copy + 100, b"rot");
    }
    node.adm("create-md r0").expect(1, &["is damaged", "checksum does not match", "Operation cancelled."]);
    node.adm("get-gi r0").expect(10, &["The meta-data is damaged"]);
    node.adm("wipe-md r0").expect(1, &["Operation cancelled."]);
    node.adm("create-md --force r0").expect(0, &[SUCCESS]);
    assert_eq!(node.adm("get-gi r0").stdout, FRESH);
}

#[test]
fn one_damaged_copy_is_no_damage() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    node.write_to_disk(MIB - 4096 + 100, b"rot");
    assert_eq!(node.adm("get-gi r0").stdout, FRESH);
}

#[test]
fn drbds_metadata_is_recognised() {
    for (magic, format) in [(0x8374_026b_u32, "v08"), (0x8374_026d, "v09")] {
        let node = Node::new(MIB);
        node.write_to_disk(MIB - 4096 + 60, &magic.to_be_bytes());
        node.adm("create-md r0")
            .expect(1, &[&format!("Found DRBD meta-data ({format})"), "Operation cancelled."]);
        node.adm("create-md --force r0").expect(0, &[SUCCESS]);
    }
}

#[test]
fn a_filesystem_that_would_be_cut_off_is_refused_even_on_force() {
    let node = Node::new(MIB);
    node.write_to_disk(1024, &ext_superblock(1024));
    let before = fs::read(node.disk()).unwrap();
    for command in ["create-md r0", "create-md --force r0"] {
        node.adm(command).expect(
            40,
            &[
                "Found ext2/ext3/ext4 filesystem",
                "1048576 bytes (1024 KiB)",
                "1007616 bytes (984 KiB)",
                "Operation refused.",
            ],
        );
    }
    assert_eq!(fs::read(node.disk()).unwrap(), before);
}

#[test]
fn a_filesystem_that_fits_needs_confirmation() {
    let node = Node::new(MIB);
    node.write_to_disk(1024, &ext_superblock(984));
    node.adm("create-md r0").expect(1, &["This might destroy existing data!", "Operation cancelled."]);
    node.adm("create-md --force r0").expect(0, &[SUCCESS]);
    let disk = fs::read(node.disk()).unwrap();
    assert_eq!(disk[1024..2048], ext_superblock(984)[..]);
}

#[test]
fn external_metadata_leaves_the_filesystem_alone() {
    let node = Node::new(MIB);
    node.write_to_disk(1024, &ext_superblock(1024));
    let before = fs::read(node.disk()).unwrap();
    let meta = node.path("meta");
    File::create(&meta).unwrap().set_len(MIB).unwrap();
    node.configure(meta.to_str().unwrap());
    node.adm("create-md r0").expect(0, &[SUCCESS]);
    assert_eq!(fs::read(node.disk()).unwrap(), before);
    assert_eq!(node.adm("get-gi r0").stdout, FRESH);
}

#[test]
fn unknown_data_needs_confirmation() {
    let node = Node::new(MIB);
    node.write_to_disk(70_000, b"x");
    node.adm("create-md r0").expect(1, &["Found some data", "Operation cancelled."]);
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let node = Node::new(MIB);
    let file = File::open(node.disk()).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    for command in ["create-md --force r0", "wipe-md --force r0"] {
        node.adm(command).expect(20, &["is in use"]);
    }
    drop(lock);
    node.adm("create-md --force r0").expect(0, &[]);
}

#[test]
fn disks_that_cannot_do_are_named() {
    let node = Node::new(16384);
    node.adm("create-md r0").expect(20, &["Low.dev. too small"]);
    fs::remove_file(node.disk()).unwrap();
    node.adm("create-md r0").expect(20, &["open(", "No such file"]);
    fs::create_dir(node.disk()).unwrap();
    node.adm("create-md r0").expect(20, &["neither a regular file nor a block device"]);
}

#[test]
fn wiped_metadata_is_gone() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    node.adm("wipe-md r0").expect(1, &["Operation cancelled."]);
    node.adm("wipe-md --force r0").expect(0, &["successfully wiped out"]);
    node.adm("wipe-md --force r0").expect(0, &["no tandem meta data"]);
    node.adm("get-gi r0").expect(1, &["No valid meta-data signature found."]);
    node.adm("create-md r0").expect(0, &[SUCCESS]);
}

#[test]
fn several_resources_go_on_after_a_failure_and_give_up_on_a_broken_disk() {
    let node = Node::new(MIB);
    node.write_to_disk(0, b"data");
    File::create(node.path("second")).unwrap().set_len(MIB).unwrap();
    let ran = node.adm("create-md all");
    ran.expect(1, &["Command 'create-md r0' terminated with exit code 1", SUCCESS]);
    fs::remove_file(node.disk()).unwrap();
    let ran = node.adm("create-md --force all");
    ran.expect(20, &["Command 'create-md r0' terminated with exit code 20"]);
    assert!(!ran.stdout.contains(SUCCESS));
}

#[test]
fn a_dry_run_touches_nothing() {
    let node = Node::new(MIB);
    let before = fs::read(node.disk()).unwrap();
    node.adm("-d create-md r0").expect(0, &["create-md", "--max-peers 1"]);
    assert_eq!(fs::read(node.disk()).unwrap(), before);
}

/// The part of ext's superblock that tells its size, in blocks of 1 KiB.
fn ext_superblock(blocks: u32) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[4..8].copy_from_slice(&blocks.to_le_bytes());
    bytes[56..58].copy_from_slice(&0xEF53_u16.to_le_bytes());
    bytes
}
