//! dump-md, restore-md, apply-al and forget-peer on files.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};

use nix::fcntl::{Flock, FlockArg};
use support::{Node, Ran, connected, snapshot};
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
    let node = created();
    for name in ["r0:charlie", "r0:0", "r0:32"] {
        node.adm(&format!("forget-peer {name}")).expect(10, &["is no peer of resource r0."]);
    }
    node.adm("forget-peer r9").expect(1, &["'r9' not defined in your config"]);
    node.adm("forget-peer").expect(1, &[]);
}
