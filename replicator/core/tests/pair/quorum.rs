//! Quorum of two nodes: who has it, what a Primary without it does, and what brings it back.

use tandem_core::config::{Fencing, OnNoQuorum, Options, Protocol, Quorum, Votes};
use tandem_core::handler::Handler::{FencePeer, QuorumLost, UnfencePeer};
use tandem_core::handler::HandlerOutcome::Exited;
use tandem_core::io::{ClientError, ClientOp, Command, Device};
use tandem_core::state::{DiskState, Role};
use tandem_core::units::{ByteRange, RequestId};
use tandem_core::wire::Message;

use crate::harness::{EXTENT_BYTES, Pair};
use crate::scene::{PROMOTE, peer, read, roles, start_again, status};

fn pair_with(votes: Votes, on_loss: OnNoQuorum, fencing: Fencing) -> Pair {
    let quorum = Quorum { votes, on_loss, ..Quorum::default() };
    let options = Options { quorum, fencing, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[FencePeer, UnfencePeer, QuorumLost]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.assert_in_sync();
    pair
}

/// In sync, node 0 Primary and written to.
fn synced(votes: Votes, on_loss: OnNoQuorum) -> Pair {
    pair_with(votes, on_loss, Fencing::DontCare)
}

/// The link is cut and stays so.
fn part(pair: &mut Pair) {
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
}

/// The same, and the acknowledgement of a write is lost with it.
fn part_in_mid_write(pair: &mut Pair) -> RequestId {
    pair.hold = Some(|m| matches!(m, Message::WriteAck { .. }));
    let write = pair.begin_write(0, 4096, 2);
    pair.drop_held();
    part(pair);
    write
}

fn expect_no_quorum(pair: &mut Pair, n: usize, force: bool) {
    let refused = pair.command(n, Command::Primary { force }).unwrap_err();
    assert_eq!(
        (refused.to_string().as_str(), refused.exit_code()),
        ("State change failed: (-25) No quorum", 11)
    );
}

/// DRBD's quorum and quorum-suspended tests, with two nodes.
#[test]
fn a_primary_that_loses_its_peer_is_frozen_until_it_is_back() {
    for votes in [Votes::Majority, Votes::All, Votes::Count(2)] {
        let mut pair = synced(votes, OnNoQuorum::SuspendIo);
        let before = status(&pair, 0).generations.current;
        part(&mut pair);
        assert_eq!(status(&pair, 0).suspended.to_string(), "quorum");
        assert_eq!([0, 1].map(|n| status(&pair, n).quorum), [false; 2]);
        assert_eq!((pair.running(0), pair.running(1)), (vec![QuorumLost], vec![]));
        let write = pair.begin_write(0, 4096, 2);
        let flush = pair.begin_client(0, ClientOp::Flush);
        let wanted = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
        assert!(!pair.completed(write));
        expect_no_quorum(&mut pair, 1, false);
        expect_no_quorum(&mut pair, 1, true);
        pair.heal();
        assert!(pair.completed(write) && pair.answered(flush).is_some() && pair.answered(wanted).is_some());
        assert!(status(&pair, 0).quorum && !status(&pair, 0).suspended.any());
        assert_eq!(status(&pair, 0).generations.current, before, "nobody has gone on alone");
        pair.assert_in_sync();
    }
}

/// DRBD's quorum-lost-uuid: what was under way is not acknowledged, and no generation begins for it.
#[test]
fn what_is_under_way_when_quorum_is_lost_waits() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    let before = status(&pair, 0).generations.current;
    let write = part_in_mid_write(&mut pair);
    assert!(!pair.completed(write));
    assert_eq!(status(&pair, 0).generations.current, before);
    pair.heal();
    assert!(pair.completed(write));
    pair.assert_in_sync();
    assert_eq!(read(&mut pair, 0, 4096), 2);
}

#[test]
fn requests_fail_without_quorum_where_they_are_to() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::IoError);
    let before = status(&pair, 0).generations.current;
    let write = part_in_mid_write(&mut pair);
    assert_eq!(pair.answered(write), Some(Err(ClientError::Io)));
    assert!(!status(&pair, 0).suspended.any() && !status(&pair, 0).quorum);
    assert_eq!(pair.client(0, ClientOp::Read(ByteRange::new(0, 4096))), Err(ClientError::Io));
    assert_eq!(pair.client(0, ClientOp::Flush), Err(ClientError::Io));
    let write = pair.begin_write(0, 8192, 3);
    assert_eq!(pair.answered(write), Some(Err(ClientError::Io)));
    assert_eq!(status(&pair, 0).generations.current, before);
    pair.heal();
    pair.write(0, 8192, 4);
    pair.assert_in_sync();
}

/// The last man standing: who has left in good order does not count.
#[test]
fn a_peer_that_has_left_in_good_order_is_not_missed() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!((status(&pair, 1).disk, peer(&pair, 0).disk), (DiskState::Outdated, DiskState::Outdated));
    assert!(status(&pair, 0).quorum && !status(&pair, 1).quorum);
    pair.write(0, 4096, 2);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(0, PROMOTE).unwrap();
    expect_no_quorum(&mut pair, 1, false);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
}

#[test]
fn a_secondary_that_leaves_another_lets_it_go_on_and_does_not_itself() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Outdated);
    expect_no_quorum(&mut pair, 0, false);
    pair.command(1, PROMOTE).unwrap();
    pair.write(1, 4096, 2);
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
}

/// DRBD's quorum-isolate-primary: it has its peer grow old before it leaves.
#[test]
fn a_primary_that_leaves_keeps_quorum() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    assert!(status(&pair, 0).quorum);
    pair.write(0, 4096, 2);
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
}

/// The peer lacks what is on its way, and says so: nobody has to be fenced, and nobody to be asked.
#[test]
fn a_primary_that_leaves_the_target_of_a_resync_goes_on() {
    let on_its_way: [fn(&Message) -> bool; 2] =
        [|m| matches!(m, Message::ResyncData { .. }), |m| matches!(m, Message::ResyncDone)];
    let options = [(Votes::Majority, Fencing::DontCare), (Votes::Off, Fencing::ResourceAndStonith)];
    for (i, held) in on_its_way.into_iter().chain(on_its_way).enumerate() {
        let (votes, fencing) = options[i / 2];
        let mut pair = pair_with(votes, OnNoQuorum::SuspendIo, fencing);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 4096, 2);
        pair.hold = Some(held);
        pair.command(1, Command::Connect).unwrap();
        assert!(peer(&pair, 0).replication.is_source());
        pair.command(0, Command::Disconnect).unwrap();
        pair.drop_held();
        assert!(status(&pair, 1).disk <= DiskState::Outdated);
        assert!(status(&pair, 0).quorum && pair.running(0).is_empty());
        pair.write(0, 8192, 3);
        pair.command(0, Command::Connect).unwrap();
        pair.assert_in_sync();
    }
}

#[test]
fn a_peer_that_was_never_met_counts() {
    let quorum = Quorum { votes: Votes::Majority, ..Quorum::default() };
    let mut pair = Pair::with_options(&Options { quorum, ..Options::default() });
    pair.attach(0).unwrap();
    expect_no_quorum(&mut pair, 0, true);
    pair.attach(1).unwrap();
    pair.command(0, Command::Connect).unwrap();
    pair.command(1, Command::Connect).unwrap();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
}

#[test]
fn one_vote_is_enough_where_that_is_asked_for() {
    let mut pair = synced(Votes::Count(1), OnNoQuorum::SuspendIo);
    part(&mut pair);
    assert!(status(&pair, 0).quorum && pair.running(0).is_empty());
    pair.write(0, 4096, 2);
    pair.heal();
    pair.assert_in_sync();
}

/// With both, the fenced peer does not count any more.
#[test]
fn fencing_gives_quorum_back() {
    let mut pair = pair_with(Votes::Majority, OnNoQuorum::SuspendIo, Fencing::ResourceAndStonith);
    part(&mut pair);
    assert_eq!(status(&pair, 0).suspended.to_string(), "fencing,quorum");
    let before = status(&pair, 0).generations.current;
    let write = pair.begin_write(0, 4096, 2);
    pair.end_handler(0, FencePeer, Exited(7));
    assert!(pair.completed(write) && status(&pair, 0).quorum);
    assert_ne!(status(&pair, 0).generations.current, before);
    pair.heal();
    pair.assert_in_sync();
}

/// A redundancy of two: the resync target does not count until it is complete.
#[test]
fn minimum_redundancy_counts_good_copies() {
    let quorum = Quorum { minimum_redundancy: Votes::Count(2), ..Quorum::default() };
    let mut pair = Pair::with_options(&Options { quorum, ..Options::default() });
    pair.up();
    expect_no_quorum(&mut pair, 0, true);
    pair.command(0, Command::NewCurrentUuid { clear_bitmap: true }).unwrap();
    pair.command(0, PROMOTE).unwrap();
    pair.write(0, 0, 1);
    part(&mut pair);
    assert_eq!(status(&pair, 0).suspended.to_string(), "quorum");
    pair.heal();
    assert!(status(&pair, 0).quorum);
}

/// Without a disk of its own it works through its peer, and with it has its quorum.
#[test]
fn a_primary_without_a_disk_has_its_peers_quorum() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    pair.command(0, Command::Detach).unwrap();
    assert!(status(&pair, 0).quorum);
    pair.write(0, 4096, 2);
    part(&mut pair);
    assert!(!status(&pair, 0).quorum);
    pair.heal();
    assert_eq!(read(&mut pair, 0, 4096), 2);
}

/// A Primary that dies frozen has nothing that the other lacks, and neither may be promoted before both have met.
#[test]
fn a_frozen_primary_dies() {
    let mut pair = synced(Votes::Majority, OnNoQuorum::SuspendIo);
    part(&mut pair);
    pair.begin_write(0, 4096, 2);
    pair.crash(0);
    start_again(&mut pair, 0);
    (0..2).for_each(|n| expect_no_quorum(&mut pair, n, false));
    pair.heal();
    pair.assert_in_sync();
    pair.command(1, PROMOTE).unwrap();
    assert_eq!(roles(&pair)[1], Role::Primary);
}

/// Simulator: seed 2189 A. A write that was let in with quorum begins without: the peer is there, and has not yet noted that
/// it lacks data. It fails, and with it its epoch ends, or the peer would never say that it is durable.
#[test]
fn a_write_that_fails_ends_its_epoch() {
    let quorum = Quorum { votes: Votes::Majority, on_loss: OnNoQuorum::IoError, ..Quorum::default() };
    let options = Options { protocol: Protocol::A, quorum, al_extents: 7, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    // Every extent of the activity log is in use, and one more is wanted.
    pair.slow_disk = Some((0, Device::Data));
    let extents = u64::from(options.al_extents);
    let writes: Vec<RequestId> = (0..=extents).map(|n| pair.begin_write(0, n * EXTENT_BYTES, 2)).collect();
    // The peer may have our handshake, and is lost again.
    pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
    pair.command(1, Command::Connect).unwrap();
    pair.drop_held();
    part(&mut pair);
    assert!(!status(&pair, 0).quorum);
    pair.hold = Some(|m| matches!(m, Message::ResyncReady));
    pair.heal();
    assert!(peer(&pair, 0).replication.is_source() && !status(&pair, 0).quorum);
    pair.barriers.clear();
    pair.slow_disk = None;
    while pair.finish_slow() > 0 {}
    assert!(writes.into_iter().all(|write| pair.answered(write) == Some(Err(ClientError::Io))));
    assert_eq!(pair.barriers, [(1, false)], "the last write was sent, and its epoch has ended");
    pair.deliver();
    assert!(status(&pair, 0).quorum);
}

/// A Primary without a disk meets its peer again, whose data is all that there is: with fencing, that one was not sure of it.
#[test]
fn a_primary_without_a_disk_is_served_again() {
    for fencing in [Fencing::DontCare, Fencing::ResourceOnly, Fencing::ResourceAndStonith] {
        for (votes, restarts) in [(Votes::Off, false), (Votes::Off, true), (Votes::Majority, false)] {
            let mut pair = pair_with(votes, OnNoQuorum::SuspendIo, fencing);
            pair.command(0, Command::Detach).unwrap();
            pair.write(0, 4096, 2);
            pair.client(0, ClientOp::Flush).unwrap();
            part(&mut pair);
            if restarts {
                pair.crash(1);
                pair.attach(1).unwrap();
                pair.command(1, Command::Connect).unwrap();
            }
            pair.heal();
            assert_eq!(status(&pair, 1).disk, DiskState::UpToDate, "{fencing:?} {votes:?} {restarts}");
            pair.write(0, 8192, 3);
            assert_eq!(read(&mut pair, 0, 4096), 2);
        }
    }
}
