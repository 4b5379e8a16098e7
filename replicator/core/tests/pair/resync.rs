//! Resync: how fast, when, and what travels. Named after DRBD's tests where it has one.

use tandem_core::Input;
use tandem_core::config::{Options, Protocol, ResyncOptions};
use tandem_core::io::Command;
use tandem_core::state::{DiskState, ReplicationState};
use tandem_core::units::BLOCK_BYTES;

use crate::harness::{DISK_BYTES, Pair};

/// A pair of which node 1 was away while the first half of the volume was written, and is back.
fn resyncing(options: &Options) -> Pair {
    let mut pair = Pair::with_options(options);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.run_until(|pair| pair.nodes[0].engine.status(pair.now).peers[0].disk == DiskState::UpToDate);
    pair.command(1, Command::Disconnect).unwrap();
    for block in 0..DISK_BYTES as u64 / 2 / BLOCK_BYTES {
        pair.write(0, block * BLOCK_BYTES, block as u8 | 1);
    }
    pair.now = pair.now.plus_ms(1000);
    pair.command(1, Command::Connect).unwrap();
    pair
}

fn is_resyncing(pair: &Pair) -> bool {
    pair.nodes[1].engine.status(pair.now).peers[0].replication == ReplicationState::SyncTarget
}

fn options(resync: ResyncOptions) -> Options {
    Options { protocol: Protocol::C, resync, ..Options::default() }
}

#[test]
fn resync_rate() {
    let resync = ResyncOptions { max_bytes_per_s: 256 << 10, ..ResyncOptions::default() };
    let mut pair = resyncing(&options(resync));
    let began = pair.now;
    pair.run_until(|pair| !is_resyncing(pair));
    pair.assert_in_sync();
    // 512 KiB, of which a tenth of a second may be caught up.
    assert!((1700..2100).contains(&pair.now.ms_since(began)), "{}", pair.now.ms_since(began));
}

#[test]
fn c_min_rate() {
    let resync = ResyncOptions { min_bytes_per_s: 128 << 10, ..ResyncOptions::default() };
    let mut pair = resyncing(&options(resync));
    assert!(!is_resyncing(&pair), "without clients it is done at once");
    pair.command(1, Command::Disconnect).unwrap();
    for block in (0..200).step_by(2) {
        pair.write(0, block * BLOCK_BYTES, 2);
    }
    pair.command(1, Command::Connect).unwrap();
    let began = pair.now;
    while is_resyncing(&pair) {
        pair.now = pair.now.plus_ms(10);
        pair.write(0, BLOCK_BYTES, 3);
        pair.feed(0, Input::Tick);
        pair.feed(1, Input::Tick);
    }
    pair.assert_in_sync();
    // 400 KiB beside a client that is always at work.
    assert!((2800..3300).contains(&pair.now.ms_since(began)), "{}", pair.now.ms_since(began));
}
