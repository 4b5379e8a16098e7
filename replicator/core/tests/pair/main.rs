//! Scenarios of two nodes: what must work when nothing goes wrong, and one for every bug that the simulator found.

#![allow(clippy::unwrap_used)]

mod activity_log;
mod authentication;
mod commands;
mod congestion;
mod disks;
mod epochs;
mod exposed;
mod fail_nth;
mod fencing;
mod generations;
mod handlers;
mod harness;
mod hostile;
mod invalidate;
mod lifecycle;
mod meetings;
mod newcomer;
mod no_data;
mod offline;
mod options;
mod outdated;
mod primary_disk;
mod quorum;
mod resize;
mod rest;
mod restarts;
mod resync;
mod roles;
mod scene;
mod settings;
mod sizes;
mod split_brain;
mod truck;
mod verify;
mod volumes;

use harness::Pair;
use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

#[test]
fn a_fresh_pair_waits_for_somebody_to_decide() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    let status = pair.nodes[0].engine.status(pair.now);
    assert_eq!((status.disk, status.peers[0].disk), (DiskState::Inconsistent, DiskState::Inconsistent));
    assert_eq!(status.peers[0].connection, ConnectionState::Connected);
    let refused = pair.command(0, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-2) Need access to UpToDate data");
    assert_eq!(refused.exit_code(), 17);
}

#[test]
fn force_primary_syncs_the_peer_and_writes_reach_it() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = Pair::new(protocol);
        pair.nodes[0].disk.0[..8192].fill(0xaa);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.assert_in_sync();
        pair.write(0, 4096 * 7, 0x55);
        pair.client(0, ClientOp::Flush).unwrap();
        let range = ByteRange::new(4096, 4096);
        pair.client(0, ClientOp::Zero { range, unmap: true, fua: true }).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.client(0, ClientOp::Read(ByteRange::new(4096 * 7, 512))).unwrap()[..], [0x55; 512]);
        assert_eq!(pair.nodes[1].disk.0[4096], 0);
    }
}

#[test]
fn a_second_primary_is_refused() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    let refused = pair.command(1, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-1) Multiple primaries not allowed by config");
    assert_eq!(refused.exit_code(), 11);
    assert_eq!(refused.detail(), ["alpha is Primary"]);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(1, Command::Primary { force: false }).unwrap();
    pair.write(1, 0, 1);
    pair.assert_in_sync();
}

#[test]
fn an_open_device_refuses_demotion_and_names_the_client() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    assert!(pair.nodes[0].engine.open("x".into()).is_err());
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.nodes[0].engine.open("nbdcopy (pid 7)".into()).unwrap();
    let refused = pair.command(0, Command::Secondary).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-12) Device is held open by someone");
    assert_eq!(refused.detail(), ["opened by nbdcopy (pid 7)"]);
    pair.nodes[0].engine.close("nbdcopy (pid 7)");
    pair.command(0, Command::Secondary).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).role, Role::Secondary);
}

#[test]
fn after_a_cut_exactly_the_blocks_written_meanwhile_are_resynced() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Outdated);
    pair.write(0, 4096 * 3, 3);
    pair.write(0, 4096 * 9, 9);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 8192);
    let received = pair.nodes[1].engine.status(pair.now).peers[0].received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].engine.status(pair.now).peers[0].received_bytes - received, 8192);
}

#[test]
fn the_survivor_is_promoted_and_the_old_primary_returns_as_target() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = Pair::new(protocol);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.write(0, 0, 1);
        pair.crash(0);
        pair.command(1, Command::Primary { force: false }).unwrap();
        pair.write(1, 8192, 2);
        pair.attach(0).unwrap();
        pair.command(0, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[0].disk.0[8192]), (1, 2));
    }
}

#[test]
fn both_sides_of_a_split_brain_stand_alone_and_keep_their_data() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(0, Command::Disconnect).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.command(1, Command::Primary { force: false }).unwrap();
    pair.write(0, 0, 1);
    pair.write(1, 0, 2);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    for n in 0..2 {
        let status = pair.nodes[n].engine.status(pair.now);
        assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
        assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("Split-Brain detected"));
        assert_eq!(pair.nodes[n].disk.0[0], n as u8 + 1);
    }
}

#[test]
fn detach_and_attach_of_a_secondary_costs_what_was_written_meanwhile() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Detach).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].disk, DiskState::Diskless);
    pair.write(0, 4096 * 5, 5);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 4096);
    pair.attach(1).unwrap();
    pair.assert_in_sync();
}

fn generation(pair: &Pair, n: usize) -> u64 {
    pair.nodes[n].engine.status(pair.now).generations.current
}

fn primary(pair: &mut Pair, n: usize) {
    pair.command(n, Command::Primary { force: false }).unwrap();
}

fn reconnect(pair: &mut Pair, n: usize) {
    pair.attach(n).unwrap();
    pair.command(n, Command::Connect).unwrap();
}

/// Simulator: seeds 56 B, 194 A.
#[test]
fn a_primary_that_crashed_before_its_first_write_is_no_half_of_a_split_brain() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(0, Command::Secondary).unwrap();
    pair.crash(0);
    pair.crash(1);
    pair.attach(0).unwrap();
    primary(&mut pair, 0);
    pair.crash(0);
    pair.attach(1).unwrap();
    primary(&mut pair, 1);
    pair.write(1, 0, 7);
    pair.command(1, Command::Connect).unwrap();
    reconnect(&mut pair, 0);
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[0], 7);
}

/// Simulator: seed 956 A.
#[test]
fn a_node_alone_begins_a_generation_before_it_shows_its_data() {
    let mut pair = Pair::new(Protocol::A);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.crash(0);
    primary(&mut pair, 1);
    let before = generation(&pair, 1);
    pair.client(1, ClientOp::Read(ByteRange::new(0, 512))).unwrap();
    assert_ne!(generation(&pair, 1), before);
    reconnect(&mut pair, 0);
    pair.assert_in_sync();
    assert_eq!(generation(&pair, 0), generation(&pair, 1));
}

/// Simulator: seed 1766 B.
#[test]
fn a_crashed_primary_that_is_promoted_alone_decides_at_once() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.crash(0);
    pair.attach(0).unwrap();
    let before = generation(&pair, 0);
    primary(&mut pair, 0);
    assert_ne!(generation(&pair, 0), before);
    pair.command(0, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].engine.status(pair.now).role, Role::Primary);
}

/// Simulator: seed 2636 B.
#[test]
fn a_target_that_was_promoted_before_the_source_heard_of_the_end_stays_primary() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 1);
    pair.command(0, Command::Secondary).unwrap();
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::UpToDate);
    primary(&mut pair, 1);
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].engine.status(pair.now).role, Role::Primary);
}

/// Simulator: seed 165 A. The target may not be promoted once it was chosen, whatever becomes of the connection.
#[test]
fn a_chosen_target_is_outdated_at_once() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.cut_at = Some(|m| matches!(m, Message::Write { .. }));
    pair.write(0, 4096, 1);
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::UpToDate);
    pair.cut_at = Some(|m| matches!(m, Message::BitmapChunk { .. }));
    pair.heal();
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Outdated);
    let refused = pair.command(1, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.exit_code(), 17);
    pair.heal();
    pair.assert_in_sync();
}

/// Simulator: seed 2911 B. A crash while the second copy was written, then one while the first was.
#[test]
fn a_damaged_superblock_copy_is_replaced_before_the_good_one_is_touched() {
    let mut pair = Pair::new(Protocol::C);
    pair.attach(0).unwrap();
    let size = pair.nodes[0].disk.0.len();
    let copies = [size - 4096, size - 8192];
    for damaged in copies {
        pair.crash(0);
        pair.nodes[0].disk.0[damaged + 100] ^= 1;
        pair.written_first = None;
        pair.attach(0).unwrap();
        assert_eq!(pair.written_first, Some(damaged as u64));
    }
}

/// Simulator: seed 3634 C. What a lost Primary sent must be durable before it is offered to a target.
#[test]
fn a_secondary_flushes_before_it_says_what_it_has() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.cut_at = Some(|m| matches!(m, Message::Barrier { .. }));
    pair.write(0, 0, 1);
    pair.crash(0);
    reconnect(&mut pair, 0);
    let before = pair.data_flushes[1];
    pair.cut_at = Some(|m| matches!(m, Message::Handshake(h) if !h.crashed_primary));
    pair.heal();
    assert_eq!(pair.data_flushes[1], before + 1);
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[0], 1);
}
