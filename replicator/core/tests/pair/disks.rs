//! Disks that fail and disks that hang: named after the tests of DRBD's suite that they follow.

use tandem_core::config::{OnIoError, Options, Protocol, ResyncOptions};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{ClientError, ClientOp, Command, Device, Payload};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROTOCOLS, peer, read, status};

const TIMEOUT_MS: u64 = 3000;

fn options() -> Options {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    Options { resync, disk_timeout_ms: TIMEOUT_MS, ..Options::default() }
}

/// Node 0 is Primary, both disks are UpToDate.
fn synced(options: &Options, handlers: &[Handler]) -> Pair {
    let mut pair = Pair::with_handlers(options, handlers);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair
}

fn write(byte: u8) -> ClientOp {
    ClientOp::Write { offset: 0, payload: Payload::new(vec![byte; 4096].into()), fua: false }
}

/// The disk of a node is given up after the time, and not earlier. It cannot be attached before what hangs has ended; then
/// it is resynced.
fn times_out(pair: &mut Pair, n: usize) {
    let began = pair.now;
    pair.run_until(|pair| status(pair, n).disk == DiskState::Failed);
    assert_eq!(pair.now.ms_since(began), TIMEOUT_MS);
    assert_eq!(
        pair.attach(n).unwrap_err().to_string(),
        "Failure: (124) Device is attached to a disk (use detach first)"
    );
}

fn comes_back(pair: &mut Pair, n: usize) {
    pair.slow_disk = None;
    pair.finish_slow();
    assert_eq!(status(pair, n).disk, DiskState::Diskless);
    if status(pair, n).role == Role::Primary {
        pair.command(n, Command::Secondary).unwrap();
    }
    pair.attach(n).unwrap();
    pair.assert_in_sync();
}

#[test]
fn disk_timeout_of_a_client_request() {
    for request in [write(7), ClientOp::Read(ByteRange::new(0, 4096)), ClientOp::Flush] {
        let mut pair = synced(&options(), &[]);
        pair.slow_disk = Some((0, Device::Data));
        let id = pair.begin_client(0, request);
        times_out(&mut pair, 0);
        assert!(pair.completed(id), "the peer does not serve it");
        pair.write(0, 0, 9);
        comes_back(&mut pair, 0);
        assert_eq!(pair.nodes[0].disk.0[0], 9);
    }
}

#[test]
fn disk_timeout_of_the_secondary() {
    let mut pair = synced(&options(), &[]);
    pair.slow_disk = Some((1, Device::Data));
    let id = pair.begin_client(0, write(7));
    times_out(&mut pair, 1);
    assert!(pair.completed(id), "the Primary waits for a disk that was given up");
    comes_back(&mut pair, 1);
}

#[test]
fn disk_timeout_in_a_resync() {
    for n in 0..2 {
        let mut pair = synced(&options(), &[]);
        pair.command(1, Command::Detach).unwrap();
        pair.write(0, 0, 7);
        pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
        pair.attach(1).unwrap();
        pair.slow_disk = Some((n, Device::Data));
        pair.deliver();
        times_out(&mut pair, n);
        comes_back(&mut pair, n);
        assert_eq!(pair.nodes[1].disk.0[0], 7);
    }
}

/// Simulator: seed 127610 C. The deadline of a read that outlived its disk was due for ever.
#[test]
fn disk_timeout_of_a_read_that_was_under_way_at_a_detach() {
    let mut pair = synced(&options(), &[]);
    pair.slow_disk = Some((0, Device::Data));
    let id = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
    pair.slow_disk = None;
    pair.command(0, Command::Detach).unwrap();
    let began = pair.now;
    pair.run_until(|pair| pair.now.ms_since(began) > TIMEOUT_MS);
    assert!(pair.completed(id), "the peer does not serve it");
    comes_back(&mut pair, 0);
}

/// Simulator: seed 153578 C. The peer has the write, durably, and was away for a moment.
#[test]
fn a_write_fails_on_the_local_disk_after_the_peer_was_away() {
    let mut pair = synced(&options(), &[]);
    pair.slow_disk = Some((0, Device::Data));
    let requests = [pair.begin_client(0, write(7)), pair.begin_client(0, ClientOp::Flush)];
    pair.cut();
    pair.settle();
    assert_eq!(
        (peer(&pair, 0).connection, peer(&pair, 0).disk),
        (ConnectionState::Connected, DiskState::UpToDate)
    );
    pair.data_fails[0] = true;
    pair.finish_slow();
    assert_ne!(status(&pair, 0).disk, DiskState::UpToDate);
    requests.into_iter().for_each(|id| assert!(pair.completed(id), "the peer has it"));
    assert_eq!(read(&mut pair, 0, 0), 7);
}

#[test]
fn disk_timeout_of_metadata() {
    let mut pair = synced(&options(), &[]);
    pair.slow_disk = Some((0, Device::Meta));
    let id = pair.begin_client(0, write(7));
    times_out(&mut pair, 0);
    assert!(pair.completed(id), "a write waits for metadata that will never be written");
    assert_eq!(read(&mut pair, 0, 0), 7);
    comes_back(&mut pair, 0);
}

#[test]
fn without_a_disk_timeout_a_disk_may_take_its_time() {
    let mut pair = synced(&Options { disk_timeout_ms: 0, ..options() }, &[]);
    pair.slow_disk = Some((0, Device::Data));
    let id = pair.begin_client(0, write(7));
    pair.run_until(|pair| pair.now.0 > 3_600_000_000);
    assert_eq!(status(&pair, 0).disk, DiskState::UpToDate);
    pair.finish_slow();
    assert!(pair.completed(id));
}

/// The handler is run where it is asked for, and the disk is given up either way.
#[test]
fn call_local_io_error() {
    for (on_io_error, runs) in [(OnIoError::Detach, 0), (OnIoError::CallLocalIoError, 1)] {
        let mut pair = synced(&Options { on_io_error, ..options() }, &[Handler::LocalIoError]);
        pair.disk_fails[0] = true;
        pair.write(0, 0, 7);
        assert_eq!(status(&pair, 0).disk, DiskState::Diskless);
        assert_eq!(pair.running(0), vec![Handler::LocalIoError; runs]);
        assert_eq!(read(&mut pair, 0, 0), 7);
        (0..runs).for_each(|_| pair.end_handler(0, Handler::LocalIoError, HandlerOutcome::Exited(1)));
        assert_eq!(status(&pair, 0).role, Role::Primary);
    }
}

/// Simulator: seed 209666 C. What the survivor's disk once lost has come back with the resync since: outdated as it is, it has
/// every completed write, and the Primary's disk has lost its cache.
#[test]
fn a_disk_that_has_caught_up_after_it_failed_wins_over_a_crashed_primary() {
    for protocol in [Protocol::B, Protocol::C] {
        let mut pair = synced(&Options { protocol, ..options() }, &[]);
        pair.disk_fails[1] = true;
        pair.write(0, 8192, 6);
        pair.disk_fails[1] = false;
        pair.attach(1).unwrap();
        pair.assert_in_sync();
        pair.write(0, 0, 7);
        pair.crash(0);
        pair.nodes[0].disk.0[..4096].fill(0);
        pair.command(1, Command::Disconnect).unwrap();
        pair.command(1, Command::Outdate).unwrap();
        pair.attach(0).unwrap();
        (0..2).for_each(|n| pair.command(n, Command::Connect).unwrap());
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 7);
    }
}

/// Both disks fail, one after the other: the one that failed last has every completed write.
#[test]
fn io_errors_of_both_disks() {
    for protocol in [Protocol::B, Protocol::C] {
        let mut pair = synced(&Options { protocol, ..options() }, &[]);
        pair.disk_fails[1] = true;
        pair.write(0, 0, 7);
        pair.disk_fails = [true, false];
        pair.client(0, write(8)).unwrap_err();
        pair.disk_fails[0] = false;
        pair.command(0, Command::Secondary).unwrap();
        pair.attach(1).unwrap();
        pair.attach(0).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 7);
    }
}

/// Reads and writes of node `n`'s data fail; metadata and flushes do not.
fn passing_on(protocol: Protocol, n: usize) -> Pair {
    let mut pair = synced(&Options { protocol, on_io_error: OnIoError::PassOn, ..options() }, &[]);
    pair.write(0, 0, 7);
    pair.data_fails[n] = true;
    pair
}

fn disks(pair: &Pair) -> [DiskState; 2] {
    [status(pair, 0).disk, status(pair, 1).disk]
}

const BOTH_GOOD: [DiskState; 2] = [DiskState::UpToDate; 2];

fn read_error(pair: &mut Pair) -> Result<bytes::Bytes, ClientError> {
    pair.client(0, ClientOp::Read(ByteRange::new(0, 4096)))
}

/// A read that fails is served by the peer, and changes nothing.
#[test]
fn pass_on_a_read_error_of_a_primary() {
    for protocol in PROTOCOLS {
        let mut pair = passing_on(protocol, 0);
        assert_eq!((read(&mut pair, 0, 0), disks(&pair)), (7, BOTH_GOOD));
        pair.command(1, Command::Disconnect).unwrap();
        assert_eq!(read_error(&mut pair), Err(ClientError::Io));
        pair.data_fails[0] = false;
        pair.command(1, Command::Connect).unwrap();
        pair.assert_in_sync();
    }
}

/// Both have a block that cannot be read: neither says that its copy is worth less than the other's.
#[test]
fn pass_on_a_read_error_of_both() {
    let mut pair = passing_on(Protocol::C, 0);
    pair.data_fails[1] = true;
    assert_eq!((read_error(&mut pair), disks(&pair)), (Err(ClientError::Io), BOTH_GOOD));
    pair.data_fails = [false; 2];
    assert_eq!(read(&mut pair, 0, 0), 7);
    pair.assert_in_sync();
}

/// The read was sent to a peer that is gone before it answers.
#[test]
fn pass_on_a_read_error_and_lose_the_peer() {
    let mut pair = passing_on(Protocol::C, 0);
    pair.hold = Some(|m| matches!(m, Message::ReadRequest { .. }));
    let id = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
    assert_eq!(pair.answered(id), None);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(pair.answered(id), Some(Err(ClientError::Io)));
    assert_eq!(status(&pair, 0).disk, DiskState::UpToDate);
}

/// What a failed write leaves there, nobody knows: where the other node has the data, the disk is given up.
#[test]
fn pass_on_no_write_error_beside_a_good_peer() {
    for (protocol, n) in PROTOCOLS.into_iter().flat_map(|p| [(p, 0), (p, 1)]) {
        let mut pair = passing_on(protocol, n);
        let id = pair.begin_client(0, write(8));
        assert!(pair.completed(id), "the other node has it");
        assert_eq!(
            (status(&pair, n).disk, status(&pair, 1 - n).disk),
            (DiskState::Diskless, DiskState::UpToDate)
        );
        assert_eq!(read(&mut pair, 0, 0), 8);
        pair.data_fails[n] = false;
        pair.attach(n).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[n].disk.0[0], 8);
    }
}

/// What a target cannot write is asked for again and again; that costs neither the connection nor the clients.
#[test]
fn pass_on_for_as_long_as_the_disk_stays_broken() {
    let mut pair = passing_on(Protocol::C, 1);
    pair.command(1, Command::Disconnect).unwrap();
    for block in 0..64 {
        pair.write(0, 4096 * block, 8);
    }
    pair.command(1, Command::Connect).unwrap();
    let lost = pair.connections_lost;
    let end = pair.now.plus_ms(2_000_000);
    pair.run_until(|pair| pair.now >= end);
    assert_eq!(
        (status(&pair, 1).disk, peer(&pair, 1).connection),
        (DiskState::Inconsistent, ConnectionState::Connected)
    );
    assert_eq!(peer(&pair, 1).replication, ReplicationState::SyncTarget);
    assert_eq!((read(&mut pair, 0, 0), pair.connections_lost), (8, lost));
    pair.data_fails[1] = false;
    pair.run_until(|pair| status(pair, 1).disk == DiskState::UpToDate);
    pair.assert_in_sync();
}

/// Both nodes fail to write the same block at the same time: neither ends as an Inconsistent copy of the other.
#[test]
fn pass_on_a_write_error_of_both() {
    for protocol in PROTOCOLS {
        let mut pair = passing_on(protocol, 0);
        pair.data_fails[1] = true;
        let id = pair.begin_client(0, write(8));
        assert!(pair.answered(id).is_some());
        pair.data_fails = [false; 2];
        pair.command(0, Command::Secondary).unwrap();
        for n in 0..2 {
            if status(&pair, n).disk == DiskState::Diskless {
                pair.attach(n).unwrap();
            }
        }
        pair.assert_in_sync();
    }
}

/// The Primary has no disk: the peer's stays, whatever it cannot write, and the client is told.
#[test]
fn pass_on_a_write_error_under_a_primary_without_a_disk() {
    for protocol in PROTOCOLS {
        let mut pair = passing_on(protocol, 1);
        pair.command(0, Command::Detach).unwrap();
        assert_eq!(pair.client(0, write(8)), Err(ClientError::Io));
        assert_eq!(disks(&pair), [DiskState::Diskless, DiskState::UpToDate]);
        pair.data_fails[1] = false;
        pair.write(0, 0, 9);
        pair.attach(0).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[0].disk.0[0], 9);
    }
}

/// A target asks again for what it cannot write of a resync; a write of a client that it cannot do costs it its disk.
#[test]
fn pass_on_a_write_error_of_a_target() {
    for written_meanwhile in [false, true] {
        let mut pair = passing_on(Protocol::C, 1);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 8);
        pair.command(1, Command::Connect).unwrap();
        assert_eq!(disks(&pair), [DiskState::UpToDate, DiskState::Inconsistent]);
        if written_meanwhile {
            pair.write(0, 4096, 9);
            assert_eq!(disks(&pair), [DiskState::UpToDate, DiskState::Diskless]);
        }
        pair.data_fails[1] = false;
        if written_meanwhile {
            pair.attach(1).unwrap();
        }
        pair.run_until(|pair| disks(pair) == BOTH_GOOD);
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[0], 8);
    }
}

/// A write of the source fails while its target gets the same write: both meet anew, and the target has what is there.
#[test]
fn pass_on_a_write_error_of_a_source() {
    let mut pair = passing_on(Protocol::C, 0);
    pair.data_fails[0] = false;
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 8192, 8);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(disks(&pair), [DiskState::UpToDate, DiskState::Inconsistent]);
    pair.drop_held();
    pair.data_fails[0] = true;
    assert_eq!(pair.client(0, write(9)), Err(ClientError::Io));
    pair.data_fails[0] = false;
    pair.run_until(|pair| disks(pair) == BOTH_GOOD);
    pair.assert_in_sync();
    assert_eq!(read(&mut pair, 0, 0), pair.nodes[1].disk.0[0]);
}

/// Alone, the client learns of it, and the disk stays what it is.
#[test]
fn pass_on_errors_of_a_primary_that_is_alone() {
    let mut pair = passing_on(Protocol::C, 0);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(pair.client(0, ClientOp::Read(ByteRange::new(0, 4096))), Err(ClientError::Io));
    assert_eq!(pair.client(0, write(8)), Err(ClientError::Io));
    assert_eq!(status(&pair, 0).disk, DiskState::UpToDate);
    pair.data_fails[0] = false;
    assert_eq!(read(&mut pair, 0, 0), 7);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
}

/// Neither a flush nor metadata that fails is passed on.
#[test]
fn a_failed_flush_detaches_whatever_the_policy() {
    let mut pair = passing_on(Protocol::C, 0);
    pair.data_fails[0] = false;
    pair.disk_fails[0] = true;
    pair.client(0, ClientOp::Flush).unwrap();
    assert_eq!((status(&pair, 0).disk, read(&mut pair, 0, 0)), (DiskState::Diskless, 7));
}
