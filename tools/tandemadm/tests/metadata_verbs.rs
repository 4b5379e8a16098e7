//! dump-md, restore-md, apply-al and forget-peer on files.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use support::{Node, Ran, connected, snapshot};
use tandem_control::LastSeen;
use tandem_core::metadata::{ActivityLogState, Placement, Superblock};
use tandem_core::units::NodeId;

const MIB: u64 = 1 << 20;

fn created() -> Node {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    node
}

/// Both copies as `change` makes them.
fn edit(node: &Node, change: impl FnOnce(&mut Superblock)) {
    let mut superblock = Superblock::fresh(0xD, MIB, Placement::Internal, 1);
    superblock.node = Some(NodeId(0));
    change(&mut superblock);
    for copy in [MIB - 4096, MIB - 8192] {
        node.write_to_disk(copy, &superblock.encode());
    }
}

/// What is there, as `change` makes it.
fn alter(node: &Node, change: impl FnOnce(&mut Superblock)) {
    let bytes = fs::read(node.disk()).unwrap();
    let copy = &bytes[(MIB - 4096) as usize..];
    let mut superblock = Superblock::decode(copy.try_into().unwrap()).unwrap();
    change(&mut superblock);
    for copy in [MIB - 4096, MIB - 8192] {
        node.write_to_disk(copy, &superblock.encode());
    }
}

fn dump_to_file(node: &Node) -> String {
    let ran = node.adm("dump-md r0");
    fs::write(node.path("dump"), &ran.expect(0, &[]).stdout).unwrap();
    node.path("dump").display().to_string()
}

fn restore(node: &Node, file: &str) -> Ran {
    node.adm(&format!("restore-md r0 {file} --force"))
}

#[test]
fn what_was_dumped_is_restored() {
    let node = created();
    edit(&node, |s| (s.generations.current, s.peers[0].bitmap_id) = (0xABC, 0x22));
    node.adm("invalidate r0").expect(0, &[]);
    let file = dump_to_file(&node);
    let before = fs::read(node.disk()).unwrap();
    node.adm("create-md --force r0").expect(0, &[]);
    node.adm(&format!("restore-md r0 {file}")).expect(1, &["Found tandem meta-data", "Operation cancelled."]);
    node.adm(&format!("-d restore-md r0 {file}")).expect(0, &["restore-md"]);
    assert_ne!(fs::read(node.disk()).unwrap(), before);
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    assert_eq!(fs::read(node.disk()).unwrap(), before);
    node.adm("wipe-md --force r0").expect(0, &[]);
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    assert_eq!(fs::read(node.disk()).unwrap(), before);
}

fn good(s: &mut Superblock) {
    (s.generations.current, s.flags.consistent, s.flags.up_to_date) = (0xABC, true, true);
    s.sequence = 5;
}

#[test]
fn an_older_dump_makes_every_block_count_as_different() {
    let node = created();
    edit(&node, good);
    let file = dump_to_file(&node);
    alter(&node, |s| (s.sequence, s.generations.current) = (9, 0xDEF));
    let asked = node.adm(&format!("restore-md r0 {file}"));
    asked.expect(
        1,
        &["the dump is older than the meta-data on the disk (its sequence is 5, there 9)", "cancelled"],
    );
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    let dump = node.adm("dump-md r0").stdout;
    for part in ["current-uuid 0x0000000000000ABC;", "sequence 10;", "was-up-to-date", "# bits-set 246;"] {
        assert!(dump.contains(part), "no {part} in {dump}");
    }
}

#[test]
fn what_the_disk_says_against_its_data_outlives_every_dump() {
    let node = created();
    edit(&node, |s| {
        good(s);
        (s.peers[0].node, s.peers[0].outdated) = (Some(NodeId(1)), true);
    });
    let file = dump_to_file(&node);
    // Outdated, and the peer may be in use again.
    alter(&node, |s| (s.flags.up_to_date, s.peers[0].outdated) = (false, false));
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    let dump = node.adm("dump-md r0").stdout;
    assert!(dump.contains("flags consistent;") && !dump.contains("outdated"), "{dump}");
    // Half a resync.
    alter(&node, |s| s.flags.consistent = false);
    restore(&node, &file).expect(0, &[]);
    node.adm("dstate r0").expect(0, &["Inconsistent"]);
}

#[test]
fn a_dump_of_another_disk_or_another_time_is_refused() {
    let node = created();
    edit(&node, good);
    let file = dump_to_file(&node);
    alter(&node, |s| s.sequence = 4);
    let before = fs::read(node.disk()).unwrap();
    restore(&node, &file).expect(10, &["newer than the meta-data on the disk", "create-md --force r0"]);
    assert_eq!(fs::read(node.disk()).unwrap(), before);
    alter(&node, |s| s.device_id = 0xE);
    restore(&node, &file)
        .expect(10, &["device id 000000000000000D, the disk has that with 000000000000000E"]);
    node.adm("create-md --force r0").expect(0, &[]);
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
}

/// Two volumes, and a file for undo logs.
fn with_two_volumes() -> Node {
    let node = Node::new(MIB);
    fs::write(node.path("log"), vec![0; MIB as usize]).unwrap();
    let (disk, log, undo) = (node.disk(), node.path("log"), node.path("undo"));
    let volume = |number: u8, disk: &std::path::Path| {
        format!("volume {number} {{ device minor {number}; disk {}; meta-disk internal; }}", disk.display())
    };
    let (first, second) = (volume(0, &disk), volume(1, &log));
    let text = format!(
        "resource r0 {{ disk {{ resync-undo {}; }} {first} {second}\n on alpha {{ address 127.0.0.1:7788; }} on bravo {{ address \
         127.0.0.2:7788; }} }}",
        undo.display()
    );
    fs::write(node.config(), text).unwrap();
    node.adm("create-md r0").expect(0, &[]);
    node
}

#[test]
fn a_dump_of_several_volumes_brings_their_disks_with_it() {
    let node = with_two_volumes();
    alter(&node, |s| s.node = Some(NodeId(0)));
    let file = dump_to_file(&node);
    let before = fs::read(node.path("log")).unwrap();
    node.adm("create-md --force r0").expect(0, &[]);
    assert_ne!(fs::read(node.path("log")).unwrap(), before, "it belongs to the new meta-data");
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    assert_eq!(fs::read(node.path("log")).unwrap(), before);
    fs::write(node.path("log"), vec![0; MIB as usize]).unwrap();
    restore(&node, &file)
        .expect(10, &["the disk of volume 1 is not the one that the meta-data was created for"]);
}

/// As drbd-utils' drbdadm calls it, for one volume after the other.
#[test]
fn what_is_done_to_all_volumes_is_done_to_the_first() {
    let node = with_two_volumes();
    let program = node.path("drbdmeta");
    std::os::unix::fs::symlink(&node.program, &program).unwrap();
    let drbdmeta = |minor: &str, disk: PathBuf, command: &str| -> Ran {
        let mut line = Command::new(&program);
        line.args([minor, "v09"]).arg(disk).arg("internal").args(command.split(' '));
        line.env("TANDEM_RUN_DIR", node.path("run")).output().unwrap().into()
    };
    edit(&node, good);
    for command in ["outdate", "apply-al", "forget-peer --node-id=1", "invalidate"] {
        drbdmeta("0", node.disk(), command).expect(0, &[]);
        drbdmeta("1", node.path("log"), command).expect(0, &[]);
    }
    assert_eq!(drbdmeta("0", node.disk(), "dstate").stdout, "Inconsistent\n");
    let lies = "the meta-data of this volume lies with that of its resource's first one";
    for command in ["dstate", "dump-md", "get-gi --node-id=1"] {
        drbdmeta("1", node.path("log"), command).expect(1, &[lies]);
    }
}

/// The daemon has noted where it ended; that it is larger now matters to nobody until `resize`.
#[test]
fn a_disk_behind_the_first_that_has_grown_is_as_large_as_it_was() {
    let node = with_two_volumes();
    alter(&node, |s| (s.node, s.undo_id, s.generations.current) = (Some(NodeId(0)), 7, 0xABC));
    let file = dump_to_file(&node);
    let before = fs::read(node.path("log")).unwrap();
    let device_id = u64::from_le_bytes(before[(MIB - 8192 + 8) as usize..][..8].try_into().unwrap());
    LastSeen::of(&node.run_dir()).found(&node.path("log"), device_id, MIB).unwrap();
    File::options().write(true).open(node.path("log")).unwrap().set_len(3 * MIB).unwrap();
    restore(&node, &file).expect(0, &["Successfully restored meta data"]);
    node.adm("resync-undo --force r0").expect(20, &["undo) failed: No such file"]);
    assert_eq!(fs::read(node.path("log")).unwrap()[..MIB as usize], before);
    // What is made anew takes all of it.
    node.adm("create-md --force r0").expect(0, &["successfully created"]);
    let stamp = &fs::read(node.path("log")).unwrap()[(3 * MIB - 8192) as usize..][..8];
    assert_eq!(stamp, b"TNDMvol1");
}

/// Where all of a disk is data there is no room for a mark.
#[test]
fn disks_that_nobody_can_tell_apart_are_named() {
    let node = with_two_volumes();
    node.adm("create-md --force r0").expect(0, &[]);
    assert!(!node.adm("create-md --force r0").stderr.contains("equally large"));
    let mut config = fs::read_to_string(node.config()).unwrap();
    for name in ["md0", "md1"] {
        fs::write(node.path(name), vec![0; MIB as usize]).unwrap();
        let external = format!("meta-disk {}", node.path(name).display());
        config = config.replacen("meta-disk internal", &external, 1);
    }
    fs::write(node.config(), config).unwrap();
    node.adm("create-md --force r0")
        .expect(0, &["the disks of volumes 0, 1 are equally large", "/dev/disk/by-id"]);
}

#[test]
fn nothing_is_put_back_on_another_disk() {
    let node = with_two_volumes();
    alter(&node, |s| (s.node, s.undo_id, s.generations.current) = (Some(NodeId(0)), 7, 0xABC));
    fs::write(node.path("log"), vec![0; MIB as usize]).unwrap();
    let undo = || node.adm("resync-undo --force r0");
    undo().expect(10, &["the disk of volume 1 is not the one that the meta-data was created for"]);
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config.replace("volume 1", "volume 2")).unwrap();
    undo().expect(10, &["the meta-data was created for volumes 0, 1"]);
}

#[test]
fn what_cannot_be_dumped_is_named_as_drbdmeta_names_it() {
    let node = Node::new(MIB);
    node.adm("dump-md r0").expect(1, &["No valid meta data found"]);
    node.adm("create-md r0").expect(0, &[]);
    let lock = Flock::lock(File::open(node.disk()).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    for command in ["dump-md r0", "apply-al r0", "forget-peer r0"] {
        node.adm(command).expect(20, &["is in use"]);
    }
    drop(lock);
    node.adm("dump-md r0").expect(0, &["version \"tandem1\";"]);
}

#[test]
fn of_a_resource_that_is_up_the_disk_tells() {
    let node = created();
    let asked = node.daemon(|_| snapshot(connected()));
    node.adm("dump-md r0").expect(0, &["# Output might be stale, since minor 0 is attached", "max-peers 1;"]);
    node.adm("forget-peer r0:bravo")
        .expect(10, &["r0: Failure: (162) Invalid configuration request", "tandemadm down r0"]);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[test]
fn a_dump_that_does_not_fit_is_refused() {
    let node = created();
    let before = fs::read(node.disk()).unwrap();
    let file = node.path("bad").display().to_string();
    restore(&node, &file).expect(20, &["open(", "No such file"]);
    let dump = node.adm("dump-md r0").stdout;
    let edit = |from: &str, to: &str, error: &str| {
        assert!(dump.contains(from), "{from}");
        fs::write(&file, dump.replace(from, to)).unwrap();
        restore(&node, &file).expect(10, &[error]);
    };
    edit(
        "max-peers",
        "max-piers",
        "bad: Parse error in line 7: keyword 'max-peers' expected, got 'max-piers'",
    );
    edit("node-id -1;\ncurrent", "node-id 1;\ncurrent", "the dump is of node 1's disk, this is node 0");
    edit("meta-disk internal", "meta-disk external", "another meta-disk setting");
    edit("bm-covers-bytes", "bm-covers-bytes 9", "Parse error in line");
    assert_eq!(fs::read(node.disk()).unwrap(), before);
}

#[test]
fn an_activity_log_is_applied_once() {
    let node = created();
    assert_eq!(node.adm("apply-al r0").expect(0, &[]).stderr, "");
    edit(&node, |s| {
        s.activity_log = ActivityLogState::Unlogged;
        s.flags.primary = true;
    });
    let unclean = node.adm("dump-md r0");
    unclean.expect(
        0,
        &[
            "Found meta data is \"unclean\", please apply-al first",
            "This_is_an_unclean_meta_data_dump._Don't_trust_the_bitmap.\n# You should \"apply-al\" first",
        ],
    );
    fs::write(node.path("dump"), unclean.stdout).unwrap();
    restore(&node, node.path("dump").to_str().unwrap()).expect(10, &["'tandemadm apply-al'"]);
    node.adm("-d apply-al r0").expect(0, &["apply-al"]);
    node.adm("apply-al r0").expect(0, &["Marked additional 984 KB as out-of-sync based on AL."]);
    assert_eq!(node.adm("apply-al r0").expect(0, &[]).stderr, "");
    node.adm("get-gi r0").expect(0, &[":0:0:0:1:1:0:0:0:0:0:0:0"]);
    assert!(node.adm("dump-md r0").stdout.contains("flags crashed-primary;"));
}

#[test]
fn identifiers_are_written_as_the_administrator_says() {
    let node = created();
    let line = |gi: &str| format!("set-gi r0 {gi}");
    let dry = node.adm("-d set-gi r0:bravo 12");
    dry.expect(0, &["previously 0000000000000004:", "set GI to  0000000000000012:", "\nset-gi "]);
    node.adm(&line("12")).expect(1, &["Operation cancelled."]);
    node.adm("get-gi r0").expect(0, &["0000000000000004:"]);
    node.adm("set-gi --force r0:1 ABC:22:11::1:1").expect(0, &["set GI to  0000000000000ABC:"]);
    let set = "0000000000000ABC:0000000000000022:0000000000000011:0000000000000000:1:1:0:0:1:0:0:0:0:0:0:1\n";
    assert_eq!(node.adm("get-gi r0").expect(0, &[]).stdout, set);
    // As drbdadm's users hand a program behind it its arguments.
    node.adm("set-gi --force r0 -- DEF").expect(0, &["previously 0000000000000ABC:"]);
    for (gi, error) in [("0", "r0: the data is of some generation"), ("x", "'x': C:B:H0:H1")] {
        node.adm(&line(gi)).expect(10, &[error]);
    }
    node.adm("set-gi r0:charlie 12").expect(1, &["'charlie' is no peer of r0"]);
    let lock = Flock::lock(File::open(node.disk()).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    node.adm("set-gi --force r0 12").expect(20, &["is in use"]);
    drop(lock);
    node.adm("get-gi r0").expect(0, &["0000000000000DEF:0000000000000022:"]);
}

#[test]
fn a_peer_is_forgotten_by_name_or_number() {
    for name in ["r0:bravo", "r0:1", "r0"] {
        let node = created();
        edit(&node, |s| (s.peers[0].node, s.peers[0].bitmap_id) = (Some(NodeId(1)), 0x22));
        node.adm(&format!("-d forget-peer {name}")).expect(0, &["forget-peer"]);
        assert_eq!(node.adm(&format!("forget-peer {name}")).expect(0, &[]).stdout, "");
        let dump = node.adm("dump-md r0").stdout;
        assert!(dump.contains("peer[0] {\n    node-id -1;\n    bitmap-uuid 0x0000000000000000;"), "{dump}");
        assert!(dump.contains("history-uuids {\n        0x0000000000000022;"), "{dump}");
        node.adm(&format!("forget-peer {name}")).expect(0, &["knows nothing of"]);
    }
    // Good data goes on as another generation.
    let node = created();
    edit(&node, |s| {
        good(s);
        s.peers[0].node = Some(NodeId(1));
    });
    node.adm("forget-peer r0").expect(0, &[]);
    let dump = node.adm("dump-md r0").stdout;
    assert!(dump.contains("history-uuids {\n        0x0000000000000ABC;"), "{dump}");
    assert!(!dump.contains("current-uuid 0x0000000000000ABC;"), "{dump}");
    let node = created();
    for name in ["r0:charlie", "r0:0", "r0:32"] {
        node.adm(&format!("forget-peer {name}")).expect(10, &["is no peer of resource r0."]);
    }
    node.adm("forget-peer r9").expect(1, &["'r9' not defined in your config"]);
    node.adm("forget-peer").expect(1, &[]);
}
