//! Connecting and leaving, disks that come and go: named after the tests of DRBD's suite that they follow.

use tandem_core::config::{Options, Protocol};
use tandem_core::io::{ClientOp, Command};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::RequestId;
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::{PROMOTE, PROTOCOLS, connections, peer, read, start_again, status, synced};

#[test]
fn connect() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.write(0, 0, 1);
        pair.client(0, ClientOp::Flush).unwrap();
        pair.assert_in_sync();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
        assert_eq!((peer(&pair, 1).role, peer(&pair, 0).role), (Role::Primary, Role::Secondary));
    }
}

#[test]
fn add_connect_delete() {
    let mut pair = synced(Protocol::C);
    for n in [0, 1, 0, 1] {
        pair.command(n, Command::Disconnect).unwrap();
        // As with DRBD, it is what was wanted.
        pair.command(n, Command::Disconnect).unwrap();
        pair.command(n, Command::Connect).unwrap();
        let refused = pair.command(n, Command::Connect).unwrap_err();
        assert_eq!(refused.to_string(), "Failure: (125) Device has a net-config (use disconnect first)");
        pair.assert_in_sync();
    }
}

#[test]
fn connect_no_volumes() {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    for n in 0..2 {
        assert_eq!(status(&pair, n).disk, DiskState::Diskless);
        assert_eq!(pair.command(n, PROMOTE).unwrap_err().exit_code(), 17);
        pair.command(n, Command::Secondary).unwrap();
    }
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(peer(&pair, 0).connection, ConnectionState::StandAlone);
    assert_eq!(peer(&pair, 1).connection, ConnectionState::Connecting);
}

/// The link breaks at every step of coming together; nothing of the attempt lingers.
#[test]
fn connect_abort() {
    let steps: [fn(&Message) -> bool; 9] = [
        |m| matches!(m, Message::Options { .. }),
        |m| matches!(m, Message::Handshake(_)),
        |m| matches!(m, Message::BitmapChunk { .. }),
        |m| matches!(m, Message::BitmapEnd),
        |m| matches!(m, Message::ResyncRequest { .. }),
        |m| matches!(m, Message::ResyncData { .. }),
        |m| matches!(m, Message::ResyncWritten { .. }),
        |m| matches!(m, Message::ResyncDone),
        |m| matches!(m, Message::State { .. }),
    ];
    let mut pair = synced(Protocol::C);
    for (step, cut) in steps.into_iter().enumerate() {
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 4096 * step as u64, step as u8 + 1);
        pair.cut_at = Some(cut);
        pair.command(1, Command::Connect).unwrap();
        if pair.cut_at.take().is_none() {
            assert_eq!(connections(&pair), [ConnectionState::Connecting; 2], "step {step}");
        }
        pair.heal();
        pair.assert_in_sync();
        pair.write(0, 4096 * 20, step as u8);
        pair.assert_in_sync();
    }
}

/// The administrator changes his mind while the nodes are introducing themselves.
#[test]
fn del_path_during_connect() {
    let mut pair = synced(Protocol::C);
    for n in 0..2 {
        pair.command(0, Command::Disconnect).unwrap();
        pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
        pair.command(0, Command::Connect).unwrap();
        pair.command(n, Command::Disconnect).unwrap();
        assert_eq!(peer(&pair, n).connection, ConnectionState::StandAlone);
        pair.drop_held();
        pair.command(n, Command::Connect).unwrap();
        pair.assert_in_sync();
    }
}

/// Both leave at the same time; both learn of the other's leave too late.
#[test]
fn concurrent_disconnect() {
    let mut pair = synced(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::Goodbye { .. }));
    let leaving = [0, 1].map(|n| pair.begin_command(n, Command::Disconnect));
    pair.drop_held();
    for id in leaving {
        assert!(pair.ended(id).is_none_or(|ended| ended.is_ok()));
    }
    assert!(connections(&pair).contains(&ConnectionState::StandAlone));
    for n in 0..2 {
        // One of them may only have lost the other.
        let _ = pair.command(n, Command::Connect);
    }
    pair.assert_in_sync();
}

/// The disk comes and goes while the nodes stay connected.
#[test]
fn toggle_disk() {
    let mut pair = synced(Protocol::C);
    for round in 1..=10_u8 {
        pair.command(1, Command::Detach).unwrap();
        assert_eq!((status(&pair, 1).disk, peer(&pair, 0).disk), (DiskState::Diskless, DiskState::Diskless));
        pair.write(0, 4096 * u64::from(round), round);
        pair.attach(1).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[4096 * usize::from(round)], round);
    }
}

/// A disk that is known to be old is attached while the nodes are connected.
#[test]
fn attach_while_connected_not_uptodate() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.command(1, Command::Detach).unwrap();
    pair.write(0, 0, 1);
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    pair.write(0, 4096, 2);
    pair.attach(1).unwrap();
    pair.assert_in_sync();
    assert_eq!((pair.nodes[1].disk.0[0], pair.nodes[1].disk.0[4096]), (1, 2));
}

/// Everybody goes down and comes up in both orders; the data stays, nothing is resynced.
#[test]
fn down_and_up() {
    for first in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.write(0, 0, 7);
        pair.command(0, Command::Secondary).unwrap();
        for n in [first, 1 - first] {
            // The other one's leave may have been enough.
            let _ = pair.command(n, Command::Disconnect);
            pair.command(n, Command::Detach).unwrap();
            pair.crash(n);
        }
        for n in [1 - first, first] {
            start_again(&mut pair, n);
        }
        pair.assert_in_sync();
        assert_eq!([peer(&pair, 0).received_bytes, peer(&pair, 1).received_bytes], [0, 0]);
        pair.command(1, PROMOTE).unwrap();
        assert_eq!(read(&mut pair, 1, 0), 7);
    }
}

/// A fresh disk in the place of the old one is filled in full.
#[test]
fn recreate_node() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 4096 * 5, 5);
    pair.crash(1);
    pair.write(0, 4096 * 6, 6);
    pair.replace_disk(1, DISK_BYTES, 1);
    start_again(&mut pair, 1);
    pair.assert_in_sync();
    assert_eq!((pair.nodes[1].disk.0[4096 * 5], pair.nodes[1].disk.0[4096 * 6]), (5, 6));
}

/// Two disks that were made at the same time by two administrators are not taken for copies of each other.
#[test]
fn day0_uuid_diskful_primary() {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.nodes[n].disk.0[..4096].fill(n as u8 + 1);
        pair.attach(n).unwrap();
        pair.command(n, Command::Primary { force: true }).unwrap();
        pair.write(n, 8192, n as u8);
        pair.command(n, Command::Secondary).unwrap();
    }
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
    assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[1].disk.0[0]), (1, 2), "somebody's data is gone");
}

/// Data that was there before Tandem reaches the peer.
#[test]
fn pre_existing_data() {
    let mut pair = Pair::new(Protocol::C);
    pair.nodes[1].disk.0[4096..8192].fill(9);
    pair.attach(1).unwrap();
    pair.command(1, Command::Primary { force: true }).unwrap();
    pair.attach(0).unwrap();
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[4096], 9);
}

/// More writes than an epoch takes, all unanswered at once: every one of them completes.
#[test]
fn process_wakeup() {
    for protocol in PROTOCOLS {
        let mut pair = Pair::with_options(&Options { protocol, max_epoch_size: 20, ..Options::default() });
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.hold = Some(|m| {
            matches!(m, Message::WriteAck { .. } | Message::ReceiveAck { .. } | Message::BarrierAck { .. })
        });
        let writes: Vec<RequestId> =
            (0..300).map(|i| pair.begin_write(0, 4096 * (i % 100), i as u8)).collect();
        pair.deliver();
        assert!(writes.into_iter().all(|write| pair.answered(write).is_some_and(|done| done.is_ok())));
        pair.client(0, ClientOp::Flush).unwrap();
        pair.assert_in_sync();
    }
}

/// Both get their disks at the same moment while they are connected.
#[test]
fn attach_concurrent() {
    for newest in 0..2 {
        let mut pair = synced(Protocol::C);
        if newest == 1 {
            pair.command(0, Command::Secondary).unwrap();
            pair.command(1, PROMOTE).unwrap();
        }
        pair.command(1 - newest, Command::Disconnect).unwrap();
        pair.write(newest, 0, 3);
        pair.crash(0);
        pair.crash(1);
        for n in 0..2 {
            pair.command(n, Command::Connect).unwrap();
        }
        pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
        for n in 0..2 {
            pair.attach(n).unwrap();
        }
        pair.deliver();
        pair.assert_in_sync();
        assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[1].disk.0[0]), (3, 3));
    }
}
