//! A Primary without a disk, and a peer whose disk, the last copy, is lost and comes back: it is taken if it has all that clients have
//! seen, and only then.

use tandem_core::config::{Fencing, OnNoData, Options, Protocol, ResyncOptions};
use tandem_core::io::{ClientError, ClientOp, Command, Device};
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::{connections, peer, read, start_again, status};

/// In sync, node 0 Primary. Time stands still: a resync does not give way to clients.
fn synced(options: Options) -> Pair {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let mut pair = Pair::with_options(&Options { resync, ..options });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair
}

/// Node 0 is Primary without a disk; what it has written through its peer is durable there.
fn diskless(on_no_data: OnNoData) -> Pair {
    let mut pair = synced(Options { on_no_data, ..Options::default() });
    pair.write(0, 0, 1);
    pair.command(0, Command::Detach).unwrap();
    pair.write(0, 4096, 2);
    pair.client(0, ClientOp::Flush).unwrap();
    pair
}

/// The peer's disk fails the next operation, and no other.
fn peers_disk_fails_once(pair: &mut Pair) {
    pair.fails_next(1, 1);
}

fn is_refused(pair: &Pair) -> bool {
    let reason = peer(pair, 0).standalone_reason.unwrap_or_default();
    reason.contains("does not have the data that this diskless Primary has exposed")
}

#[test]
fn a_last_copy_whose_disk_failed_a_write_is_taken_back() {
    for on_no_data in [OnNoData::SuspendIo, OnNoData::IoError] {
        let mut pair = diskless(on_no_data);
        peers_disk_fails_once(&mut pair);
        let write = pair.begin_write(0, 8192, 3);
        assert_eq!(status(&pair, 1).disk, DiskState::Diskless);
        let waits = on_no_data == OnNoData::SuspendIo;
        assert_eq!(pair.answered(write), (!waits).then_some(Err(ClientError::Io)));
        pair.attach(1).unwrap();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2], "{on_no_data:?}");
        assert_eq!([0, 4096].map(|offset| read(&mut pair, 0, offset)), [1, 2]);
        assert_eq!(pair.completed(write), waits);
        pair.write(0, 12288, 4);
        pair.attach(0).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[0].disk.0[12288], 4);
    }
}

/// Over and over, whatever failed, and whether or not the connection stands meanwhile.
#[test]
fn a_last_copy_is_taken_back_whenever_it_had_all() {
    let mut pair = diskless(OnNoData::SuspendIo);
    for round in 1..8_u8 {
        peers_disk_fails_once(&mut pair);
        let wanted = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
        assert_eq!((status(&pair, 1).disk, pair.answered(wanted)), (DiskState::Diskless, None));
        if round % 2 == 0 {
            pair.cut();
            pair.settle();
        }
        pair.attach(1).unwrap();
        assert_eq!(pair.answered(wanted).unwrap().unwrap()[0], 1, "round {round}");
        pair.write(0, 4096 * u64::from(round), round);
        pair.client(0, ClientOp::Flush).unwrap();
    }
}

/// What a client was told is written was in the cache of the disk that failed.
#[test]
fn a_last_copy_that_may_lack_completed_writes_is_refused() {
    for on_no_data in [OnNoData::SuspendIo, OnNoData::IoError] {
        let mut pair = diskless(on_no_data);
        pair.hold = Some(|m| matches!(m, Message::Barrier { .. }));
        pair.write(0, 8192, 3);
        peers_disk_fails_once(&mut pair);
        pair.begin_write(0, 12288, 4);
        pair.deliver();
        pair.attach(1).unwrap();
        assert!(is_refused(&pair));
    }
}

/// Nor one that has acknowledged, as protocol B has it, what its disk never got.
#[test]
fn a_last_copy_that_has_lost_what_it_received_is_refused() {
    let mut pair = synced(Options { protocol: Protocol::B, ..Options::default() });
    pair.write(0, 0, 1);
    pair.client(0, ClientOp::Flush).unwrap();
    pair.slow_disk = Some((1, Device::Data));
    pair.write(0, 4096, 2);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.disk_fails[1] = true;
    while pair.finish_slow() > 0 {}
    (pair.slow_disk, pair.disk_fails) = (None, [false; 2]);
    assert_eq!(status(&pair, 1).disk, DiskState::Diskless);
    pair.attach(1).unwrap();
    assert!(is_refused(&pair));
}

/// Another disk in its place, or an older state of it, is another matter.
#[test]
fn a_new_disk_of_the_peer_is_not_the_last_copy() {
    let mut pair = diskless(OnNoData::SuspendIo);
    peers_disk_fails_once(&mut pair);
    pair.begin_write(0, 8192, 3);
    pair.replace_disk(1, DISK_BYTES, 1);
    pair.attach(1).unwrap();
    assert_ne!(peer(&pair, 0).disk, DiskState::UpToDate);
    assert!(status(&pair, 0).suspended.no_data);
}

/// What was in the cache when a connection was lost is durable since the next flush: from then on a crash costs nothing.
#[test]
fn a_flush_ends_the_reliance_on_the_peers_cache() {
    let mut pair = diskless(OnNoData::SuspendIo);
    pair.hold = Some(|m| matches!(m, Message::Barrier { .. }));
    pair.write(0, 8192, 3);
    pair.drop_held();
    pair.cut();
    pair.settle();
    pair.client(0, ClientOp::Flush).unwrap();
    pair.crash(1);
    start_again(&mut pair, 1);
    assert_eq!((connections(&pair), read(&mut pair, 0, 8192)), ([ConnectionState::Connected; 2], 3));
}

/// What clients have seen is the peer's, not what a disk held that was lost before it was brought up to date.
#[test]
fn a_new_disk_that_is_lost_in_its_resync_changes_nothing_of_what_clients_have_seen() {
    let mut pair = diskless(OnNoData::SuspendIo);
    pair.replace_disk(0, DISK_BYTES, 1);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Inconsistent);
    pair.command(0, Command::ForceDetach).unwrap();
    pair.drop_held();
    pair.cut();
    pair.settle();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    assert_eq!(read(&mut pair, 0, 4096), 2);
}

/// What a disk lacks that was being brought up to date is not what the peer lacks.
#[test]
fn a_disk_that_is_lost_in_its_resync_after_the_peer_was_makes_nothing_of_the_peers_copy() {
    let mut pair = diskless(OnNoData::SuspendIo);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.attach(0).unwrap();
    assert_eq!(status(&pair, 0).disk, DiskState::Inconsistent);
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    pair.drop_held();
    pair.command(0, Command::ForceDetach).unwrap();
    pair.heal();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    assert_eq!(read(&mut pair, 0, 4096), 2);
}

/// Simulator: seed 1469 C. The target had the last block when its source's disk was lost: it is the copy that there is, and stays it.
#[test]
fn a_target_that_becomes_complete_when_its_source_is_lost_is_the_last_copy() {
    let mut pair = synced(Options::default());
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.hold = Some(|m| {
        let good = matches!(m, Message::State { disk: DiskState::UpToDate, .. });
        good || matches!(m, Message::ResyncWritten { .. } | Message::ResyncDone)
    });
    pair.command(1, Command::Connect).unwrap();
    pair.command(0, Command::ForceDetach).unwrap();
    pair.deliver();
    assert_eq!((status(&pair, 1).disk, read(&mut pair, 0, 0)), (DiskState::UpToDate, 1));
    pair.cut();
    pair.settle();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    assert_eq!(read(&mut pair, 0, 0), 1);
}

/// Simulator: seed 1469 C. What is detached in good order has lost nothing, nor has a Primary that meets its peer without it.
#[test]
fn a_last_copy_that_was_detached_without_its_primary_is_taken_back() {
    for fencing in [Fencing::DontCare, Fencing::ResourceOnly] {
        let on_no_data = OnNoData::SuspendIo;
        let mut pair = synced(Options { on_no_data, fencing, ..Options::default() });
        pair.command(0, Command::Detach).unwrap();
        pair.hold = Some(|m| matches!(m, Message::Barrier { .. }));
        pair.write(0, 4096, 2);
        pair.link_is_down = true;
        pair.cut();
        pair.settle();
        pair.drop_held();
        pair.command(1, Command::Detach).unwrap();
        pair.heal();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2], "{fencing:?}");
        pair.cut();
        pair.attach(1).unwrap();
        pair.settle();
        assert_eq!(connections(&pair), [ConnectionState::Connected; 2], "{fencing:?}");
        assert_eq!(read(&mut pair, 0, 4096), 2);
    }
}

/// Simulator: seed 375 C. The peer's disk fails before it names the generation that begins without the Primary's: nothing was
/// written in that one.
#[test]
fn a_last_copy_that_failed_before_its_generation_was_on_disk_is_taken_back() {
    let on_no_data = OnNoData::SuspendIo;
    let mut pair = synced(Options { on_no_data, ..Options::default() });
    pair.write(0, 0, 1);
    pair.client(0, ClientOp::Flush).unwrap();
    pair.slow_disk = Some((1, Device::Meta));
    pair.command(0, Command::ForceDetach).unwrap();
    let write = pair.begin_write(0, 4096, 2);
    assert_eq!(pair.answered(write), None);
    pair.disk_fails[1] = true;
    pair.finish_slow();
    (pair.slow_disk, pair.disk_fails) = (None, [false; 2]);
    assert_eq!(status(&pair, 1).disk, DiskState::Diskless);
    pair.attach(1).unwrap();
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    assert!(pair.completed(write));
    assert_eq!(read(&mut pair, 0, 0), 1);
}

/// Simulator: seed 3673 B. It has received what it has not applied yet when the Primary's disk comes back: that is sent nothing older.
#[test]
fn a_last_copy_applies_what_it_has_received_before_it_brings_a_disk_up_to_date() {
    let mut pair = synced(Options { protocol: Protocol::B, ..Options::default() });
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.command(1, Command::Connect).unwrap();
    pair.slow_disk = Some((1, Device::Data));
    pair.deliver();
    // Each is an epoch of its own, and waits for those before.
    for offset in [16384, 20480, 24576, 28672, 32768, 36864, 8192] {
        pair.write(0, offset, 2);
    }
    while peer(&pair, 1).out_of_sync_bytes > 0 {
        assert!(pair.finish_slow() > 0);
    }
    pair.command(0, Command::ForceDetach).unwrap();
    while status(&pair, 1).disk != DiskState::UpToDate {
        assert!(pair.finish_slow() > 0);
    }
    assert_eq!(pair.nodes[1].disk.0[8192], 0, "it was applied already");
    let attaching = pair.begin_attach(0);
    while pair.finish_slow() > 0 {}
    assert_eq!(pair.ended(attaching), Some(Ok(())));
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[8192], 2);
}
