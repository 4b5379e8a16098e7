//! Crashes, and resyncs that are interrupted or written to: named after the tests of DRBD's suite that they follow.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command, Device};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::scene::{PROMOTE, PROTOCOLS, peer, read, roles, start_again, status, synced};

/// The nodes lose power together and come back one after the other, in both orders.
#[test]
fn both_crash() {
    for protocol in PROTOCOLS {
        for first in 0..2 {
            let mut pair = synced(protocol);
            pair.write(0, 0, 1);
            pair.client(0, ClientOp::Flush).unwrap();
            pair.crash(0);
            pair.crash(1);
            start_again(&mut pair, first);
            start_again(&mut pair, 1 - first);
            pair.assert_in_sync();
            pair.command(first, PROMOTE).unwrap();
            assert_eq!(read(&mut pair, first, 0), 1);
        }
    }
}

/// A Primary that wrote nothing dies, and its successor too: no split brain comes of it.
#[test]
fn lost_primary_after_no_writes() {
    let mut pair = synced(Protocol::C);
    pair.crash(0);
    pair.command(1, PROMOTE).unwrap();
    pair.crash(1);
    start_again(&mut pair, 0);
    start_again(&mut pair, 1);
    pair.assert_in_sync();
}

/// A Primary's crash under load costs what was in flight, in either direction.
#[test]
fn resync_after_primary_crash() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.cut_at = Some(|m| matches!(m, Message::Write { .. }));
        pair.write(0, 0, 1);
        pair.crash(0);
        start_again(&mut pair, 0);
        pair.heal();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 1, "the only copy of a completed write is at the old Primary");
    }
}

/// The source dies in the middle: its target is of no use to anybody, and is completed when the source returns.
#[test]
fn resync_interrupted_by_the_source() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..40).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.cut_at = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.command(1, Command::Connect).unwrap();
    pair.crash(0);
    assert_eq!(status(&pair, 1).disk, DiskState::Inconsistent);
    let refused = pair.command(1, PROMOTE).unwrap_err();
    assert_eq!(refused.exit_code(), 17);
    start_again(&mut pair, 0);
    pair.heal();
    pair.assert_in_sync();
}

/// The target dies in the middle: only what it lacks is sent again.
#[test]
fn resync_interrupted_by_the_target() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..40).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    pair.crash(1);
    start_again(&mut pair, 1);
    pair.heal();
    pair.assert_in_sync();
    let sent = peer(&pair, 1).received_bytes;
    assert!(sent <= 4096 * 40, "{sent} bytes were sent for 40 blocks");
}

/// Writing the same block again and again while the peer is away costs one block.
/// What a Secondary was sent is durable before it serves it as Primary: nothing marks it should its power fail.
#[test]
fn a_promoted_survivor_flushes_before_it_is_the_source() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.hold = Some(|m| matches!(m, Message::Barrier { .. }));
        pair.write(0, 4096, 1);
        pair.crash(0);
        pair.drop_held();
        pair.command(1, PROMOTE).unwrap();
        pair.slow_disk = Some((1, Device::Data));
        start_again(&mut pair, 0);
        assert_ne!(peer(&pair, 1).connection, ConnectionState::Connected);
        while pair.finish_slow() > 0 {}
        pair.assert_in_sync();
    }
}

#[test]
fn resync_without_replication() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..100).for_each(|version| pair.write(0, 4096 * 3, version));
    let received = peer(&pair, 1).received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(peer(&pair, 1).received_bytes - received, 4096);
}

/// What is zero is not sent as data.
#[test]
fn resync_discard() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 4096, 1);
    pair.command(1, Command::Disconnect).unwrap();
    let range = ByteRange::new(0, 64 << 10);
    pair.client(0, ClientOp::Zero { range, unmap: true, fua: false }).unwrap();
    let received = peer(&pair, 1).received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!((peer(&pair, 1).received_bytes - received, pair.nodes[1].disk.0[4096]), (0, 0));
}

/// A write to a block whose resync data is under way: the newest content wins on both nodes.
#[test]
fn write_during_resync() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 1);
        pair.hold = Some(|m| matches!(m, Message::ResyncData { .. } | Message::Write { .. }));
        pair.command(1, Command::Connect).unwrap();
        let write = pair.begin_write(0, 0, 2);
        pair.deliver();
        assert!(pair.answered(write).unwrap().is_ok());
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 2);
    }
}

/// Writes at the very end of a resync leave no block behind.
#[test]
fn brief_resync_oos() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        for round in 0..5_u8 {
            pair.command(1, Command::Disconnect).unwrap();
            pair.write(0, 0, round);
            pair.hold = Some(|m| matches!(m, Message::ResyncWritten { .. } | Message::ResyncDone));
            pair.command(1, Command::Connect).unwrap();
            let writes = [0, 4096].map(|offset| pair.begin_write(0, offset, round + 100));
            pair.deliver();
            assert!(writes.into_iter().all(|write| pair.answered(write).is_some()));
            pair.assert_in_sync();
        }
    }
}

/// The link breaks when nothing is left to be sent but the word that it is over: nothing is sent again.
#[test]
fn resync_missed_end_no_bits() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    let received = peer(&pair, 1).received_bytes;
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(peer(&pair, 1).received_bytes, received);
    assert_eq!(peer(&pair, 0).replication, ReplicationState::Established);
}

/// The source of a resync becomes the target of the next.
#[test]
fn resync_source_becomes_target() {
    let mut pair = synced(Protocol::C);
    for round in 1..=4_u8 {
        let source = usize::from(round % 2);
        if roles(&pair)[source] == Role::Secondary {
            pair.command(1 - source, Command::Secondary).unwrap();
            pair.command(source, PROMOTE).unwrap();
        }
        pair.command(1 - source, Command::Disconnect).unwrap();
        pair.write(source, 4096 * u64::from(round), round);
        pair.command(1 - source, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1 - source].disk.0[4096 * usize::from(round)], round);
    }
}

/// Again and again the link breaks in the middle of the same resync.
#[test]
fn resync_multiple_interrupt() {
    let steps: [fn(&Message) -> bool; 4] = [
        |m| matches!(m, Message::ResyncData { .. }),
        |m| matches!(m, Message::BitmapEnd),
        |m| matches!(m, Message::ResyncWritten { .. }),
        |m| matches!(m, Message::ResyncDone),
    ];
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    (0..100).for_each(|block| pair.write(0, 4096 * block, 1));
    pair.link_is_down = true;
    pair.command(1, Command::Connect).unwrap();
    for round in 0..12_u8 {
        pair.cut_at = Some(steps[usize::from(round) % steps.len()]);
        pair.heal();
        assert!(pair.link_is_down, "round {round} was not interrupted");
        pair.write(0, 4096 * u64::from(round), round + 2);
    }
    pair.heal();
    pair.assert_in_sync();
}

/// A Secondary that meets an idle Primary before it has its disk lacks nothing: the disk is UpToDate when it comes.
#[test]
fn connected_before_attached() {
    let mut pair = synced(Protocol::C);
    pair.crash(1);
    pair.command(1, Command::Connect).unwrap();
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::UpToDate);
    pair.assert_in_sync();
}
