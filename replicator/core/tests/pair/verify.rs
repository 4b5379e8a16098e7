//! DRBD's test `verify`: blocks are corrupted on one disk, a verify reports exactly those, and a repair heals them.

use tandem_core::config::{Options, Protocol, ResyncOptions};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::handler::Handler;
use tandem_core::io::{Command, Device, Repair};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::units::NodeId;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{peer, read};

const BLOCK: usize = 4096;
const WHOLE: Command = Command::Verify { volume: None, start_bytes: None, stop_bytes: None, repair: None };

fn repairing(from: Option<u8>) -> Command {
    let repair = Some(Repair { from: from.map(NodeId) });
    Command::Verify { volume: None, start_bytes: None, stop_bytes: None, repair }
}

/// In sync, node 0 Primary, a digest configured.
fn pair() -> Pair {
    let options = Options {
        protocol: Protocol::C,
        verify_algorithm: Some(DigestAlgorithm::Sha256),
        resync: ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() },
        ..Options::default()
    };
    let mut pair = Pair::with_handlers(&options, &[Handler::OutOfSync]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    for block in 0..16 {
        pair.write(0, block * BLOCK as u64, block as u8 + 1);
    }
    pair
}

fn corrupt(pair: &mut Pair, n: usize, blocks: &[usize]) {
    for block in blocks {
        pair.nodes[n].disk.0[block * BLOCK + 77] ^= 0x10;
    }
}

fn out_of_sync_blocks(pair: &Pair, n: usize) -> u64 {
    pair.nodes[n].engine.status(pair.now).peers[0].out_of_sync_bytes / BLOCK as u64
}

fn marked(pair: &Pair, n: usize) -> Vec<usize> {
    let mut blocks = Vec::new();
    pair.nodes[n].engine.may_differ(NodeId(1 - n as u8), |range| {
        blocks.extend(range.blocks_touched().map(|b| b as usize));
    });
    blocks
}

#[test]
fn verify() {
    for initiator in 0..2 {
        let mut pair = pair();
        let last = pair.nodes[0].engine.size_bytes() as usize / BLOCK - 1;
        corrupt(&mut pair, 1, &[0, 99, 100, last]);
        pair.command(initiator, WHOLE).unwrap();
        for n in 0..2 {
            assert_eq!(marked(&pair, n), [0, 99, 100, last], "node {n}");
            assert_eq!(pair.running(n), [Handler::OutOfSync], "node {n}");
            let peer = &pair.nodes[n].engine.status(pair.now).peers[0];
            assert_eq!(peer.replication, ReplicationState::Established);
        }
        // It is found, and stays as it is until the nodes connect anew.
        assert_ne!(
            pair.nodes[0].disk.0[99 * BLOCK..100 * BLOCK],
            pair.nodes[1].disk.0[99 * BLOCK..100 * BLOCK]
        );
        pair.command(1, Command::Disconnect).unwrap();
        pair.command(1, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[77], 1);
    }
}

#[test]
fn what_was_found_is_known_after_a_crash_of_both() {
    let mut pair = pair();
    corrupt(&mut pair, 1, &[7]);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(0, WHOLE).unwrap();
    pair.crash(1);
    pair.crash(0);
    for n in 0..2 {
        pair.attach(n).unwrap();
        assert_eq!(marked(&pair, n), [7], "node {n}");
    }
}

#[test]
fn verify_and_repair_from_the_primary() {
    for initiator in 0..2 {
        let mut pair = pair();
        corrupt(&mut pair, 1, &[3, 4, 5, 40]);
        let before = pair.nodes[1].engine.status(pair.now).peers[0].received_bytes;
        pair.command(initiator, repairing(None)).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[3 * BLOCK + 77], 4);
        let received = pair.nodes[1].engine.status(pair.now).peers[0].received_bytes - before;
        // Block 40 is all zero, and is not sent.
        assert_eq!(received, 3 * BLOCK as u64);
    }
}

/// Simulator: seed 250922 C. The Primary had heard that the disk is gone, and then that it is UpToDate.
#[test]
fn a_disk_that_is_detached_before_its_repair_begins_stays_detached() {
    for detached in [false, true] {
        let mut pair = pair();
        corrupt(&mut pair, 1, &[3]);
        pair.hold = Some(|m| matches!(m, Message::InvalidateReply { .. }));
        pair.command(1, repairing(None)).unwrap();
        pair.slow_disk = Some((1, Device::Data)).filter(|_| !detached);
        let detach = pair.begin_command(1, Command::Detach);
        assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].disk, DiskState::Diskless);
        pair.deliver();
        assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].disk, DiskState::Diskless);
        pair.slow_disk = None;
        while pair.finish_slow() > 0 {}
        pair.ended(detach).unwrap().unwrap();
        assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Diskless);
        pair.attach(1).unwrap();
        pair.assert_in_sync();
    }
}

#[test]
fn verify_and_repair_between_secondaries_takes_the_copy_that_is_named() {
    for (from, expected) in [(0, 2), (1, 2 ^ 0x10)] {
        let mut pair = pair();
        pair.command(0, Command::Secondary).unwrap();
        corrupt(&mut pair, 1, &[1]);
        let refused = pair.command(1, repairing(None)).unwrap_err();
        assert!(refused.detail()[0].contains("--from NODE"), "{refused:?}");
        pair.command(1, repairing(Some(from))).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[0].disk.0[BLOCK + 77], expected);
    }
    let mut pair = pair();
    let refused = pair.command(0, repairing(Some(1))).unwrap_err();
    assert!(refused.detail()[0].contains("is Primary"), "{refused:?}");
}

#[test]
fn only_the_part_that_is_asked_for_is_verified() {
    let mut pair = pair();
    corrupt(&mut pair, 1, &[9, 10, 20, 21]);
    let part = Command::Verify {
        volume: None,
        start_bytes: Some(10 * BLOCK as u64 + 512),
        stop_bytes: Some(20 * BLOCK as u64 + 512),
        repair: None,
    };
    pair.command(0, part).unwrap();
    assert_eq!(marked(&pair, 0), [10, 20]);
}

#[test]
fn a_verify_that_was_interrupted_goes_on_where_it_was() {
    let mut pair = pair();
    corrupt(&mut pair, 1, &[2]);
    // The second piece is not compared any more.
    pair.cut_at = Some(|m| matches!(m, Message::VerifyResult { range, .. } if range.offset > 0));
    pair.command(0, WHOLE).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].connection, ConnectionState::Connecting);
    pair.heal();
    pair.assert_in_sync();
    // Before the place that was reached, nothing is looked at again.
    corrupt(&mut pair, 1, &[3, 200]);
    pair.command(0, WHOLE).unwrap();
    assert_eq!(marked(&pair, 0), [200]);
    pair.command(0, WHOLE).unwrap();
    assert_eq!(marked(&pair, 0), [3, 200]);
}

#[test]
fn a_verify_is_refused_as_drbd_refuses_it() {
    let mut plain = Pair::new(Protocol::C);
    plain.up();
    plain.command(0, Command::Primary { force: true }).unwrap();
    let refused = plain.command(0, WHOLE).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "State change failed: (-14) Need a verify algorithm to start online verify"
    );
    assert!(refused.detail()[0].contains("verify-alg sha256"));
    let mut pair = pair();
    pair.command(1, Command::Detach).unwrap();
    let refused = pair.command(0, WHOLE).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-5) Can not resync without remote disk");
    pair.command(1, Command::Disconnect).unwrap();
    let refused = pair.command(0, WHOLE).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-15) State change requires a connection");
    assert_eq!(out_of_sync_blocks(&pair, 0), 0);
}

/// As the kernel module counts: what travels to compare copies is no traffic of theirs.
#[test]
fn only_data_is_counted_as_sent_and_received() {
    let mut pair = pair();
    let counted = |pair: &Pair| {
        [0, 1]
            .map(|n| (peer(pair, n).sent_bytes, peer(pair, n).received_bytes))
            .map(|(sent, got)| [sent, got])
    };
    let [[sent, got], [back, arrived]] = counted(&pair);
    assert_eq!((sent, got), (arrived, back));
    pair.command(0, WHOLE).unwrap();
    pair.settle();
    assert_eq!(counted(&pair), [[sent, 0], [0, arrived]]);
    pair.cut();
    pair.write(0, 0, 77);
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(counted(&pair), [[sent + 4096, 0], [0, arrived + 4096]], "the bitmap is no data");
    pair.command(0, Command::Detach).unwrap();
    assert_eq!(read(&mut pair, 0, 0), 77);
    assert_eq!(counted(&pair), [[sent + 4096, 4096], [4096, arrived + 4096]]);
}
