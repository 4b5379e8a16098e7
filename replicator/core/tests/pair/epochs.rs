//! Epochs: when one ends, what a Secondary makes of it, and what is proved by its acknowledgement.

use tandem_core::Input;
use tandem_core::config::{Options, Protocol, WriteOrdering};
use tandem_core::io::{ClientOp, Command, Device};
use tandem_core::state::{ConnectionState, ReplicationState};
use tandem_core::units::{Epoch, NodeId, Timestamp};
use tandem_core::wire::Message;

use crate::harness::Pair;

/// A pair in sync, node 0 Primary.
fn pair(options: Options) -> Pair {
    let mut pair = Pair::with_options(&options);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.barriers.clear();
    pair.data_flushes = [0; 2];
    pair
}

fn with(protocol: Protocol, write_ordering: WriteOrdering) -> Options {
    Options { protocol, write_ordering, ..Options::default() }
}

#[test]
fn an_epoch_ends_when_a_write_of_it_completes() {
    let mut pair = pair(with(Protocol::A, WriteOrdering::Flush));
    pair.slow_disk = Some((0, Device::Data));
    for block in 0..3 {
        pair.begin_write(0, block * 4096, 1);
    }
    assert_eq!(pair.barriers, [], "nothing depends on a write that has not completed");
    pair.finish_slow();
    assert_eq!(pair.barriers, [(3, false)]);
    pair.begin_write(0, 0, 2);
    pair.finish_slow();
    assert_eq!(pair.barriers, [(3, false), (1, false)]);
}

#[test]
fn an_epoch_has_no_more_writes_than_max_epoch_size() {
    let mut pair = pair(Options { max_epoch_size: 2, ..with(Protocol::A, WriteOrdering::Flush) });
    pair.slow_disk = Some((0, Device::Data));
    for block in 0..5 {
        pair.begin_write(0, block * 4096, 1);
    }
    assert_eq!(pair.barriers, [(2, false), (2, false)]);
}

#[test]
fn a_flush_ends_the_epoch_and_asks_the_peer_for_durability() {
    for (protocol, asks) in [(Protocol::A, false), (Protocol::B, true), (Protocol::C, true)] {
        let mut pair = pair(with(protocol, WriteOrdering::Drain));
        pair.slow_disk = Some((0, Device::Data));
        pair.begin_write(0, 0, 1);
        pair.slow_disk = None;
        pair.client(0, ClientOp::Flush).unwrap();
        assert_eq!(pair.barriers, [(1, asks)]);
        assert_eq!(pair.data_flushes[1], u32::from(asks));
    }
}

#[test]
fn a_secondary_waits_between_epochs_and_flushes_if_it_shall() {
    for (ordering, side_by_side, flushes) in
        [(WriteOrdering::Flush, 1, 2), (WriteOrdering::Drain, 1, 0), (WriteOrdering::None, 2, 0)]
    {
        let mut pair = pair(with(Protocol::A, ordering));
        pair.slow_disk = Some((1, Device::Data));
        pair.write(0, 4096, 2);
        pair.write(0, 8192, 3);
        assert_eq!(pair.barriers, [(1, false), (1, false)]);
        assert_eq!(pair.finish_slow(), side_by_side, "{ordering:?}");
        while pair.finish_slow() > 0 {}
        assert_eq!(pair.data_flushes[1], flushes, "{ordering:?}");
        pair.slow_disk = None;
        pair.assert_in_sync();
    }
}

#[test]
fn an_acknowledgement_that_counts_wrong_ends_the_connection() {
    let mut pair = pair(with(Protocol::C, WriteOrdering::Flush));
    pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
    pair.write(0, 4096, 2);
    let epoch = (0..20).map(Epoch).find(|epoch| {
        let message = Message::BarrierAck { epoch: *epoch, writes: 99 };
        pair.nodes[0].engine.handle(pair.now, Input::PeerMessage { peer: NodeId(1), message });
        pair.nodes[0].engine.status(pair.now).peers[0].connection != ConnectionState::Connected
    });
    assert!(epoch.is_some());
    pair.drop_held();
    pair.settle();
    pair.assert_in_sync();
}

#[test]
fn what_no_barrier_proves_is_marked_when_the_peer_is_lost() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = pair(with(protocol, WriteOrdering::Flush));
        pair.hold = Some(|m| matches!(m, Message::BarrierAck { .. }));
        pair.write(0, 4096, 2);
        pair.link_is_down = true;
        pair.cut();
        pair.settle();
        assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 4096);
        pair.drop_held();
        pair.heal();
        pair.assert_in_sync();
    }
}

#[test]
fn a_slow_disk_here_is_no_fault_of_the_peer() {
    let mut pair = pair(with(Protocol::C, WriteOrdering::Flush));
    pair.slow_disk = Some((0, Device::Data));
    let write = pair.begin_write(0, 4096, 2);
    let patience = Timestamp(0).plus_ms(200_000);
    pair.run_until(|p| p.now > patience);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].replication, ReplicationState::Established);
    pair.finish_slow();
    assert!(pair.completed(write));
}
