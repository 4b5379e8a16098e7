//! A Primary that reaches no copy of its data, and whose clients wait for one.

use tandem_core::config::{OnNoData, Options, Protocol, ResyncOptions};
use tandem_core::io::{ClientError, ClientOp, Command, Device};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::{ByteRange, RequestId};
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROTOCOLS, peer, read, start_again, status};

fn patient(protocol: Protocol) -> Options {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    Options { protocol, resync, on_no_data: OnNoData::SuspendIo, ..Options::default() }
}

/// In sync, node 0 Primary. Time stands still: a resync does not give way to clients.
fn synced(protocol: Protocol) -> Pair {
    let mut pair = Pair::with_options(&patient(protocol));
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair
}

/// Node 0 is Primary without a disk.
fn diskless(protocol: Protocol) -> Pair {
    let mut pair = synced(protocol);
    pair.write(0, 0, 1);
    pair.command(0, Command::Detach).unwrap();
    pair
}

fn part(pair: &mut Pair) {
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
}

fn why(pair: &Pair) -> String {
    status(pair, 0).suspended.to_string()
}

fn begin_read(pair: &mut Pair, offset: u64) -> RequestId {
    pair.begin_client(0, ClientOp::Read(ByteRange::new(offset, 4096)))
}

fn io_error(pair: &mut Pair, request: RequestId) -> bool {
    pair.answered(request) == Some(Err(ClientError::Io))
}

/// What is under way, what comes, and what is read wait for the peer, and none of it is lost.
#[test]
fn requests_wait_for_the_last_copy_to_come_back() {
    for protocol in PROTOCOLS {
        let mut pair = diskless(protocol);
        pair.hold = Some(|m| matches!(m, Message::Write { .. }));
        let under_way = pair.begin_write(0, 4096, 2);
        pair.drop_held();
        part(&mut pair);
        assert_eq!(why(&pair), "no-data");
        let later = pair.begin_write(0, 8192, 3);
        let wanted = begin_read(&mut pair, 0);
        let flush = pair.begin_client(0, ClientOp::Flush);
        assert_eq!(status(&pair, 0).client_pending, 4);
        for request in [under_way, later, wanted, flush] {
            assert_eq!(pair.answered(request), None);
        }
        pair.heal();
        assert_eq!(why(&pair), "no");
        assert!(pair.completed(under_way) && pair.completed(later) && pair.completed(flush));
        assert_eq!(pair.answered(wanted).unwrap().unwrap()[0], 1);
        assert_eq!([4096, 8192].map(|offset| read(&mut pair, 0, offset)), [2, 3]);
        pair.attach(0).unwrap();
        pair.assert_in_sync();
    }
}

/// The same where the acknowledgement was lost: what the peer has already is written there once more.
#[test]
fn a_write_that_the_peer_has_is_repeated() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::WriteAck { .. }));
    let write = pair.begin_write(0, 4096, 2);
    assert_eq!((pair.nodes[1].disk.0[4096], pair.answered(write)), (2, None));
    pair.drop_held();
    part(&mut pair);
    assert_eq!(pair.answered(write), None);
    pair.heal();
    assert!(pair.completed(write));
    assert_eq!(read(&mut pair, 0, 4096), 2);
}

/// The disk fails while the peer is away: it comes back with all that was ever written.
#[test]
fn a_disk_that_fails_while_the_peer_is_away_freezes() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 0, 1);
    part(&mut pair);
    assert_eq!((why(&pair), read(&mut pair, 0, 0)), ("no".into(), 1));
    pair.disk_fails[0] = true;
    let wanted = begin_read(&mut pair, 0);
    assert_eq!((status(&pair, 0).disk, why(&pair)), (DiskState::Diskless, "no-data".into()));
    let write = pair.begin_write(0, 4096, 2);
    assert_eq!((pair.answered(wanted), pair.answered(write)), (None, None));
    pair.heal();
    assert_eq!(pair.answered(wanted).unwrap().unwrap()[0], 1);
    assert!(pair.completed(write));
    assert_eq!(pair.nodes[1].disk.0[4096], 2);
}

/// Exposed data: who lacks what clients were told is written is not the copy that they wait for.
#[test]
fn an_older_copy_does_not_thaw() {
    let mut pair = synced(Protocol::C);
    part(&mut pair);
    pair.write(0, 0, 1);
    pair.disk_fails[0] = true;
    let wanted = begin_read(&mut pair, 0);
    pair.heal();
    assert_eq!((peer(&pair, 0).connection, why(&pair)), (ConnectionState::StandAlone, "no-data".into()));
    assert_eq!(pair.answered(wanted), None);
    pair.command(0, Command::ResumeIo).unwrap();
    assert!(io_error(&mut pair, wanted));
}

/// resume-io ends the wait with errors, until there was a copy again.
#[test]
fn resume_io_without_data_lets_requests_fail() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::Write { .. }));
    let under_way = pair.begin_write(0, 4096, 2);
    pair.drop_held();
    part(&mut pair);
    let waiting = begin_read(&mut pair, 0);
    pair.command(0, Command::ResumeIo).unwrap();
    assert!(io_error(&mut pair, under_way) && io_error(&mut pair, waiting));
    assert_eq!(why(&pair), "no");
    assert_eq!(pair.client(0, ClientOp::Flush), Err(ClientError::Io));
    pair.heal();
    assert_eq!(read(&mut pair, 0, 0), 1);
    part(&mut pair);
    assert_eq!(why(&pair), "no-data");
}

/// suspend-io and the missing copy are two reasons; the end of one leaves the other.
#[test]
fn who_was_suspended_by_hand_waits_on() {
    let mut pair = diskless(Protocol::C);
    pair.command(0, Command::SuspendIo).unwrap();
    part(&mut pair);
    let write = pair.begin_write(0, 4096, 2);
    assert_eq!(why(&pair), "user,no-data");
    pair.heal();
    assert_eq!((why(&pair), pair.answered(write)), ("user".into(), None));
    pair.command(0, Command::ResumeIo).unwrap();
    assert!(pair.completed(write));
}

#[test]
fn the_option_changes_while_requests_wait() {
    let mut pair = diskless(Protocol::C);
    part(&mut pair);
    let write = pair.begin_write(0, 4096, 2);
    let set = |pair: &mut Pair, on_no_data| {
        let options = Box::new(Options { on_no_data, ..patient(Protocol::C) });
        pair.command(0, Command::SetOptions { options, handlers: Default::default() }).unwrap();
    };
    set(&mut pair, OnNoData::IoError);
    assert!(io_error(&mut pair, write));
    set(&mut pair, OnNoData::SuspendIo);
    let write = pair.begin_write(0, 4096, 3);
    assert_eq!((why(&pair), pair.answered(write)), ("no-data".into(), None));
    pair.heal();
    assert!(pair.completed(write));
}

/// Who gives the role up waits for nothing: what waits fails.
#[test]
fn a_demotion_frees_what_waits() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::Write { .. }));
    let under_way = pair.begin_write(0, 4096, 2);
    pair.drop_held();
    part(&mut pair);
    let waiting = begin_read(&mut pair, 0);
    pair.command(0, Command::Secondary).unwrap();
    for request in [under_way, waiting] {
        assert_eq!(pair.answered(request), Some(Err(ClientError::NotPrimary)));
    }
    assert_eq!((status(&pair, 0).role, why(&pair)), (Role::Secondary, "no".into()));
    pair.heal();
    pair.attach(0).unwrap();
    pair.assert_in_sync();
}

/// A client has read, from the disk that is being brought up to date, what the peer never got: it is read again only once
/// the peer has got it.
#[test]
fn what_was_seen_is_not_unseen() {
    let mut pair = diskless(Protocol::C);
    pair.write(0, 16384, 1);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Inconsistent);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. } | Message::Write { .. }));
    let write = pair.begin_write(0, 8192, 7);
    assert_eq!((pair.answered(write), read(&mut pair, 0, 8192)), (None, 7));
    part(&mut pair);
    pair.drop_held();
    pair.hold = Some(|m| matches!(m, Message::Write { .. }));
    pair.heal();
    let again = begin_read(&mut pair, 8192);
    let other = pair.begin_write(0, 32768, 8);
    for request in [write, again, other] {
        assert_eq!(pair.answered(request), None);
    }
    pair.deliver();
    assert!(pair.completed(write) && pair.completed(other));
    assert_eq!(pair.answered(again).unwrap().unwrap()[0], 7);
    pair.assert_in_sync();
}

/// Two writes of the same block, of which a client has seen the second, come in the same order again.
#[test]
fn overlapping_writes_are_repeated_in_their_order() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::WriteAck { .. }));
    let writes = [2, 3, 4].map(|byte| pair.begin_write(0, 4096, byte));
    pair.drop_held();
    part(&mut pair);
    pair.heal();
    for write in writes {
        assert!(pair.completed(write));
    }
    assert_eq!(read(&mut pair, 0, 4096), 4);
}

/// What the local disk had begun when the source was lost ends first.
#[test]
fn a_write_on_a_slow_disk_waits_too() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.write(0, 16384, 1);
    pair.attach(0).unwrap();
    pair.slow_disk = Some((0, Device::Data));
    let write = pair.begin_write(0, 8192, 4);
    part(&mut pair);
    pair.drop_held();
    pair.heal();
    assert_eq!(pair.answered(write), None);
    pair.slow_disk = None;
    pair.finish_slow();
    assert!(pair.completed(write));
    pair.assert_in_sync();
}

/// Simulator: seed 8177 B. The peer says that its data is given up, and then refuses a read that was under way.
#[test]
fn a_read_that_the_last_copy_refuses_waits() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 0, 1);
    pair.hold =
        Some(|m| matches!(m, Message::State { .. } | Message::ReadRequest { .. } | Message::Handshake(_)));
    pair.begin_command(1, Command::Invalidate { reset_bitmap: true });
    assert_eq!(peer(&pair, 0).disk, DiskState::UpToDate, "it has not heard of it");
    pair.disk_fails[0] = true;
    let wanted = begin_read(&mut pair, 0);
    pair.deliver();
    assert_eq!((status(&pair, 0).disk, why(&pair)), (DiskState::Diskless, "no-data".into()));
    assert_eq!(pair.answered(wanted), None);
}

/// A peer that has lost what its cache held is not taken, nor does it become Primary's copy after a restart.
#[test]
fn a_peer_that_crashed_with_unflushed_data_does_not_thaw() {
    let mut pair = diskless(Protocol::C);
    pair.write(0, 4096, 2);
    pair.crash(1);
    let wanted = begin_read(&mut pair, 4096);
    start_again(&mut pair, 1);
    assert_eq!((why(&pair), pair.answered(wanted)), ("no-data".into(), None));
    let mut pair = diskless(Protocol::C);
    pair.write(0, 4096, 2);
    pair.client(0, ClientOp::Flush).unwrap();
    pair.crash(1);
    let wanted = begin_read(&mut pair, 4096);
    start_again(&mut pair, 1);
    assert_eq!(pair.answered(wanted).unwrap().unwrap()[0], 2);
}

/// Node 0 is Primary and alone, its disk has failed, and works again.
fn lost_its_disk(flushed: bool) -> (Pair, RequestId) {
    let mut pair = synced(Protocol::C);
    part(&mut pair);
    pair.write(0, 4096, 2);
    if flushed {
        pair.client(0, ClientOp::Flush).unwrap();
    }
    pair.disk_fails[0] = true;
    let wanted = begin_read(&mut pair, 4096);
    pair.disk_fails[0] = false;
    assert_eq!((status(&pair, 0).disk, pair.answered(wanted)), (DiskState::Diskless, None));
    (pair, wanted)
}

/// Attach to the data we lost last: the clients go on with it, in a generation of its own.
#[test]
fn the_disk_that_was_lost_thaws_if_it_has_all() {
    let (mut pair, wanted) = lost_its_disk(true);
    let write = pair.begin_write(0, 8192, 3);
    pair.attach(0).unwrap();
    assert_eq!(pair.answered(wanted).unwrap().unwrap()[0], 2);
    assert!(pair.completed(write) && !status(&pair, 0).suspended.any());
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[8192], 3);
    // Also if nobody asked for anything.
    let (mut pair, _) = lost_its_disk(true);
    pair.attach(0).unwrap();
    pair.heal();
    pair.assert_in_sync();
}

#[test]
fn a_disk_that_may_lack_completed_writes_does_not_thaw() {
    let (mut pair, wanted) = lost_its_disk(false);
    let refused = pair.attach(0).unwrap_err();
    assert!(refused.to_string().contains("(150)"), "{refused}");
    assert_eq!((why(&pair), pair.answered(wanted)), ("no-data".into(), None));
    // It has seen nothing of what was written through the peer.
    let mut pair = diskless(Protocol::C);
    part(&mut pair);
    assert!(pair.attach(0).is_err());
    assert_eq!(why(&pair), "no-data");
}
