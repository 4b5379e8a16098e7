//! A resource with several volumes.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, Command};
use tandem_core::layout::{Layout, SLOT_BYTES, VolumeSize};
use tandem_core::metadata::{MetaIo, Superblock};
use tandem_core::state::{ConnectionState, DiskState};

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
