//! Disks of unequal sizes, requests of odd ones: named after the tests of DRBD's suite that they follow.

use tandem_core::config::Protocol;
use tandem_core::io::{ClientError, ClientOp, Command, Payload};
use tandem_core::state::ConnectionState;
use tandem_core::units::ByteRange;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::synced;

fn size(pair: &Pair, n: usize) -> u64 {
    pair.nodes[n].engine.size_bytes()
}

fn connection(pair: &Pair, n: usize) -> ConnectionState {
    pair.nodes[n].engine.status(pair.now).peers[0].connection
}

/// While nobody has data, the smaller disk decides.
#[test]
fn connect_differing_sizes_unused() {
    for smaller in 0..2 {
        let mut pair = Pair::new(Protocol::C);
        pair.replace_disk(smaller, DISK_BYTES / 2, 1);
        pair.up();
        pair.command(1 - smaller, Command::Primary { force: true }).unwrap();
        pair.assert_in_sync();
        assert_eq!(size(&pair, 0), size(&pair, 1));
        assert!(size(&pair, 0) < DISK_BYTES as u64 / 2);
        let last = size(&pair, 0) - 4096;
        pair.write(1 - smaller, last, 1);
        pair.assert_in_sync();
    }
}

/// A disk that cannot hold what is there is refused on both sides, and nothing is cut off.
#[test]
fn connect_differing_sizes() {
    let mut pair = Pair::new(Protocol::C);
    pair.attach(0).unwrap();
    pair.command(0, Command::Primary { force: true }).unwrap();
    let last = size(&pair, 0) - 4096;
    pair.write(0, last, 1);
    pair.replace_disk(1, DISK_BYTES / 2, 1);
    pair.attach(1).unwrap();
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    for n in 0..2 {
        assert_eq!(connection(&pair, n), ConnectionState::StandAlone);
        let reason = pair.nodes[n].engine.status(pair.now).peers[0].standalone_reason.clone().unwrap();
        assert!(reason.contains("disk size is too small!"), "{reason}");
    }
    let range = ByteRange::new(last, 4096);
    assert_eq!(pair.client(0, ClientOp::Read(range)).unwrap()[0], 1);
}

/// A disk of another size comes while the nodes are connected: a larger one is used as far as it is needed.
#[test]
fn attach_while_connected_resize() {
    let mut pair = synced(Protocol::C);
    let before = size(&pair, 0);
    pair.command(1, Command::Detach).unwrap();
    pair.write(0, 0, 1);
    pair.replace_disk(1, DISK_BYTES * 2, 1);
    pair.attach(1).unwrap();
    pair.assert_in_sync();
    assert_eq!(size(&pair, 0), before);
    pair.command(1, Command::Detach).unwrap();
    pair.replace_disk(1, DISK_BYTES / 2, 1);
    pair.attach(1).unwrap();
    assert_eq!(connection(&pair, 0), ConnectionState::StandAlone);
    pair.write(0, before - 4096, 2);
}

/// Metadata with room for more peers than the other node's.
#[test]
fn max_peers_differ() {
    let mut pair = Pair::new(Protocol::C);
    pair.replace_disk(1, DISK_BYTES, 7);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.assert_in_sync();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 1);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
}

/// Single sectors at odd places, the device's very end, and what lies behind it.
#[test]
fn unusual_bios() {
    let mut pair = synced(Protocol::C);
    let end = size(&pair, 0);
    for (offset, sectors) in [(512, 1), (4096 - 512, 2), (512 * 13, 3), (end - 512, 1), (end - 512 * 9, 9)] {
        let payload = Payload::new(vec![0x5a; 512 * sectors].into());
        pair.client(0, ClientOp::Write { offset, payload, fua: sectors == 2 }).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.nodes[1].disk.0[offset as usize], 0x5a);
    }
    for _ in 0..3 {
        pair.client(0, ClientOp::Flush).unwrap();
    }
    let payload = || Payload::new(vec![1; 1024].into());
    let beyond = |offset| ClientOp::Write { offset, payload: payload(), fua: false };
    for offset in [end, end - 512, u64::MAX - 511] {
        assert_eq!(pair.client(0, beyond(offset)), Err(ClientError::OutOfRange), "{offset}");
    }
    pair.assert_in_sync();
}

/// Discards that are aligned to nothing zero what they name, no more and no less, on both nodes.
#[test]
fn discard_granularity() {
    let mut pair = synced(Protocol::C);
    let payload = Payload::new(vec![7; 64 << 10].into());
    pair.client(0, ClientOp::Write { offset: 0, payload, fua: false }).unwrap();
    for (offset, length) in [(512, 512), (4096 + 512, 4096), (8192 * 2 + 1536, 12288), (40960, 512 * 5)] {
        let range = ByteRange::new(offset, length);
        pair.client(0, ClientOp::Zero { range, unmap: true, fua: false }).unwrap();
        pair.assert_in_sync();
        let disk = &pair.nodes[1].disk.0;
        let (start, end) = (offset as usize, (offset + length) as usize);
        assert!(disk[start..end].iter().all(|byte| *byte == 0));
        assert_eq!((disk[start - 1], disk[end]), (7, 7));
    }
}

/// One request that covers many blocks.
#[test]
fn multi_bio_peer_reqs() {
    let mut pair = synced(Protocol::C);
    let bytes: Vec<u8> = (0..512 << 10).map(|i: u32| (i / 512) as u8).collect();
    for offset in [0, 512, 4096 * 3 + 1024] {
        let payload = Payload::new(bytes.clone().into());
        pair.client(0, ClientOp::Write { offset, payload, fua: true }).unwrap();
        pair.assert_in_sync();
    }
    let read = pair.client(0, ClientOp::Read(ByteRange::new(4096 * 3 + 1024, 512 << 10))).unwrap();
    assert_eq!(read, bytes);
}
