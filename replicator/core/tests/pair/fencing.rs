//! Fencing: what a lost peer requires, what each exit code of fence-peer means, and what is frozen meanwhile.

use tandem_core::config::Fencing::{self, ResourceAndStonith, ResourceOnly};
use tandem_core::config::{Options, ResyncOptions};
use tandem_core::handler::Handler::{BeforeResyncTarget, FencePeer, UnfencePeer};
use tandem_core::handler::HandlerOutcome::{self, Exited, NotStarted, TimedOut};
use tandem_core::io::{ClientError, ClientOp, Command, Device, Payload};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::status::Suspended;
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::harness::{EXTENT_BYTES, Pair};
use crate::scene::{connections, peer, read, status};

const PRIMARY: Command = Command::Primary { force: false };

/// In sync, node 0 Primary and written to.
fn synced(fencing: Fencing) -> Pair {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let options = Options { fencing, resync, al_extents: 7, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[FencePeer, UnfencePeer]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.assert_in_sync();
    pair
}

/// The link is cut and stays so.
fn part(pair: &mut Pair) {
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
}

fn generation(pair: &Pair, n: usize) -> u64 {
    status(pair, n).generations.current
}

fn is_frozen(pair: &Pair) -> bool {
    status(pair, 0).suspended.fencing
}

const FAILURES: [HandlerOutcome; 5] = [Exited(0), Exited(1), Exited(20), NotStarted, TimedOut];

#[test]
fn fencing_with_stonith_freezes_until_the_peer_is_fenced() {
    for code in [3, 4, 5, 7] {
        let mut pair = synced(ResourceAndStonith);
        part(&mut pair);
        assert_eq!((pair.running(0), pair.running(1)), (vec![FencePeer], vec![]));
        assert_eq!(status(&pair, 0).suspended.to_string(), "fencing");
        assert_eq!(status(&pair, 1).disk, DiskState::Consistent);
        let before = generation(&pair, 0);
        let write = pair.begin_write(0, 4096, 2);
        let flush = pair.begin_client(0, ClientOp::Flush);
        let read = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 512)));
        assert!(!pair.completed(write));
        assert_eq!(generation(&pair, 0), before);
        pair.end_handler(0, FencePeer, Exited(code));
        assert!(pair.completed(write), "exit code {code}");
        assert!(pair.answered(flush).is_some() && pair.answered(read).is_some());
        assert!(!is_frozen(&pair));
        assert_ne!(generation(&pair, 0), before);
        assert!(peer(&pair, 0).disk <= DiskState::Outdated);
        pair.heal();
        pair.assert_in_sync();
        assert_eq!(pair.running(0), [UnfencePeer]);
    }
}

/// DRBD's suspend-io: what the handler does not succeed in stays frozen, and no generation begins.
#[test]
fn suspend_io_while_the_handler_fails() {
    for outcome in FAILURES.into_iter().chain([Exited(6)]) {
        let mut pair = synced(ResourceAndStonith);
        part(&mut pair);
        let before = generation(&pair, 0);
        let write = pair.begin_write(0, 4096, 2);
        pair.end_handler(0, FencePeer, outcome);
        assert!(is_frozen(&pair), "{outcome}");
        assert!(!pair.completed(write));
        assert_eq!((generation(&pair, 0), peer(&pair, 0).disk), (before, DiskState::DUnknown));
        pair.heal();
        assert!(!is_frozen(&pair));
        assert!(pair.completed(write));
        pair.assert_in_sync();
        assert_eq!(generation(&pair, 0), before);
        assert_eq!(pair.running(0), []);
    }
}

/// What was let in before the peer was lost begins, frozen or not: the nodes meet when it is marked.
#[test]
fn a_write_that_waited_for_the_activity_log_is_marked_before_the_nodes_meet() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 2);
    pair.hold = Some(|m| matches!(m, Message::ResyncDone | Message::BarrierAck { .. }));
    pair.command(1, Command::Connect).unwrap();
    // The epoch that holds every extent of the activity log lets go of them while the end of the resync is written down.
    let extents = pair.options.al_extents as u64;
    for extent in 0..extents {
        pair.write(0, extent * EXTENT_BYTES, 3);
    }
    pair.begin_write(0, extents * EXTENT_BYTES, 4);
    pair.begin_write(0, 4096, 5);
    pair.slow_disk = Some((0, Device::Meta));
    pair.deliver();
    assert_eq!(peer(&pair, 0).out_of_sync_bytes, 0);
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(1));
    pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
    pair.heal();
    while pair.finish_slow() > 0 {}
    pair.slow_disk = None;
    pair.deliver();
    pair.assert_in_sync();
}

/// Simulator: seed 63441 C. The Primary's disk is attached under its clients, and the resync ends when the peer has gone.
#[test]
fn a_primary_whose_data_becomes_good_without_its_peer_fences_it() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.write(0, 4096, 2);
    pair.hold = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Inconsistent);
    pair.slow_disk = Some((0, Device::Meta));
    pair.deliver();
    part(&mut pair);
    assert_eq!((pair.running(0), is_frozen(&pair)), (vec![], false));
    while pair.finish_slow() > 0 {}
    assert_eq!(status(&pair, 0).disk, DiskState::UpToDate);
    assert_eq!((pair.running(0), is_frozen(&pair)), (vec![FencePeer], true));
}

/// Frozen, it has begun no generation that would tell the peer's copy from what its clients have seen.
#[test]
fn what_a_frozen_primary_alone_had_is_nowhere_when_its_disk_is_given_up() {
    let mut pair = synced(ResourceAndStonith);
    pair.hold = Some(|m| matches!(m, Message::Barrier { .. }));
    pair.write(0, 4096, 2);
    pair.crash(1);
    pair.drop_held();
    // It was in the disk's cache.
    pair.nodes[1].disk.0[4096..8192].fill(0);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.attach(1).unwrap();
    pair.command(1, Command::Connect).unwrap();
    let reason = peer(&pair, 0).standalone_reason.unwrap_or_default();
    assert!(reason.contains("does not have the data that this diskless Primary has exposed"), "{reason}");
}

#[test]
fn resume_io_thaws_without_fencing() {
    let mut pair = synced(ResourceAndStonith);
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(1));
    let write = pair.begin_write(0, 4096, 2);
    let before = generation(&pair, 0);
    pair.command(0, Command::ResumeIo).unwrap();
    assert!(pair.completed(write));
    assert_ne!(generation(&pair, 0), before);
    pair.heal();
    pair.assert_in_sync();
}

/// What was under way when the peer was lost may be on its disk or not: it must not complete before that is settled.
#[test]
fn a_write_in_flight_is_frozen_as_well() {
    for fenced in [true, false] {
        let mut pair = synced(ResourceAndStonith);
        pair.cut_at = Some(|m| matches!(m, Message::WriteAck { .. }));
        let write = pair.begin_write(0, 4096, 2);
        assert!(!pair.completed(write));
        let before = generation(&pair, 0);
        if fenced {
            pair.end_handler(0, FencePeer, Exited(4));
        } else {
            pair.heal();
        }
        assert!(pair.completed(write));
        assert_eq!(generation(&pair, 0) != before, fenced);
        pair.heal();
        pair.assert_in_sync();
    }
}

/// The peer is back, but could crash and not know that it lacks data: nothing completes yet.
#[test]
fn a_frozen_primary_waits_until_its_peer_has_noted_that_it_lacks_data() {
    let mut pair = synced(ResourceAndStonith);
    pair.cut_at = Some(|m| matches!(m, Message::WriteAck { .. }));
    let write = pair.begin_write(0, 4096, 2);
    pair.hold = Some(|m| matches!(m, Message::ResyncReady | Message::ResyncRequest { .. }));
    pair.heal();
    assert!(!pair.completed(write));
    assert!(is_frozen(&pair));
    pair.deliver();
    assert!(pair.completed(write));
    pair.assert_in_sync();
}

#[test]
fn fencing_with_resource_only_goes_on() {
    for code in [1, 3, 4, 5, 6, 7] {
        let mut pair = synced(ResourceOnly);
        part(&mut pair);
        pair.write(0, 4096, 2);
        pair.end_handler(0, FencePeer, Exited(code));
        assert_eq!(status(&pair, 0).role, Role::Primary);
        let known = if [1, 6].contains(&code) { DiskState::DUnknown } else { peer(&pair, 0).disk };
        assert_eq!((peer(&pair, 0).disk, known <= DiskState::Outdated), (known, ![1, 6].contains(&code)));
        pair.heal();
        pair.assert_in_sync();
    }
}

/// A node alone is promoted only if its peer is known not to go on.
#[test]
fn promotion_of_a_node_that_is_alone() {
    for fencing in [ResourceOnly, ResourceAndStonith] {
        for (outcome, code) in [
            (Exited(3), 0),
            (Exited(4), 0),
            (Exited(5), 17),
            (Exited(6), 17),
            (Exited(7), 0),
            (Exited(1), 17),
            (NotStarted, 17),
            (TimedOut, 17),
        ] {
            let mut pair = synced(fencing);
            pair.link_is_down = true;
            pair.crash(0);
            let promotion = pair.begin_command(1, PRIMARY);
            assert_eq!(pair.running(1), [FencePeer]);
            assert!(pair.ended(promotion).is_none());
            pair.end_handler(1, FencePeer, outcome);
            let result = pair.ended(promotion).unwrap();
            assert_eq!(result.as_ref().map_or_else(|e| e.exit_code(), |()| 0), code, "{outcome}: {result:?}");
            let disk = match outcome {
                _ if code == 0 => DiskState::UpToDate,
                Exited(6) => DiskState::Outdated,
                _ => DiskState::Consistent,
            };
            assert_eq!(status(&pair, 1).disk, disk);
            if code == 0 {
                assert_eq!(status(&pair, 1).suspended, Suspended::default());
                pair.write(1, 8192, 3);
            }
            pair.attach(0).unwrap();
            pair.command(0, Command::Connect).unwrap();
            pair.heal();
            pair.assert_in_sync();
        }
    }
}

#[test]
fn a_forced_promotion_is_a_split_brain_situation() {
    let mut pair = synced(ResourceAndStonith);
    pair.link_is_down = true;
    pair.crash(0);
    let promotion = pair.begin_command(1, Command::Primary { force: true });
    pair.end_handler(1, FencePeer, Exited(1));
    assert_eq!(pair.ended(promotion), Some(Ok(())));
    assert_eq!((status(&pair, 1).disk, peer(&pair, 1).disk), (DiskState::UpToDate, DiskState::Outdated));
    pair.write(1, 4096, 3);
}

#[test]
fn the_outcome_of_fencing_means_nothing_once_the_peer_is_back() {
    let mut pair = synced(ResourceAndStonith);
    part(&mut pair);
    pair.heal();
    pair.assert_in_sync();
    pair.end_handler(0, FencePeer, Exited(7));
    assert_eq!(peer(&pair, 0).disk, DiskState::UpToDate);
    // What it did is undone; and not while the peer is fenced anew.
    assert_eq!(pair.running(0), [UnfencePeer]);
    part(&mut pair);
    assert!(is_frozen(&pair));
    assert_eq!(pair.running(0), [UnfencePeer]);
    pair.end_handler(0, UnfencePeer, Exited(0));
    assert_eq!(pair.running(0), [FencePeer]);
}

/// While the handler runs, the peer comes and goes: the handler is run again.
#[test]
fn a_peer_that_came_and_went_is_fenced_anew() {
    let mut pair = synced(ResourceAndStonith);
    part(&mut pair);
    pair.heal();
    part(&mut pair);
    assert_eq!(pair.running(0), [FencePeer]);
    pair.end_handler(0, FencePeer, Exited(4));
    assert!(is_frozen(&pair));
    assert_eq!(pair.running(0), [FencePeer]);
    pair.end_handler(0, FencePeer, Exited(4));
    assert!(!is_frozen(&pair));
}

/// What is known of the peer is on disk, until it is met.
#[test]
fn a_node_that_starts_alone_is_consistent_unless_its_peer_is_known_to_be_outdated() {
    let mut pair = synced(ResourceOnly);
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(1));
    pair.crash(0);
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Consistent);
    pair.command(0, Command::Connect).unwrap();
    let promotion = pair.begin_command(0, PRIMARY);
    pair.end_handler(0, FencePeer, Exited(4));
    assert_eq!(pair.ended(promotion), Some(Ok(())));
    pair.crash(0);
    pair.attach(0).unwrap();
    assert_eq!((status(&pair, 0).disk, peer(&pair, 0).disk), (DiskState::UpToDate, DiskState::Outdated));
    pair.command(0, PRIMARY).unwrap();
    pair.command(0, Command::Connect).unwrap();
    pair.heal();
    pair.assert_in_sync();
    pair.link_is_down = true;
    pair.crash(0);
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Consistent);
}

#[test]
fn unfence_peer_is_run_again_until_it_has_succeeded() {
    let mut pair = synced(ResourceAndStonith);
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(7));
    pair.heal();
    pair.end_handler(0, UnfencePeer, Exited(1));
    assert_eq!(pair.running(0), []);
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(1));
    pair.heal();
    pair.end_handler(0, UnfencePeer, Exited(0));
    part(&mut pair);
    pair.end_handler(0, FencePeer, Exited(1));
    pair.heal();
    assert_eq!(pair.running(0), []);
}

// Leaving on purpose.

#[test]
fn a_primary_that_leaves_has_its_peer_outdate_itself() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::StandAlone, ConnectionState::Connecting]);
    assert_eq!((peer(&pair, 0).disk, status(&pair, 1).disk), (DiskState::Outdated, DiskState::Outdated));
    assert_eq!(pair.running(0), []);
    pair.write(0, 4096, 2);
    pair.crash(1);
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    assert_eq!(pair.command(1, PRIMARY).unwrap_err().exit_code(), 17);
    pair.command(1, Command::Connect).unwrap();
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
}

#[test]
fn a_secondary_that_leaves_is_not_fenced() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!((peer(&pair, 0).disk, status(&pair, 1).disk), (DiskState::Outdated, DiskState::Outdated));
    assert_eq!((pair.running(0), is_frozen(&pair)), (vec![], false));
    pair.write(0, 4096, 2);
}

/// Simulator: seeds 41931 C, 199430 C, 201345 B. A handler refuses the resync of a Primary's disk: it is old, and stays Primary.
#[test]
fn a_primary_that_leaves_with_old_data_is_fenced_before_its_peer_is_promoted() {
    let options = Options { fencing: ResourceAndStonith, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[FencePeer, BeforeResyncTarget]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.end_handler(1, BeforeResyncTarget, Exited(0));
    pair.command(0, Command::Detach).unwrap();
    pair.write(0, 4096, 2);
    pair.attach(0).unwrap();
    pair.end_handler(0, BeforeResyncTarget, Exited(1));
    assert_eq!((status(&pair, 0).disk, status(&pair, 0).role), (DiskState::Outdated, Role::Primary));
    assert_only_promoted_when_fenced(&mut pair);
}

/// Simulator: seed 143548 B. The Primary's disk is back, and what it lacks comes back when the Primary has just left.
#[test]
fn a_primary_that_leaves_while_its_peer_attaches_is_fenced_before_that_is_promoted() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.write(0, 4096, 2);
    pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
    pair.attach(0).unwrap();
    pair.command(1, Command::ForceDetach).unwrap();
    pair.deliver();
    assert_eq!((status(&pair, 0).disk, peer(&pair, 0).disk), (DiskState::Outdated, DiskState::Diskless));
    pair.slow_disk = Some((1, Device::Meta));
    let attach = pair.begin_attach(1);
    pair.command(0, Command::Disconnect).unwrap();
    while pair.finish_slow() > 0 {}
    pair.slow_disk = None;
    assert_eq!(pair.ended(attach), Some(Ok(())));
    assert_only_promoted_when_fenced(&mut pair);
}

/// Node 0 is Primary and has left; its peer does not take its place unasked.
fn assert_only_promoted_when_fenced(pair: &mut Pair) {
    assert_eq!((status(pair, 1).disk, peer(pair, 1).disk), (DiskState::Consistent, DiskState::DUnknown));
    for (outcome, code) in [(Exited(1), 17), (Exited(7), 0)] {
        let promotion = pair.begin_command(1, PRIMARY);
        assert_eq!(pair.running(1), [FencePeer]);
        pair.end_handler(1, FencePeer, outcome);
        let result = pair.ended(promotion).unwrap();
        assert_eq!(result.map_or_else(|e| e.exit_code(), |()| 0), code, "{outcome}");
    }
}

#[test]
fn a_secondary_whose_disk_fails_while_it_leaves_leaves_all_the_same() {
    let mut pair = synced(ResourceOnly);
    pair.disk_fails[1] = true;
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(connections(&pair)[1], ConnectionState::StandAlone);
    assert_eq!(peer(&pair, 0).disk, DiskState::DUnknown);
    assert_eq!(pair.running(0), [FencePeer]);
}

#[test]
fn a_disk_that_is_detached_under_a_primary_is_outdated() {
    let mut pair = synced(ResourceAndStonith);
    pair.command(1, Command::Detach).unwrap();
    pair.write(0, 4096, 2);
    part(&mut pair);
    pair.crash(1);
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
}

// outdate.

/// Simulator: seed 43474 B. Its process must not be able to die between the peer's hearing of it and its note.
#[test]
fn a_primary_that_detaches_says_that_its_data_grows_old_before_its_peer_goes_on() {
    let mut pair = synced(ResourceAndStonith);
    pair.slow_disk = Some((0, Device::Meta));
    let detach = pair.begin_command(0, Command::Detach);
    assert_eq!(peer(&pair, 1).disk, DiskState::UpToDate);
    while pair.ended(detach).is_none() {
        assert!(pair.finish_slow() > 0);
        if peer(&pair, 1).disk < DiskState::UpToDate {
            break;
        }
    }
    pair.slow_disk = None;
    part(&mut pair);
    pair.crash(0);
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Outdated);
}

/// Its peer is gone before it has heard of it: the only copy is as good as before.
#[test]
fn a_primary_that_cannot_detach_any_more_takes_its_note_back() {
    let mut pair = synced(ResourceAndStonith);
    pair.slow_disk = Some((0, Device::Meta));
    let detach = pair.begin_command(0, Command::Detach);
    part(&mut pair);
    pair.slow_disk = None;
    pair.finish_slow();
    assert_eq!(pair.ended(detach).unwrap().unwrap_err().exit_code(), 17);
    pair.crash(0);
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Consistent);
}

#[test]
fn outdate_is_refused_where_somebody_knows_better() {
    let mut pair = synced(ResourceOnly);
    let refused = |pair: &mut Pair, n, text: &str, code| {
        let error = pair.command(n, Command::Outdate).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, code));
    };
    refused(&mut pair, 1, "State change failed: (-6) Refusing to be Outdated while Connected", 11);
    refused(&mut pair, 0, "State change failed: (-2) Need access to UpToDate data", 17);
    part(&mut pair);
    pair.command(1, Command::Outdate).unwrap();
    pair.command(1, Command::Outdate).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    pair.command(1, Command::Detach).unwrap();
    refused(&mut pair, 1, "State change failed: (-16) Disk state is lower than outdated", 5);
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    pair.heal();
    pair.assert_in_sync();
}

/// Two nodes that fence each other with `outdate` must not wait for each other.
#[test]
fn outdate_is_refused_at_once_during_a_promotion() {
    let mut pair = synced(ResourceOnly);
    pair.command(0, Command::Secondary).unwrap();
    part(&mut pair);
    let promotion = pair.begin_command(1, PRIMARY);
    let refused = pair.command(1, Command::Outdate).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "State change failed: (-18) In transient state, retry after next state change"
    );
    pair.end_handler(1, FencePeer, Exited(4));
    assert_eq!(pair.ended(promotion), Some(Ok(())));
}

// suspend-io.

/// DRBD's consistent-snapshots: once suspend-io is done, both copies are equal and stay so.
#[test]
fn consistent_snapshots() {
    let mut pair = synced(Fencing::DontCare);
    pair.hold = Some(|m| matches!(m, Message::WriteAck { .. } | Message::BarrierAck { .. }));
    let before = pair.begin_write(0, 4096, 2);
    let suspension = pair.begin_command(0, Command::SuspendIo);
    assert!(pair.ended(suspension).is_none(), "a write is under way");
    pair.deliver();
    assert_eq!(pair.ended(suspension), Some(Ok(())));
    assert!(pair.completed(before));
    assert_eq!(status(&pair, 0).suspended.to_string(), "user");
    let after = pair.begin_write(0, 8192, 3);
    assert!(!pair.completed(after));
    assert_eq!(pair.nodes[0].disk.0[..1 << 19], pair.nodes[1].disk.0[..1 << 19]);
    assert_eq!(pair.nodes[0].disk.0[8192], 0);
    pair.command(0, Command::ResumeIo).unwrap();
    assert!(pair.completed(after));
    assert_eq!(read(&mut pair, 0, 8192), 3);
}

#[test]
fn a_suspension_that_cannot_end_can_be_given_up() {
    let mut pair = synced(Fencing::DontCare);
    pair.hold = Some(|m| matches!(m, Message::WriteAck { .. } | Message::BarrierAck { .. }));
    pair.begin_write(0, 4096, 2);
    let suspension = pair.begin_command(0, Command::SuspendIo);
    pair.feed(0, tandem_core::Input::CancelCommand { id: suspension });
    assert_eq!(pair.ended(suspension).unwrap().unwrap_err().exit_code(), 11);
    pair.deliver();
    pair.write(0, 8192, 3);
}

#[test]
fn a_frozen_write_fails_with_the_disk_but_not_what_the_peer_has() {
    let mut pair = synced(ResourceAndStonith);
    part(&mut pair);
    let payload = Payload::new(vec![2; 4096].into());
    let write = pair.begin_client(0, ClientOp::Write { offset: 4096, payload, fua: false });
    pair.end_handler(0, FencePeer, Exited(1));
    pair.disk_fails[0] = true;
    pair.command(0, Command::ResumeIo).unwrap();
    assert_eq!(pair.answered(write), Some(Err(ClientError::Io)));
}

/// Who only asks what would happen has nothing to be fenced for.
#[test]
fn a_tentative_connection_fences_nobody() {
    for known in [true, false] {
        let mut pair = synced(ResourceAndStonith);
        pair.command(1, Command::Disconnect).unwrap();
        if !known {
            pair.command(0, Command::Disconnect).unwrap();
            pair.command(0, Command::Connect).unwrap();
        }
        pair.command(1, Command::ConnectWith { discard_my_data: false, tentative: true }).unwrap();
        assert_eq!((pair.running(0), is_frozen(&pair)), (vec![], false));
        assert_eq!(peer(&pair, 0).disk, DiskState::Outdated);
        pair.write(0, 4096, 2);
    }
}
