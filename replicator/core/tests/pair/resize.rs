//! Disks that grow, and volumes that grow with them: named after the tests of DRBD's suite that they follow where there are any.

use tandem_core::config::{CongestionOptions, Fencing, OnCongestion, Options, Protocol, ResyncOptions};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{ClientError, ClientOp, Command, Device, Payload, Resize};
use tandem_core::metadata::{self, LastPlace, Placement};
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::{ByteRange, NodeId};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::synced;

const LARGER: usize = DISK_BYTES + (256 << 10);

fn resize() -> Command {
    Command::Resize(Resize::default())
}

/// The disk gets larger; what is new holds something else on each node.
fn grow_disk(pair: &mut Pair, n: usize, bytes: usize) {
    pair.nodes[n].disk.0.resize(bytes, 0xa0 + n as u8);
}

fn grow_disks(pair: &mut Pair) {
    grow_disk(pair, 0, LARGER);
    grow_disk(pair, 1, LARGER);
}

fn sizes(pair: &Pair) -> [u64; 2] {
    [0, 1].map(|n| pair.nodes[n].engine.shown_bytes())
}

fn failure(result: Result<(), CommandError>) -> (u16, String) {
    match result {
        Err(CommandError::Failure { number, detail, .. }) => (number, detail.join(" ")),
        other => panic!("{other:?}"),
    }
}

/// What internal metadata for one peer leaves of a disk.
fn room(bytes: usize) -> u64 {
    metadata::Geometry::new(Placement::Internal, bytes as u64, bytes as u64, 1).unwrap().data_bytes
}

/// drbd9 tests: resize. The command is given on either node; what is new comes from the Primary.
#[test]
fn resize_online() {
    for commanded in 0..2 {
        let mut pair = synced(Protocol::C);
        pair.write(0, 4096, 1);
        grow_disks(&mut pair);
        pair.command(commanded, resize()).unwrap();
        assert_eq!(sizes(&pair), [room(LARGER); 2]);
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[room(LARGER) as usize - 1], 0xa0, "what is new is the Primary's");
        let last = room(LARGER) - 4096;
        pair.write(0, last, 2);
        pair.assert_in_sync();
        assert_eq!(pair.client(0, ClientOp::Read(ByteRange::new(4096, 512))).unwrap()[0], 1);
        // The metadata lies at the end, on both nodes: it survives.
        for n in [1, 0] {
            let bytes = LARGER as u64;
            let loaded =
                metadata::load(&mut pair.nodes[n].disk, Placement::Internal, bytes, NodeId(n as u8)).unwrap();
            assert_eq!(
                (loaded.superblock.agreed_bytes, loaded.superblock.backing_bytes),
                (room(LARGER), bytes)
            );
        }
    }
}

/// No client sees a byte of what is new before the size is durable and the peer has it too.
#[test]
fn the_size_is_shown_when_both_have_it() {
    let mut pair = synced(Protocol::C);
    let old = sizes(&pair)[0];
    grow_disks(&mut pair);
    pair.hold = Some(|message| matches!(message, Message::Handshake(_)));
    let command = pair.begin_command(0, resize());
    pair.settle();
    assert_eq!((pair.nodes[0].engine.size_bytes(), sizes(&pair)[0]), (room(LARGER), old));
    let payload = || Payload::new(vec![1; 4096].into());
    let write = |payload| ClientOp::Write { offset: old, payload, fua: false };
    assert_eq!(pair.client(0, write(payload())), Err(ClientError::OutOfRange));
    pair.deliver();
    pair.settle();
    assert_eq!(pair.ended(command), Some(Ok(())));
    pair.client(0, write(payload())).unwrap();
    pair.assert_in_sync();
}

/// Simulator: seed 1154 C. Nothing is sent that the peer would have to note first: what clients see must not be gone if only the peer
/// comes back.
#[test]
fn a_size_that_is_assumed_clean_is_shown_when_the_peers_disk_has_it() {
    let mut pair = synced(Protocol::C);
    let old = sizes(&pair);
    grow_disks(&mut pair);
    pair.hold = Some(|message| matches!(message, Message::Handshake(_)));
    let resizing = pair.begin_command(0, Command::Resize(Resize { assume_clean: true, ..Resize::default() }));
    pair.slow_disk = Some((1, Device::Meta));
    pair.deliver();
    assert_eq!((pair.nodes[1].engine.size_bytes(), sizes(&pair)), (room(LARGER), old));
    pair.slow_disk = None;
    while pair.finish_slow() > 0 {}
    assert_eq!(pair.ended(resizing), Some(Ok(())));
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
}

/// Whom fence-peer takes out of the way in its turn may be promoted, and has the old size.
#[test]
fn a_primary_that_is_frozen_shows_no_new_size() {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let options = Options { fencing: Fencing::ResourceAndStonith, resync, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[Handler::FencePeer]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    grow_disks(&mut pair);
    pair.slow_disk = Some((0, Device::Meta));
    let resizing = pair.begin_command(0, resize());
    while pair.nodes[0].engine.size_bytes() < room(LARGER) {
        assert!(pair.finish_slow() > 0);
    }
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    pair.slow_disk = None;
    while pair.finish_slow() > 0 {}
    assert_eq!(pair.running(0), [Handler::FencePeer]);
    pair.end_handler(0, Handler::FencePeer, HandlerOutcome::Exited(1));
    assert_eq!(sizes(&pair)[0], room(DISK_BYTES));
    // What is left goes on by itself: nobody has to wait for it, and the next command can end the freeze.
    pair.ended(resizing).unwrap().unwrap();
    pair.command(0, Command::ResumeIo).unwrap();
    assert_eq!(sizes(&pair)[0], room(LARGER));
}

/// `--assume-clean`: nothing is sent.
#[test]
fn resize_assume_clean() {
    let mut pair = synced(Protocol::C);
    grow_disks(&mut pair);
    pair.command(0, Command::Resize(Resize { assume_clean: true, ..Resize::default() })).unwrap();
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
    let peer = pair.nodes[0].engine.status(pair.now).peers.remove(0);
    assert_eq!((peer.replication, peer.out_of_sync_bytes), (ReplicationState::Established, 0));
    let last = room(LARGER) as usize - 1;
    assert_eq!([0, 1].map(|n| pair.nodes[n].disk.0[last]), [0xa0, 0xa1]);
    // Where the metadata was, both are alike.
    let old = room(DISK_BYTES) as usize;
    assert!((0..2).all(|n| pair.nodes[n].disk.0[old..DISK_BYTES].iter().all(|byte| *byte == 0)));
}

/// The smaller disk decides; what is asked for must fit, and be no less than there is.
#[test]
fn resize_refused() {
    let mut pair = synced(Protocol::C);
    let old = sizes(&pair);
    let sized = |bytes| Command::Resize(Resize { size_bytes: Some(bytes), ..Resize::default() });
    // Nothing has grown: there is nothing to do.
    pair.command(0, resize()).unwrap();
    grow_disk(&mut pair, 0, LARGER);
    pair.command(0, resize()).unwrap();
    assert_eq!(sizes(&pair), old);
    let (number, why) = failure(pair.command(0, sized(old[0] + 4096)));
    assert!(number == 111 && why.contains("the peer's disk has room for"), "{why}");
    let (number, why) = failure(pair.command(1, sized(old[0] + 4096)));
    assert!(number == 111 && why.contains("the local disk has room for"), "{why}");
    assert_eq!(failure(pair.command(0, sized(old[0] - 4096))).0, 170);
    // Less than the metadata takes.
    grow_disk(&mut pair, 1, DISK_BYTES + 8192);
    let (number, why) = failure(pair.command(1, resize()));
    assert!(number == 111 && why.contains("stays where it is"), "{why}");
    grow_disk(&mut pair, 1, LARGER);
    pair.command(0, sized(old[0] + 4096)).unwrap();
    assert_eq!(sizes(&pair), [old[0] + 4096; 2]);
    pair.assert_in_sync();
    pair.command(0, Command::Secondary).unwrap();
    assert_eq!(failure(pair.command(0, resize())).0, 131);
    pair.command(0, Command::Primary { force: false }).unwrap();
    pair.command(1, Command::PauseSync).unwrap();
    pair.command(1, Command::Invalidate { reset_bitmap: true }).unwrap();
    assert_eq!(failure(pair.command(0, resize())).0, 130);
    pair.command(1, Command::Disconnect).unwrap();
    assert!(matches!(pair.command(0, resize()), Err(CommandError::Refused { .. })));
}

/// drbd9 tests: resize-one, resize-after-new-current. The peer is not there, has a larger disk when it comes, and learns.
#[test]
fn resize_alone() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    let alone = Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() });
    pair.write(0, 0, 3);
    grow_disks(&mut pair);
    pair.command(0, alone).unwrap();
    let last = room(LARGER) - 4096;
    pair.write(0, last, 4);
    assert_eq!(sizes(&pair), [room(LARGER), room(DISK_BYTES)]);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
}

/// The same, but for the peer's disk, which has not grown.
#[test]
fn resize_alone_without_the_peers_room() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    grow_disk(&mut pair, 0, LARGER);
    pair.command(0, Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() })).unwrap();
    pair.command(1, Command::Connect).unwrap();
    for n in 0..2 {
        let peer = pair.nodes[n].engine.status(pair.now).peers.remove(0);
        assert_eq!(peer.connection, ConnectionState::StandAlone);
        let reason = peer.standalone_reason.unwrap();
        assert!(reason.contains("disk size is too small!"), "{reason}");
    }
    // Its disk grows, too.
    grow_disk(&mut pair, 1, LARGER);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
}

/// The peer's disk grows when it has been measured for the connection, and before the handshake.
#[test]
fn a_disk_that_grows_before_the_handshake_is_large_enough() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    grow_disk(&mut pair, 0, LARGER);
    pair.command(0, Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() })).unwrap();
    let lost_before = pair.connections_lost;
    pair.hold = Some(|message| matches!(message, Message::Handshake(_)));
    pair.command(1, Command::Connect).unwrap();
    grow_disk(&mut pair, 1, LARGER);
    pair.deliver();
    pair.assert_in_sync();
    assert_eq!((sizes(&pair), pair.connections_lost), ([room(LARGER); 2], lost_before));
}

/// Looked at once more, a disk that is still too small is left alone.
#[test]
fn a_disk_that_is_too_small_after_all_is_not_changed() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    grow_disk(&mut pair, 0, LARGER);
    pair.command(0, Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() })).unwrap();
    pair.hold = Some(|message| matches!(message, Message::Handshake(_)));
    pair.command(1, Command::Connect).unwrap();
    grow_disk(&mut pair, 1, DISK_BYTES + (64 << 10));
    pair.deliver();
    let peer = pair.nodes[1].engine.status(pair.now).peers.remove(0);
    assert_eq!(peer.connection, ConnectionState::StandAlone);
    // It was grown by mistake, and is cut again.
    grow_disk(&mut pair, 1, DISK_BYTES);
    metadata::probe(&mut pair.nodes[1].disk, Placement::Internal).unwrap();
}

/// Simulator: seed 5882 A. What the peer hears of falling behind only after the handshake, the Primary would not hear of at all.
#[test]
fn a_volume_grows_when_no_peer_is_being_left_behind() {
    let congestion = CongestionOptions {
        policy: OnCongestion::PullAhead,
        fill_bytes: 8192,
        extents: 1237,
        send_buffer_bytes: 8192,
    };
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let mut pair =
        Pair::with_options(&Options { protocol: Protocol::A, congestion, resync, ..Options::default() });
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.client(0, ClientOp::Flush).unwrap();
    grow_disks(&mut pair);
    pair.slow_disk = Some((0, Device::Meta));
    let resizing = pair.begin_command(0, resize());
    while pair.nodes[0].engine.size_bytes() < room(LARGER) {
        assert!(pair.finish_slow() > 0);
    }
    pair.hold = Some(|message| matches!(message, Message::BarrierAck { .. }));
    [4096, 8192].iter().for_each(|offset| pair.write(0, *offset, 2));
    pair.hold = Some(|message| matches!(message, Message::BarrierAck { .. } | Message::Behind { .. }));
    let third = pair.begin_write(0, 12288, 2);
    pair.deliver_first();
    pair.slow_disk = None;
    while pair.finish_slow() > 0 {}
    assert_eq!(pair.answered(third), None, "the peer has yet to say that it knows");
    pair.deliver();
    assert_eq!(pair.ended(resizing), Some(Ok(())));
    assert!(pair.completed(third));
    pair.assert_in_sync();
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
}

/// A disk grows by mistake, and is cut again: nobody has said `resize`, so everything is where it was.
#[test]
fn a_connect_moves_no_metadata() {
    let mut pair = synced(Protocol::C);
    let before = [0, 1].map(|n| metadata::probe(&mut pair.nodes[n].disk, Placement::Internal).unwrap());
    grow_disks(&mut pair);
    for n in 0..2 {
        pair.command(n, Command::Disconnect).unwrap();
        pair.command(n, Command::Connect).unwrap();
    }
    pair.write(0, 0, 5);
    for (n, before) in before.iter().enumerate() {
        grow_disk(&mut pair, n, DISK_BYTES);
        let after = metadata::probe(&mut pair.nodes[n].disk, Placement::Internal).unwrap();
        assert!(after.sequence > before.sequence && after.backing_bytes == before.backing_bytes);
        pair.command(n, Command::Disconnect).unwrap();
        pair.command(n, Command::Connect).unwrap();
    }
    pair.assert_in_sync();
    assert_eq!(sizes(&pair), [room(DISK_BYTES); 2]);
}

/// A connection that only asks says what would happen: the metadata would move, and does not.
#[test]
fn a_question_moves_no_metadata() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    grow_disks(&mut pair);
    pair.command(0, Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() })).unwrap();
    let ask = Command::ConnectWith { discard_my_data: false, tentative: true };
    pair.command(1, ask).unwrap();
    grow_disk(&mut pair, 1, DISK_BYTES);
    metadata::probe(&mut pair.nodes[1].disk, Placement::Internal).unwrap();
    grow_disk(&mut pair, 1, LARGER);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(sizes(&pair), [room(LARGER); 2]);
}

/// A node that dies after each write of a move, or of the new size, comes back with all that it knew.
#[test]
fn a_crash_at_any_step_keeps_metadata_and_bits() {
    for away in 1.. {
        let mut pair = synced(Protocol::C);
        pair.write(0, 8192, 1);
        grow_disks(&mut pair);
        pair.fails_next(0, away);
        let done = pair.command(0, resize());
        if pair.nodes[1].engine.status(pair.now).disk != DiskState::UpToDate {
            // The peer is already being sent what is new.
            assert!(away > 10, "{away}: {done:?}");
            break;
        }
        let last = LastPlace { device_id: 0, ends: vec![DISK_BYTES as u64, LARGER as u64] };
        let disk = &mut pair.nodes[0].disk;
        let found = metadata::bring_to_end(disk, Some(&last), NodeId(0)).unwrap();
        assert_eq!(found, LARGER as u64, "{away}");
        // It works through its peer, and gets its disk back.
        pair.attach(0).unwrap();
        pair.write(0, 4096, 2);
        pair.assert_in_sync();
        pair.command(0, resize()).unwrap();
        pair.assert_in_sync();
        assert_eq!(sizes(&pair), [room(LARGER); 2]);
        assert_eq!(pair.nodes[0].engine.status(pair.now).role, Role::Primary);
    }
}

/// Writes go on while the metadata moves, and the activity log moves along.
#[test]
fn the_activity_log_moves_along() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 40 << 10, 1);
    grow_disks(&mut pair);
    pair.slow_disk = Some((0, Device::Meta));
    let command = pair.begin_command(0, resize());
    pair.settle();
    let held = pair.begin_write(0, 41 << 10, 2);
    assert!(pair.completed(held), "its extent was on disk before");
    let new = pair.begin_write(0, 400 << 10, 3);
    assert!(!pair.completed(new), "its extent waits");
    while pair.finish_slow() > 0 {}
    pair.slow_disk = None;
    pair.settle();
    assert!(pair.completed(new));
    assert_eq!(pair.ended(command), Some(Ok(())));
    let loaded =
        metadata::load(&mut pair.nodes[0].disk, Placement::Internal, LARGER as u64, NodeId(0)).unwrap();
    let hot = loaded.hot_ranges(metadata::Carelessness::default());
    for offset in [40 << 10, 400 << 10] {
        assert!(hot.iter().any(|range| range.offset <= offset && offset < range.end()), "{hot:?}");
    }
}

/// Its clients see the size that they have seen, as they will when its own disk is back.
#[test]
fn a_primary_without_data_does_not_show_the_size_of_a_peer_without_data() {
    let mut pair = synced(Protocol::C);
    let old = sizes(&pair)[0];
    grow_disk(&mut pair, 1, LARGER);
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
    pair.command(1, Command::Resize(Resize { assume_peer_has_space: true, ..Resize::default() })).unwrap();
    pair.command(1, Command::Invalidate { reset_bitmap: true }).unwrap();
    pair.disk_fails[0] = true;
    pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
    pair.heal();
    let peer = pair.nodes[0].engine.status(pair.now).peers.remove(0);
    assert_eq!((peer.connection, peer.disk), (ConnectionState::Connected, DiskState::Inconsistent));
    assert_eq!(sizes(&pair)[0], old);
}
