//! The activity log: what a crash marks, what a hit costs, and who waits for whom.

use tandem_core::config::{Options, Protocol, ResyncOptions};
use tandem_core::io::{ClientOp, Command, Payload};
use tandem_core::state::DiskState;
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::harness::{EXTENT_BYTES, Pair};

const SLOTS: u16 = 7;

/// A pair in sync, its Primary on node 0, with a small activity log.
fn pair() -> Pair {
    pair_with(Options::default())
}

fn pair_with(options: Options) -> Pair {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let mut pair = Pair::with_options(&Options { al_extents: SLOTS, resync, ..options });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair
}

fn write(extent: u64) -> ClientOp {
    let payload = Payload::new(vec![extent as u8 + 1; 4096].into());
    ClientOp::Write { offset: extent * EXTENT_BYTES, payload, fua: false }
}

fn transactions(pair: &Pair) -> u64 {
    pair.nodes[0].engine.status(pair.now).activity_log_writes
}

/// Crashes the Primary and attaches its disk again without the peer; the bytes out of sync.
fn crash_alone(pair: &mut Pair) -> u64 {
    pair.link_is_down = true;
    pair.crash(0);
    pair.attach(0).unwrap();
    pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes
}

#[test]
fn a_hit_costs_no_metadata_write() {
    let mut pair = pair();
    for _ in 0..10 {
        for extent in 0..u64::from(SLOTS) {
            pair.client(0, write(extent)).unwrap();
        }
    }
    assert_eq!(transactions(&pair), u64::from(SLOTS));
}

#[test]
fn writers_that_wait_share_a_transaction() {
    let mut pair = pair();
    let first = pair.begin_client(0, write(0));
    assert!(pair.answered(first).is_some());
    pair.hold = Some(|message| matches!(message, Message::BarrierAck { .. }));
    for extent in 1..u64::from(SLOTS) {
        pair.client(0, write(extent)).unwrap();
    }
    let waiting: Vec<_> = (20..26).map(|extent| pair.begin_client(0, write(extent))).collect();
    let before = transactions(&pair);
    pair.deliver();
    assert!(waiting.into_iter().all(|id| pair.answered(id).is_some_and(|result| result.is_ok())));
    assert!(transactions(&pair) < before + 6, "{} for six", transactions(&pair) - before);
}

#[test]
fn a_crash_marks_hot_extents_only() {
    let mut pair = pair();
    pair.client(0, write(3)).unwrap();
    pair.client(0, write(40)).unwrap();
    assert_eq!(crash_alone(&mut pair), 2 * EXTENT_BYTES);
    pair.link_is_down = false;
    pair.command(0, Command::Connect).unwrap();
    pair.heal();
    pair.assert_in_sync();
}

#[test]
fn a_crash_without_a_log_marks_everything() {
    let mut pair = pair_with(Options { al_updates: false, ..Options::default() });
    pair.client(0, write(3)).unwrap();
    assert_eq!(transactions(&pair), 0);
    let size = pair.nodes[0].engine.size_bytes();
    assert_eq!(crash_alone(&mut pair), size);
}

#[test]
fn demotion_empties_the_log() {
    let mut pair = pair();
    pair.client(0, write(3)).unwrap();
    pair.command(0, Command::Secondary).unwrap();
    assert_eq!(crash_alone(&mut pair), 0);
}

#[test]
fn a_clean_extent_may_be_forgotten_one_that_is_held_may_not() {
    let mut pair = pair();
    pair.hold = Some(|message| matches!(message, Message::BarrierAck { .. }));
    for extent in 0..u64::from(SLOTS) {
        pair.client(0, write(extent)).unwrap();
    }
    let waiting = pair.begin_client(0, write(30));
    let hit = pair.begin_client(0, write(0));
    assert!(pair.answered(waiting).is_none(), "every slot is held until a barrier is acknowledged");
    assert!(pair.answered(hit).is_none(), "nobody goes before the one who waits for a slot");
    pair.deliver();
    assert!(pair.answered(waiting).unwrap().is_ok());
    assert!(pair.answered(hit).unwrap().is_ok());
    assert_eq!(crash_alone(&mut pair), u64::from(SLOTS) * EXTENT_BYTES);
}

/// Acknowledgements are kept back, so that no completion closes the epoch.
#[test]
fn an_epoch_that_holds_every_slot_is_closed() {
    let mut pair = pair();
    pair.hold = Some(|message| matches!(message, Message::WriteAck { .. } | Message::BarrierAck { .. }));
    let mut ids: Vec<_> = (0..u64::from(SLOTS)).map(|extent| pair.begin_client(0, write(extent))).collect();
    let closed_epochs = |pair: &Pair| pair.nodes[0].engine.status(pair.now).epochs;
    assert_eq!(closed_epochs(&pair), 0);
    ids.push(pair.begin_client(0, write(30)));
    assert_eq!(closed_epochs(&pair), 1);
    assert!(ids.iter().all(|id| pair.answered(*id).is_none()));
    pair.deliver();
    assert!(ids.iter().all(|id| pair.answered(*id).is_some()));
}

#[test]
fn the_bits_of_an_absent_peer_are_not_lost_with_their_extents() {
    let mut pair = pair();
    pair.command(1, Command::Disconnect).unwrap();
    for extent in 0..30 {
        pair.client(0, write(extent)).unwrap();
    }
    let hot = u64::from(SLOTS) * EXTENT_BYTES;
    assert_eq!(crash_alone(&mut pair), hot + (30 - u64::from(SLOTS)) * 4096);
    pair.link_is_down = false;
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.heal();
    pair.assert_in_sync();
}

#[test]
fn a_write_that_waits_goes_on_through_the_peer_when_the_disk_fails() {
    let mut pair = pair();
    pair.client(0, write(3)).unwrap();
    pair.disk_fails[0] = true;
    pair.client(0, write(4)).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).disk, DiskState::Diskless);
    let start = (4 * EXTENT_BYTES) as usize;
    assert_eq!(pair.nodes[1].disk.0[start..start + 4096], [5; 4096]);
}

/// The survivor is the only copy: what it is sent is marked in its memory, and in its log.
#[test]
fn the_only_copy_behind_a_diskless_primary_keeps_a_log_too() {
    let mut pair = pair();
    pair.disk_fails[0] = true;
    pair.client(0, write(3)).unwrap();
    pair.client(0, write(4)).unwrap();
    let written = pair.nodes[1].engine.status(pair.now).activity_log_writes;
    assert!(written > 0, "{written}");
    pair.crash(1);
    pair.link_is_down = true;
    pair.cut();
    pair.attach(1).unwrap();
    let out_of_sync = pair.nodes[1].engine.status(pair.now).peers[0].out_of_sync_bytes;
    assert!(out_of_sync >= 2 * 4096, "{out_of_sync}");
}

#[test]
fn zeroes_of_any_length_are_written_in_pieces() {
    let mut pair = pair();
    pair.client(0, write(5)).unwrap();
    let size = pair.nodes[0].engine.size_bytes();
    let range = ByteRange::new(0, size);
    pair.client(0, ClientOp::Zero { range, unmap: true, fua: true }).unwrap();
    assert!(pair.nodes.iter().all(|n| n.disk.0[..size as usize].iter().all(|byte| *byte == 0)));
    pair.assert_in_sync();
}

/// DRBD's test of this name: few extents, writes everywhere, a crash.
#[test]
fn stress_al() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = pair_with(Options { protocol, ..Options::default() });
        for i in 0..400u64 {
            pair.client(0, write(i * 37 % 60)).unwrap();
        }
        let out_of_sync = crash_alone(&mut pair);
        assert!(out_of_sync <= u64::from(SLOTS) * EXTENT_BYTES, "{out_of_sync}");
        assert_eq!(pair.nodes[0].engine.status(pair.now).disk, DiskState::UpToDate);
        pair.link_is_down = false;
        pair.command(0, Command::Connect).unwrap();
        pair.heal();
        pair.assert_in_sync();
    }
}
