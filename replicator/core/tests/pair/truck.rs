//! `new-current-uuid`: DRBD's tests `initial-uuid-uptodate` and `force-resync`, and copies that travel by truck.

use tandem_core::config::{Options, Protocol};
use tandem_core::io::{Command, Device};
use tandem_core::metadata::{self, LoadError, Placement};
use tandem_core::state::DiskState;
use tandem_core::units::NodeId;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROTOCOLS, peer, start_again, status, synced};

const CLEAR: Command = Command::NewCurrentUuid { clear_bitmap: true };
const KEEP: Command = Command::NewCurrentUuid { clear_bitmap: false };

fn adopt(pair: &mut Pair, n: usize) -> Result<(), LoadError> {
    metadata::adopt(&mut pair.nodes[n].disk, Placement::Internal, NodeId(n as u8))
}

/// Node 1's disk becomes a copy of node 0's, its metadata included.
fn copy(pair: &mut Pair) {
    pair.nodes[1].disk.0 = pair.nodes[0].disk.0.clone();
}

#[test]
fn two_fresh_disks_begin_together() {
    for protocol in PROTOCOLS {
        let mut pair = Pair::new(protocol);
        pair.up();
        pair.command(1, CLEAR).unwrap();
        pair.assert_in_sync();
        assert_eq!(peer(&pair, 1).received_bytes + peer(&pair, 0).received_bytes, 0);
        pair.crash(0);
        start_again(&mut pair, 0);
        pair.assert_in_sync();
        pair.command(0, Command::Primary { force: false }).unwrap();
        pair.write(0, 4096, 7);
        pair.assert_in_sync();
    }
}

#[test]
fn a_generation_by_command_needs_a_node_that_stands_alone() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    let text = "Failure: (151) Need to be StandAlone";
    assert_eq!(pair.command(0, KEEP).unwrap_err().to_string(), text);
    let mut pair = synced(Protocol::C);
    assert_eq!(pair.command(0, CLEAR).unwrap_err().to_string(), text);
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Outdated);
    assert_eq!(pair.command(1, CLEAR).unwrap_err().exit_code(), 17);
    pair.command(1, Command::Detach).unwrap();
    assert_eq!(
        pair.command(1, CLEAR).unwrap_err().to_string(),
        "Failure: (138) Device does not have a disk-config"
    );
}

/// A crash at each step of clearing the bitmap: either it is still there, or the disk says that it counts for nothing.
#[test]
fn a_crash_while_the_bitmap_is_cleared() {
    for steps in 0..12 {
        let mut pair = synced(Protocol::C);
        pair.write(0, 0, 1);
        pair.hold = Some(|m| matches!(m, Message::Write { .. }));
        pair.begin_write(0, 0, 2);
        pair.crash(0);
        pair.drop_held();
        pair.attach(0).unwrap();
        pair.slow_disk = Some((0, Device::Meta));
        pair.begin_command(0, CLEAR);
        for _ in 0..steps {
            pair.finish_slow();
        }
        pair.slow_disk = None;
        pair.crash(0);
        start_again(&mut pair, 0);
        pair.assert_in_sync();
    }
}

#[test]
fn a_copy_of_the_disk_costs_what_was_written_since() {
    let mut pair = Pair::new(Protocol::C);
    pair.attach(0).unwrap();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.command(0, CLEAR).unwrap();
    assert_eq!(peer(&pair, 0).out_of_sync_bytes, 0);
    copy(&mut pair);
    pair.write(0, 4096 * 5, 5);
    pair.command(0, KEEP).unwrap();
    pair.write(0, 4096 * 9, 9);
    adopt(&mut pair, 1).unwrap();
    pair.attach(1).unwrap();
    assert_eq!(status(&pair, 1).disk, DiskState::Inconsistent);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(peer(&pair, 1).received_bytes, 2 * 4096);
}

#[test]
fn writes_under_way_while_the_bitmap_is_cleared_stay_marked() {
    let mut pair = Pair::new(Protocol::C);
    pair.attach(0).unwrap();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.slow_disk = Some((0, Device::Data));
    pair.begin_write(0, 4096 * 3, 3);
    pair.slow_disk = None;
    pair.command(0, CLEAR).unwrap();
    copy(&mut pair);
    pair.finish_slow();
    assert_eq!(peer(&pair, 0).out_of_sync_bytes, 4096);
}

/// The same with nothing to clear: the peer had acknowledged it, the copy may lack it all the same.
#[test]
fn writes_under_way_while_nothing_is_marked_are_marked() {
    let mut pair = Pair::with_options(&Options { max_epoch_size: 1, ..Options::default() });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair.slow_disk = Some((0, Device::Data));
    pair.begin_write(0, 4096 * 3, 3);
    pair.slow_disk = None;
    for n in [1, 0] {
        pair.command(n, Command::Disconnect).unwrap();
    }
    pair.command(0, CLEAR).unwrap();
    copy(&mut pair);
    pair.finish_slow();
    pair.command(0, KEEP).unwrap();
    adopt(&mut pair, 1).unwrap();
    pair.crash(1);
    start_again(&mut pair, 1);
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
}

#[test]
fn a_node_that_comes_with_its_old_disk_instead_gets_what_it_lacks() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096 * 3, 3);
    pair.command(0, Command::Disconnect).unwrap();
    pair.command(0, CLEAR).unwrap();
    pair.write(0, 4096 * 4, 4);
    pair.command(0, KEEP).unwrap();
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
}

#[test]
fn a_copy_that_was_not_prepared_is_refused() {
    let mut pair = synced(Protocol::C);
    pair.crash(1);
    copy(&mut pair);
    assert!(adopt(&mut pair, 1).unwrap_err().to_string().contains("was not prepared for this node"));
    assert!(adopt(&mut pair, 0).unwrap_err().to_string().contains("not a copy of another node's disk"));
}
