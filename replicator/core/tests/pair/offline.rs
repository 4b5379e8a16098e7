//! What is changed on the disk of a node that is down, and what comes of it when the two meet again.

use tandem_core::config::Protocol;
use tandem_core::io::Command;
use tandem_core::metadata::{self, ActivityLogState, Metadata, Placement};
use tandem_core::units::NodeId;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROTOCOLS, start_again, synced};

fn load(pair: &mut Pair, n: usize) -> Metadata {
    let disk = &mut pair.nodes[n].disk;
    let bytes = disk.0.len() as u64;
    metadata::load(disk, Placement::Internal, bytes, NodeId(n as u8)).unwrap()
}

fn apply_log(pair: &mut Pair, n: usize) -> Option<u64> {
    let disk = &mut pair.nodes[n].disk;
    let bytes = disk.0.len() as u64;
    metadata::apply_log(disk, Placement::Internal, bytes, NodeId(n as u8)).unwrap()
}

fn forget(pair: &mut Pair, n: usize) -> bool {
    let disk = &mut pair.nodes[n].disk;
    let (bytes, me, peer) = (disk.0.len() as u64, NodeId(n as u8), NodeId(1 - n as u8));
    metadata::forget_peer(disk, Placement::Internal, bytes, me, peer, 0x5EED).unwrap()
}

/// A write that only the Primary's disk has; then the Primary's power fails.
fn crash_in_a_write(pair: &mut Pair) {
    pair.write(0, 0, 1);
    pair.hold = Some(|m| matches!(m, Message::Write { .. }));
    pair.begin_write(0, 0, 2);
    pair.crash(0);
    pair.drop_held();
}

#[test]
fn an_applied_log_marks_what_attaching_would_mark() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        crash_in_a_write(&mut pair);
        assert!(!load(&mut pair, 0).is_clean());
        let marked = apply_log(&mut pair, 0);
        assert!(marked.is_some_and(|bytes| bytes > 0), "{marked:?}");
        let applied = load(&mut pair, 0);
        assert!(applied.is_clean() && applied.superblock.flags.crashed_primary);
        assert_eq!(applied.superblock.activity_log, ActivityLogState::Closed);
        assert_eq!(apply_log(&mut pair, 0), None);
        start_again(&mut pair, 0);
        pair.assert_in_sync();
        // The log goes on.
        pair.command(0, Command::Primary { force: true }).unwrap();
        crash_in_a_write(&mut pair);
        start_again(&mut pair, 0);
        pair.assert_in_sync();
    }
}

#[test]
fn two_of_whom_one_has_forgotten_the_other_compare_everything() {
    for writes_alone in [true, false] {
        let mut pair = synced(Protocol::C);
        pair.command(1, Command::Disconnect).unwrap();
        if writes_alone {
            pair.write(0, 4096, 2);
        }
        pair.crash(0);
        assert!(forget(&mut pair, 0));
        assert!(!forget(&mut pair, 0), "it is forgotten already");
        // Nothing marks this.
        pair.nodes[1].disk.0[3 * 4096] ^= 1;
        start_again(&mut pair, 0);
        pair.command(1, Command::Connect).unwrap();
        pair.assert_in_sync();
    }
}

/// Who is forgotten was in sync; its old disk, forced to go on, must not win over what was written since.
#[test]
fn a_forgotten_peer_that_goes_on_by_force_meets_a_split_brain() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 0, 1);
    pair.command(0, Command::Secondary).unwrap();
    pair.link_is_down = true;
    pair.crash(0);
    pair.crash(1);
    assert!(forget(&mut pair, 0));
    // It has gone on with another peer, in whose eyes it began no generation.
    start_again(&mut pair, 1);
    pair.command(1, Command::Primary { force: true }).unwrap();
    pair.write(1, 4096, 2);
    pair.command(1, Command::Secondary).unwrap();
    start_again(&mut pair, 0);
    pair.heal();
    let reason = crate::scene::peer(&pair, 0).standalone_reason.unwrap_or_default();
    assert!(reason.starts_with(tandem_core::split_brain::SPLIT_BRAIN), "{reason}");
}
