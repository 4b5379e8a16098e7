//! A resource with several volumes.

use tandem_core::config::{Options, Protocol, ResyncOptions};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::io::{ClientError, ClientOp, Command, Device, Resize};
use tandem_core::layout::{Layout, SLOT_BYTES, VolumeSize};
use tandem_core::metadata::{MetaIo, Superblock};
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::units::ByteRange;

use crate::harness::Pair;
use crate::scene::{connections, peer, read, start_again, status};

fn layout(numbers: [u16; 2]) -> Layout {
    Layout::new(numbers.map(|number| VolumeSize { number, bytes: 64 << 12 }).to_vec()).unwrap()
}

/// In sync, node 0 Primary, both volumes written to.
fn synced() -> Pair {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.replace_disk_for(n, layout([0, 1]));
    }
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.write(0, SLOT_BYTES, 2);
    pair.assert_in_sync();
    pair
}

/// The volume of this number grows to so many blocks.
fn resize(pair: &mut Pair, number: u16, blocks: u64, alone: bool) -> Result<(), CommandError> {
    let wish = Resize {
        size_bytes: Some(blocks << 12),
        volume: Some(number),
        assume_peer_has_space: alone,
        ..Resize::default()
    };
    pair.command(0, Command::Resize(wish))
}

/// In blocks, as each node shows them.
fn sizes(pair: &Pair) -> [Vec<u64>; 2] {
    [0, 1].map(|n| status(pair, n).volumes.iter().map(|volume| volume.size_bytes >> 12).collect())
}

fn with_room(blocks: [u64; 2]) -> Pair {
    let mut pair = synced();
    for (node, blocks) in pair.nodes.iter_mut().zip(blocks) {
        node.other_rooms = vec![blocks << 12];
    }
    pair
}

/// The peer's metadata as `change` makes it.
fn edit(pair: &mut Pair, n: usize, change: impl Fn(&mut Superblock)) {
    let disk = &mut pair.nodes[n].disk;
    for offset in [disk.size_bytes() - 4096, disk.size_bytes() - 8192] {
        let bytes = &disk.0[offset as usize..][..4096];
        let mut superblock = Superblock::decode(bytes.try_into().unwrap()).unwrap();
        change(&mut superblock);
        disk.write_at(offset, &superblock.encode()).unwrap();
    }
}

#[test]
fn both_volumes_are_replicated_and_resynced() {
    let mut pair = synced();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 3);
    pair.write(0, SLOT_BYTES + 4096, 4);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[SLOT_BYTES as usize + 4096], 4);
}

/// A flush of the metadata's device says nothing of the other volume's disk.
#[test]
fn every_volume_is_flushed_before_the_peer_says_that_an_epoch_is_durable() {
    let mut pair = synced();
    pair.data_flushes = [0; 2];
    pair.write(0, SLOT_BYTES, 3);
    pair.client(0, ClientOp::Flush).unwrap();
    assert!(pair.data_flushes.iter().all(|flushes| *flushes > 0), "{:?}", pair.data_flushes);
}

/// A Primary without a disk: its clients use the volumes that it had.
#[test]
fn a_disk_of_other_volumes_does_not_serve_a_diskless_primary() {
    for same in [true, false] {
        let mut pair = synced();
        pair.command(0, Command::Detach).unwrap();
        pair.write(0, SLOT_BYTES, 5);
        pair.client(0, ClientOp::Flush).unwrap();
        pair.crash(1);
        if !same {
            edit(&mut pair, 1, |superblock| superblock.layout = layout([0, 2]));
        }
        start_again(&mut pair, 1);
        if same {
            assert_eq!(read(&mut pair, 0, SLOT_BYTES), 5);
            continue;
        }
        assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
        let reason = peer(&pair, 0).standalone_reason.unwrap_or_default();
        assert!(reason.contains("here is for volumes 0, 1, the peer's for volumes 0, 2"), "{reason}");
        assert_eq!(status(&pair, 1).disk, DiskState::UpToDate);
    }
}

#[test]
fn volumes_grow_in_turns_and_what_is_new_is_replicated() {
    let mut pair = with_room([200; 2]);
    for (number, blocks, new) in
        [(1, 96, SLOT_BYTES + (64 << 12)), (0, 128, 2 * SLOT_BYTES), (1, 200, 3 * SLOT_BYTES)]
    {
        resize(&mut pair, number, blocks, false).unwrap();
        pair.assert_in_sync();
        pair.write(0, new, 7);
        assert_eq!(pair.nodes[1].disk.0[new as usize], 7);
        pair.assert_in_sync();
    }
    assert_eq!(sizes(&pair), [[128, 200], [128, 200]]);
    assert_eq!(pair.nodes[0].engine.layout(), pair.nodes[1].engine.layout());
    let across = ClientOp::Read(ByteRange::new(SLOT_BYTES - 4096, 8192));
    assert_eq!(pair.client(0, across), Err(ClientError::OutOfRange), "two pieces at once");
    let pad = ClientOp::Read(ByteRange::new(SLOT_BYTES - 4096, 4096));
    assert_eq!(pair.client(0, pad), Err(ClientError::OutOfRange));
    for n in 0..2 {
        pair.crash(n);
    }
    for n in 0..2 {
        start_again(&mut pair, n);
    }
    assert_eq!(sizes(&pair), [[128, 200], [128, 200]]);
    pair.assert_in_sync();
}

/// Both nodes are told to grow a volume: at the same moment, or when the peer has grown and this node has not heard of it.
#[test]
fn volumes_that_grow_on_both_nodes_grow_one_after_the_other() {
    for has_grown in [false, true] {
        let mut pair = with_room([200; 2]);
        let wish = |number, blocks: u64| {
            let size_bytes = Some(blocks << 12);
            let wish = Resize { size_bytes, volume: Some(number), assume_clean: true, ..Resize::default() };
            Command::Resize(wish)
        };
        let before = pair.nodes[0].engine.size_bytes();
        pair.slow_disk = has_grown.then_some((0, Device::Meta));
        let first = pair.begin_command(0, wish(1, 96));
        while has_grown && pair.nodes[0].engine.size_bytes() == before {
            pair.settle();
            pair.finish_slow();
        }
        let second = pair.begin_command(1, wish(0, 128));
        pair.settle();
        pair.slow_disk = None;
        while pair.finish_slow() > 0 {}
        assert_eq!([first, second].map(|id| pair.ended(id)), [Some(Ok(())), Some(Ok(()))]);
        assert_eq!(sizes(&pair), [[128, 96], [128, 96]]);
        pair.assert_in_sync();
    }
}

#[test]
fn what_a_volume_has_grown_by_alone_reaches_the_peer_when_it_comes() {
    let mut pair = with_room([200; 2]);
    pair.command(1, Command::Disconnect).unwrap();
    resize(&mut pair, 0, 100, true).unwrap();
    resize(&mut pair, 1, 100, true).unwrap();
    pair.write(0, 2 * SLOT_BYTES, 8);
    pair.write(0, 3 * SLOT_BYTES, 9);
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(sizes(&pair), [[100, 100], [100, 100]]);
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[3 * SLOT_BYTES as usize], 9);
}

#[test]
fn a_peer_without_room_is_named() {
    let mut pair = with_room([200, 64]);
    let error = resize(&mut pair, 1, 100, false).unwrap_err().to_string();
    assert!(error.contains("(111) Low.dev. smaller"), "{error}");
    assert_eq!(sizes(&pair), [[64, 64], [64, 64]]);
    pair.command(1, Command::Disconnect).unwrap();
    resize(&mut pair, 1, 100, true).unwrap();
    pair.command(1, Command::Connect).unwrap();
    let reason = peer(&pair, 0).standalone_reason.unwrap_or_default();
    assert!(
        reason.contains("The disk of volume 1 has room for 262144 bytes of data, 409600 are needed"),
        "{reason}"
    );
    assert_eq!(connections(&pair), [ConnectionState::StandAlone; 2]);
}

/// It was made for larger disks, and has no data: its volumes are the peer's from now on.
#[test]
fn a_new_disk_takes_the_volumes_that_have_grown() {
    let mut pair = with_room([200; 2]);
    resize(&mut pair, 0, 100, false).unwrap();
    resize(&mut pair, 1, 100, false).unwrap();
    pair.crash(1);
    let sizes_now = [0, 1].map(|number| VolumeSize { number, bytes: 150 << 12 });
    pair.replace_disk_for(1, Layout::new(sizes_now.to_vec()).unwrap());
    start_again(&mut pair, 1);
    assert_eq!(sizes(&pair), [[100, 100], [100, 100]]);
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].engine.layout(), pair.nodes[1].engine.layout());
}

/// Its pieces lie apart; what another volume has between them is not looked at.
#[test]
fn of_a_volume_that_has_grown_its_pieces_are_verified_and_nothing_else() {
    let mut pair = with_room([200; 2]);
    for (number, blocks) in [(1, 100), (0, 100), (1, 128)] {
        resize(&mut pair, number, blocks, false).unwrap();
    }
    let pieces = pair.nodes[0].engine.layout().ranges_of(1, 0);
    assert_eq!(pieces.len(), 2, "{pieces:?}");
    let between = pair.nodes[0].engine.layout().ranges_of(0, 0)[1].offset;
    assert!((pieces[0].end()..pieces[1].offset).contains(&between));
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let options = Options { verify_algorithm: Some(DigestAlgorithm::Sha256), resync, ..Options::default() };
    for n in 0..2 {
        let options = Box::new(options.clone());
        pair.command(n, Command::SetOptions { options, handlers: Default::default() }).unwrap();
    }
    let bad = [pieces[0].offset, between, pieces[1].offset, pieces[1].end() - 4096];
    for at in bad {
        pair.nodes[1].disk.0[at as usize] ^= 0x10;
    }
    let of_one = |volume: u16, blocks: Option<(u64, u64)>| Command::Verify {
        volume: Some(volume),
        start_bytes: blocks.map(|(start, _)| start << 12),
        stop_bytes: blocks.map(|(_, stop)| stop << 12),
        repair: None,
    };
    let found = |pair: &Pair| [0, 1].map(|n| peer(pair, n).out_of_sync_bytes >> 12);
    pair.command(0, of_one(1, Some((1, 127)))).unwrap();
    assert_eq!(found(&pair), [1, 1], "in the middle only");
    // From either side, its peer being the one that writes.
    pair.command(1, of_one(1, None)).unwrap();
    assert_eq!(found(&pair), [3, 3]);
    let refused = pair.command(0, of_one(7, None)).unwrap_err();
    assert!(refused.detail()[0].contains("volume 7 is not one of those"), "{refused:?}");
}
