//! A disk comes to a Primary, or goes, while its clients are at work: named after the tests of DRBD's suite that they follow.

use tandem_core::config::{Fencing, Options, Protocol};
use tandem_core::io::{ClientOp, Command, Device, Payload};
use tandem_core::metadata::{self, Carelessness, Placement};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::{ByteRange, NodeId};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, EXTENT_BYTES, Pair};
use crate::scene::{PROTOCOLS, connections, peer, read, start_again, status, synced};

/// Node 0 is Primary without a disk; the peer has written what its disk lacks.
fn diskless(protocol: Protocol) -> Pair {
    let mut pair = synced(protocol);
    pair.write(0, 8192, 1);
    pair.command(0, Command::Detach).unwrap();
    assert_eq!((status(&pair, 0).disk, peer(&pair, 1).disk), (DiskState::Diskless, DiskState::Diskless));
    pair.write(0, 0, 2);
    pair
}

#[test]
fn toggle_disk_of_a_primary() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        for round in 1..=10_u8 {
            pair.write(0, 4096 * u64::from(round), round);
            pair.command(0, Command::Detach).unwrap();
            assert_eq!(read(&mut pair, 0, 4096 * u64::from(round)), round);
            pair.write(0, 0, round);
            pair.client(0, ClientOp::Flush).unwrap();
            pair.attach(0).unwrap();
            pair.assert_in_sync();
            assert_eq!((pair.nodes[0].disk.0[0], read(&mut pair, 0, 0)), (round, round));
        }
        assert_eq!(status(&pair, 0).role, Role::Primary);
    }
}

/// Only what was written meanwhile is sent.
#[test]
fn attach_to_a_primary_resyncs_what_it_missed() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.attach(0).unwrap();
    assert_eq!(
        (status(&pair, 0).disk, peer(&pair, 0).replication),
        (DiskState::Inconsistent, ReplicationState::SyncTarget)
    );
    assert_eq!(peer(&pair, 0).out_of_sync_bytes, 4096);
    pair.deliver();
    pair.assert_in_sync();
}

/// What the disk lacks is read from the peer, the rest here.
#[test]
fn a_primary_that_is_a_target_reads_each_block_where_it_is() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.attach(0).unwrap();
    let from_peer = status(&pair, 1).disk_read_bytes;
    assert_eq!(read(&mut pair, 0, 8192), 1);
    assert_eq!(status(&pair, 1).disk_read_bytes, from_peer, "a block that is here was read from the peer");
    assert_eq!(read(&mut pair, 0, 0), 2);
    assert_eq!(status(&pair, 1).disk_read_bytes, from_peer + 4096);
    let both = pair.client(0, ClientOp::Read(ByteRange::new(0, 12288))).unwrap();
    assert_eq!((both[0], both[8192]), (2, 1));
    pair.deliver();
    pair.assert_in_sync();
}

/// A block is on its way: a write to it waits, and is not overwritten.
#[test]
fn write_during_resync_of_a_primary() {
    for protocol in PROTOCOLS {
        let mut pair = diskless(protocol);
        pair.hold = Some(|m| matches!(m, Message::ResyncData { .. }));
        pair.attach(0).unwrap();
        let write = pair.begin_write(0, 0, 3);
        assert!(!pair.completed(write));
        pair.write(0, 16384, 4);
        pair.deliver();
        assert!(pair.completed(write));
        assert_eq!(read(&mut pair, 0, 0), 3);
        pair.assert_in_sync();
    }
}

/// Until the disk says that it is a mixture, nothing is written to it, and no client is told that it was.
#[test]
fn writes_wait_while_the_disk_meets_the_peer() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::Handshake(_)));
    pair.attach(0).unwrap();
    let write = pair.begin_write(0, 4096, 3);
    assert!(!pair.completed(write));
    assert_eq!(read(&mut pair, 0, 0), 2, "reads go on");
    pair.deliver();
    assert!(pair.completed(write));
    pair.assert_in_sync();
}

#[test]
fn resync_of_a_primary_is_interrupted() {
    for lost in 0..2 {
        let mut pair = diskless(Protocol::C);
        pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
        pair.attach(0).unwrap();
        pair.write(0, 4096, 3);
        pair.link_is_down = true;
        pair.cut();
        pair.drop_held();
        pair.settle();
        assert!(pair.client(0, ClientOp::Read(ByteRange::new(0, 4096))).is_err());
        let payload = Payload::new(vec![9; 4096].into());
        assert!(pair.client(0, ClientOp::Write { offset: 12288, payload, fua: false }).is_err());
        if lost == 1 {
            pair.crash(0);
            start_again(&mut pair, 0);
        }
        pair.heal();
        pair.assert_in_sync();
        assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[0].disk.0[4096]), (2, 3));
    }
}

/// Simulator: seed 82628 C. What was under way when the source was lost fails before anybody can say that good data is there.
#[test]
fn a_write_that_has_lost_the_source_ends_before_the_disk_meets_it_again() {
    let mut pair = diskless(Protocol::C);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.attach(0).unwrap();
    pair.slow_disk = Some((0, Device::Data));
    let write = pair.begin_write(0, 16384, 4);
    pair.link_is_down = true;
    pair.cut();
    pair.drop_held();
    pair.heal();
    assert_eq!(pair.answered(write), None);
    assert_ne!(peer(&pair, 0).connection, ConnectionState::Connected);
    pair.slow_disk = None;
    pair.finish_slow();
    assert!(pair.answered(write).is_some_and(|r| r.is_err()));
    pair.assert_in_sync();
}

#[test]
fn the_last_good_copy_is_not_detached() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    let refused = pair.command(0, Command::Detach).unwrap_err();
    assert_eq!(
        (refused.to_string().as_str(), refused.exit_code()),
        ("State change failed: (-2) Need access to UpToDate data", 17)
    );
    pair.command(1, Command::Connect).unwrap();
    pair.command(0, Command::Detach).unwrap();
    assert_eq!(pair.command(1, Command::Detach).unwrap_err().exit_code(), 17);
    assert_eq!(read(&mut pair, 0, 0), 0);
    pair.command(1, Command::ForceDetach).unwrap();
    assert!(pair.client(0, ClientOp::Read(ByteRange::new(0, 4096))).is_err());
}

/// The disk hangs: detach waits, and is overtaken by force.
#[test]
fn interrupt_detach() {
    let mut pair = synced(Protocol::C);
    pair.slow_disk = Some((0, Device::Data));
    let write = pair.begin_write(0, 0, 7);
    let detach = pair.begin_command(0, Command::Detach);
    assert_eq!(pair.ended(detach), None);
    pair.command(0, Command::ForceDetach).unwrap();
    assert_eq!(pair.ended(detach), Some(Ok(())));
    assert!(pair.completed(write));
    assert_eq!((status(&pair, 0).disk, read(&mut pair, 0, 0)), (DiskState::Failed, 7));
    pair.finish_slow();
    pair.slow_disk = None;
    pair.attach(0).unwrap();
    pair.assert_in_sync();
}

/// A new disk in the failed one's place is filled while clients are at work.
#[test]
fn recreate_the_disk_of_a_primary() {
    let mut pair = diskless(Protocol::C);
    pair.replace_disk(0, DISK_BYTES, 1);
    pair.attach(0).unwrap();
    pair.assert_in_sync();
    assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[0].disk.0[8192]), (2, 1));
    pair.command(0, Command::Detach).unwrap();
    pair.replace_disk(0, DISK_BYTES / 2, 1);
    let refused = pair.attach(0).unwrap_err();
    assert_eq!(refused.to_string(), "Failure: (111) Low.dev. smaller than requested DRBD-dev. size.");
    assert_eq!(read(&mut pair, 0, 0), 2);
}

/// Data that has nothing to do with what clients use is not taken; they do not notice.
#[test]
fn unrelated_data_is_not_attached_to_a_primary() {
    let mut other = Pair::new(Protocol::C);
    // Others draw other identifiers.
    (0..2).for_each(|n| other.crash(n));
    other.up();
    other.command(0, Command::Primary { force: true }).unwrap();
    other.write(0, 0, 9);
    let mut pair = diskless(Protocol::C);
    std::mem::swap(&mut pair.nodes[0].disk, &mut other.nodes[0].disk);
    pair.attach(0).unwrap();
    assert_eq!((status(&pair, 0).disk, status(&pair, 0).role), (DiskState::Diskless, Role::Primary));
    assert_eq!(connections(&pair), [ConnectionState::Connected; 2]);
    assert_eq!(read(&mut pair, 0, 0), 2);
    pair.write(0, 4096, 3);
    std::mem::swap(&mut pair.nodes[0].disk, &mut other.nodes[0].disk);
    pair.attach(0).unwrap();
    pair.assert_in_sync();
}

/// Without its peer nobody can tell whether the disk has what clients have seen.
#[test]
fn a_primary_alone_gets_no_disk() {
    let mut pair = diskless(Protocol::C);
    pair.link_is_down = true;
    pair.cut();
    let refused = pair.attach(0).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Failure: (150) Can only attach to the data we lost last (see kernel log)."
    );
    pair.heal();
    pair.attach(0).unwrap();
    pair.assert_in_sync();
}

/// After a disk has failed, what it may lack is resynced, and no more.
#[test]
fn io_errors() {
    for failing in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.write(0, 65536, 1);
        pair.disk_fails[failing] = true;
        pair.write(0, 0, 2);
        assert_eq!(status(&pair, failing).disk, DiskState::Diskless);
        pair.disk_fails[failing] = false;
        pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
        pair.attach(failing).unwrap();
        let marked = peer(&pair, failing).out_of_sync_bytes;
        assert!((4096..=65536).contains(&marked), "{marked} bytes are resynced");
        pair.deliver();
        pair.assert_in_sync();
    }
}

/// Simulator: seed 46152 C. The write came while no good data could be reached, and waited for the undo log of the resync that had
/// just ended; by then the disk was good.
#[test]
fn a_write_that_waited_for_the_undo_log_is_noted_before_it_begins() {
    let mut pair = Pair::new(Protocol::C);
    pair.undo_logs = true;
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(0, Command::Detach).unwrap();
    pair.write(0, 0, 2);
    pair.hold = Some(|m| matches!(m, Message::ResyncData { .. }));
    pair.attach(0).unwrap();
    pair.slow_disk = Some((0, Device::Meta));
    pair.deliver();
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    let at = 16 * EXTENT_BYTES;
    let write = pair.begin_write(0, at, 7);
    while !pair.completed(write) {
        assert!(pair.finish_slow() > 0, "the write does not end");
        let disk = &mut pair.nodes[0].disk;
        let written = disk.0[at as usize] == 7;
        let metadata = metadata::load(disk, Placement::Internal, DISK_BYTES as u64, NodeId(0)).unwrap();
        let logged = metadata
            .hot_ranges(Carelessness::default())
            .iter()
            .any(|hot| hot.overlaps(ByteRange::new(at, 1)));
        assert!(!written || logged || metadata.bitmaps[0].is_set(at / 4096));
    }
}

/// DRBD refuses it as well: what the clients use would be gone.
#[test]
fn a_primary_does_not_leave_the_peer_that_it_works_through() {
    for options in [Options::default(), Options { fencing: Fencing::ResourceOnly, ..Options::default() }] {
        let mut pair = Pair::with_options(&options);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.write(0, 0, 1);
        pair.command(0, Command::Detach).unwrap();
        let refused = pair.command(0, Command::Disconnect).unwrap_err();
        assert_eq!((refused.to_string().lines().next(), refused.exit_code()), (Some(NO_GOOD_DISK), 17));
        assert_eq!((status(&pair, 1).disk, peer(&pair, 0).disk), (DiskState::UpToDate, DiskState::UpToDate));
        pair.write(0, 4096, 2);
        pair.command(0, Command::ForceDisconnect).unwrap();
        assert!(status(&pair, 1).disk >= DiskState::Consistent, "it was not told to grow old");
        assert_eq!(connections(&pair)[0], ConnectionState::StandAlone);
        if options.fencing != Fencing::DontCare {
            continue;
        }
        // With a disk of its own it may.
        pair.command(0, Command::Connect).unwrap();
        pair.attach(0).unwrap();
        pair.command(0, Command::Disconnect).unwrap();
    }
}
/// Nor does the peer leave it: what it has is not old while nothing can be written elsewhere.
#[test]
fn who_serves_a_primary_without_a_disk_does_not_leave_it() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.command(0, Command::Detach).unwrap();
    let refused = pair.command(1, Command::Disconnect).unwrap_err();
    assert_eq!((refused.to_string().lines().next(), refused.exit_code()), (Some(NO_GOOD_DISK), 17));
    pair.write(0, 4096, 2);
    pair.command(1, Command::ForceDisconnect).unwrap();
    assert_eq!(
        (connections(&pair)[1], status(&pair, 1).disk),
        (ConnectionState::StandAlone, DiskState::UpToDate)
    );
    pair.command(1, Command::Connect).unwrap();
    pair.attach(0).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated, "the Primary goes on without it");
}
const NO_GOOD_DISK: &str = "State change failed: (-2) Need access to UpToDate data";
