//! A peer that cannot keep up: writes wait for it, or leave it behind.

use tandem_core::config::{CongestionOptions, OnCongestion, Options, Protocol};
use tandem_core::io::Command;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::wire::Message;

use crate::harness::{EXTENT_BYTES, Pair};

/// A pair of which node 0 is Primary; node 1 confirms nothing until [`Pair::deliver`]. Two blocks fill what it may be
/// sent unconfirmed.
fn slow_pair(protocol: Protocol, policy: OnCongestion) -> Pair {
    let congestion = CongestionOptions { policy, fill_bytes: 8192, extents: 1237, send_buffer_bytes: 8192 };
    let mut pair = Pair::with_options(&Options { protocol, congestion, ..Options::default() });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
    pair
}

/// Two writes are all that the peer may be sent; the third completes with what the peer is yet to be told, or to tell.
fn third_write_waits_until_delivery(pair: &mut Pair) {
    pair.write(0, 0, 1);
    pair.write(0, 4096, 2);
    let third = pair.begin_write(0, 8192, 3);
    assert!(!pair.completed(third));
    pair.deliver();
    assert!(pair.completed(third));
    pair.assert_in_sync();
}

fn replication(pair: &Pair) -> [ReplicationState; 2] {
    [0, 1].map(|n| pair.nodes[n].engine.status(pair.now).peers[0].replication)
}

#[test]
fn writes_wait_for_a_peer_that_confirms_nothing() {
    for (protocol, policy) in [
        (Protocol::A, OnCongestion::Block),
        (Protocol::B, OnCongestion::Block),
        (Protocol::B, OnCongestion::PullAhead),
    ] {
        let mut pair = slow_pair(protocol, policy);
        third_write_waits_until_delivery(&mut pair);
    }
}

#[test]
fn what_is_on_the_peers_disk_fills_no_buffer() {
    let mut pair = slow_pair(Protocol::C, OnCongestion::Block);
    for block in 0..8 {
        pair.write(0, block * 4096, 1);
    }
}

#[test]
fn the_primary_pulls_ahead_and_the_peer_catches_up() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::PullAhead);
    for block in 0..4 {
        pair.write(0, block * 4096, 7);
    }
    assert_eq!(replication(&pair), [ReplicationState::Ahead, ReplicationState::Behind]);
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Outdated);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 8192);
    assert_eq!([1, 3].map(|block| pair.nodes[1].disk.0[block * 4096]), [7, 0]);
    pair.deliver();
    pair.assert_in_sync();
}

#[test]
fn the_peers_disk_says_so_before_the_first_write_that_it_does_not_get() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::PullAhead);
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. } | Message::BehindAck { .. }));
    third_write_waits_until_delivery(&mut pair);
}

/// One stream may overtake the other: what the peer notes before that handshake, the handshake would take back.
#[test]
fn a_question_that_overtakes_the_handshake_counts_behind_it() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::PullAhead);
    pair.drop_held();
    pair.cut();
    pair.hold = Some(|m| match m {
        Message::Handshake(handshake) => handshake.role == Role::Primary,
        Message::Write { .. } | Message::Zero { .. } | Message::Barrier { .. } => true,
        _ => false,
    });
    pair.settle();
    third_write_waits_until_delivery(&mut pair);
}

#[test]
fn a_node_that_fell_behind_is_not_promoted_and_the_primary_returns_as_source() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::PullAhead);
    for block in 0..4 {
        pair.write(0, block * 4096, 7);
    }
    pair.crash(0);
    let refused = pair.command(1, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.exit_code(), 17);
    pair.crash(1);
    pair.attach(1).unwrap();
    pair.command(1, Command::Primary { force: false }).unwrap_err();
    pair.hold = None;
    pair.attach(0).unwrap();
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[3 * 4096], 7);
}

/// Writes that only the dead Primary has are not rolled back in silence.
#[test]
fn forcing_a_node_that_fell_behind_is_a_split_brain() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::PullAhead);
    for block in 0..4 {
        pair.write(0, block * 4096, 7);
    }
    pair.crash(0);
    pair.drop_held();
    pair.command(1, Command::Primary { force: true }).unwrap();
    pair.write(1, 0, 8);
    pair.attach(0).unwrap();
    pair.command(0, Command::Connect).unwrap();
    for n in 0..2 {
        let status = pair.nodes[n].engine.status(pair.now);
        assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("Split-Brain"));
    }
    assert_eq!((pair.nodes[0].disk.0[3 * 4096], pair.nodes[1].disk.0[0]), (7, 8));
}

#[test]
fn a_peer_that_keeps_the_activity_log_hot_is_left_behind() {
    let congestion =
        CongestionOptions { policy: OnCongestion::PullAhead, extents: 2, ..CongestionOptions::default() };
    let mut pair = Pair::with_options(&Options { protocol: Protocol::A, congestion, ..Options::default() });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
    for extent in 0..3 {
        pair.write(0, extent * EXTENT_BYTES, 7);
    }
    assert_eq!(replication(&pair)[0], ReplicationState::Ahead);
    pair.deliver();
    pair.assert_in_sync();
}

#[test]
fn a_congested_peer_is_disconnected_if_that_is_the_policy() {
    let mut pair = slow_pair(Protocol::A, OnCongestion::Disconnect);
    for block in 0..3 {
        pair.write(0, block * 4096, 7);
    }
    let status = pair.nodes[0].engine.status(pair.now);
    assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
    assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("on-congestion"));
    pair.hold = None;
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
}
