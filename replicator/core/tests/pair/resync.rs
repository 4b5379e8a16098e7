//! Resync: how fast, when, and what travels. Named after DRBD's tests where it has one.

use tandem_core::Input;
use tandem_core::config::{Options, Protocol, ResyncOptions};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::io::{ClientOp, Command, Device};
use tandem_core::refusal::CommandError;
use tandem_core::state::{DiskState, ReplicationState};
use tandem_core::units::{BLOCK_BYTES, ByteRange};
use tandem_core::wire::Message;

use crate::harness::{DISK_BYTES, Pair};
use crate::scene::{status, synced};

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

fn replication(pair: &Pair) -> [ReplicationState; 2] {
    [0, 1].map(|n| pair.nodes[n].engine.status(pair.now).peers[0].replication)
}

/// A pair of which node 1 lacks one block, and whose resync waits for a word.
fn paused() -> Pair {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.command(1, Command::PauseSync).unwrap();
    pair.command(1, Command::Connect).unwrap();
    assert_eq!(replication(&pair), [ReplicationState::PausedSyncS, ReplicationState::PausedSyncT]);
    pair
}

#[test]
fn pause_sync() {
    let mut pair = paused();
    let suspended =
        |pair: &Pair, n: usize| pair.nodes[n].engine.status(pair.now).peers[0].resync_suspended.to_string();
    assert_eq!([suspended(&pair, 0), suspended(&pair, 1)], ["peer", "user"]);
    let refused = |result: Result<(), CommandError>| result.unwrap_err().to_string();
    assert_eq!(refused(pair.command(1, Command::PauseSync)), "Failure: (134) Sync-pause flag is already set");
    assert!(refused(pair.command(0, Command::ResumeSync)).ends_with("caused by the peer node."));
    pair.command(0, Command::PauseSync).unwrap();
    assert_eq!([suspended(&pair, 0), suspended(&pair, 1)], ["user,peer", "user,peer"]);
    pair.command(1, Command::ResumeSync).unwrap();
    assert_eq!(replication(&pair), [ReplicationState::PausedSyncS, ReplicationState::PausedSyncT]);
    pair.command(0, Command::ResumeSync).unwrap();
    pair.assert_in_sync();
    assert_eq!(
        refused(pair.command(0, Command::ResumeSync)),
        "Failure: (135) Sync-pause flag is already cleared"
    );
}

#[test]
fn resync_write_during_pause() {
    let mut pair = paused();
    pair.write(0, 0, 2);
    pair.write(0, 4096 * 3, 3);
    assert_eq!((pair.nodes[1].disk.0[0], pair.nodes[1].disk.0[4096 * 3]), (2, 3));
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Inconsistent);
    assert_eq!(pair.command(1, Command::Primary { force: false }).unwrap_err().exit_code(), 11);
    pair.command(1, Command::ResumeSync).unwrap();
    pair.assert_in_sync();
}

#[test]
fn a_pause_outlives_the_connection() {
    let mut pair = paused();
    pair.cut();
    pair.settle();
    assert_eq!(replication(&pair), [ReplicationState::PausedSyncS, ReplicationState::PausedSyncT]);
    pair.command(1, Command::ResumeSync).unwrap();
    pair.assert_in_sync();
}

#[test]
fn resync_after() {
    let mut pair = paused();
    pair.feed(0, Input::ResyncMustWait(true));
    pair.command(1, Command::ResumeSync).unwrap();
    let refused = pair.command(0, Command::ResumeSync).unwrap_err().to_string();
    assert!(refused.ends_with("caused by a local resync-after dependency."), "{refused}");
    assert_eq!(replication(&pair), [ReplicationState::PausedSyncS, ReplicationState::PausedSyncT]);
    pair.feed(0, Input::ResyncMustWait(false));
    pair.assert_in_sync();
}

fn received(pair: &Pair, n: usize) -> u64 {
    pair.nodes[n].engine.status(pair.now).peers[0].received_bytes
}

/// A pair whose target asks by digest. Node 1 was away while 100 blocks were written, two of them with something new.
fn rewritten(after_crash_only: bool, crash: bool) -> (Pair, u64) {
    let resync = ResyncOptions {
        min_bytes_per_s: 0,
        csums_algorithm: Some(DigestAlgorithm::Sha256),
        csums_after_crash_only: after_crash_only,
        ..ResyncOptions::default()
    };
    let mut pair = Pair::with_options(&options(resync));
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    for block in 0..100 {
        pair.write(0, block * BLOCK_BYTES, 7);
    }
    pair.command(1, Command::Disconnect).unwrap();
    for block in 0..100 {
        pair.write(0, block * BLOCK_BYTES, if [13, 77].contains(&block) { 8 } else { 7 });
    }
    if crash {
        pair.crash(0);
        pair.attach(0).unwrap();
        pair.command(0, Command::Connect).unwrap();
    }
    let before = received(&pair, 1);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    let received = received(&pair, 1) - before;
    (pair, received)
}

#[test]
fn checksum_resync() {
    let (pair, received) = rewritten(false, false);
    assert_eq!(received, 2 * BLOCK_BYTES);
    assert_eq!((pair.nodes[1].disk.0[13 * 4096], pair.nodes[1].disk.0[14 * 4096]), (8, 7));
}

#[test]
fn checksum_resync_after_a_crash_only() {
    assert_eq!(rewritten(true, false).1, 100 * BLOCK_BYTES);
    assert!(rewritten(true, true).1 <= 3 * BLOCK_BYTES);
}

/// Simulator: seed 103170 C. What the old disk had was asked about, and waited for a client's write, while a new one took its
/// place: the blocks that were equal there would count as equal here.
#[test]
fn digests_of_a_disk_that_was_replaced_say_nothing_about_the_new_one() {
    let resync = ResyncOptions {
        min_bytes_per_s: 0,
        csums_algorithm: Some(DigestAlgorithm::Sha256),
        ..ResyncOptions::default()
    };
    let mut pair = Pair::with_options(&options(resync));
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    let fill = |pair: &mut Pair| (0..4).for_each(|block| pair.write(0, block * BLOCK_BYTES, 7));
    fill(&mut pair);
    pair.command(1, Command::Disconnect).unwrap();
    fill(&mut pair);
    pair.hold = Some(|m| matches!(m, Message::ResyncCompare { .. }));
    pair.command(1, Command::Connect).unwrap();
    pair.slow_disk = Some((0, Device::Data));
    let write = pair.begin_write(0, 0, 8);
    pair.deliver();
    pair.command(1, Command::Detach).unwrap();
    pair.replace_disk(1, DISK_BYTES, 1);
    pair.hold = Some(|m| matches!(m, Message::ResyncCompare { .. }));
    pair.attach(1).unwrap();
    while pair.finish_slow() > 0 {}
    pair.slow_disk = None;
    assert!(pair.completed(write));
    let status = pair.nodes[0].engine.status(pair.now);
    assert_eq!(status.peers[0].out_of_sync_bytes, pair.nodes[0].engine.size_bytes());
    pair.deliver();
    pair.assert_in_sync();
}

/// DRBD: resync-interrupt-variants.
#[test]
fn a_resync_goes_on_where_it_was_after_a_cut() {
    let resync = ResyncOptions { max_bytes_per_s: 256 << 10, ..ResyncOptions::default() };
    let mut pair = resyncing(&options(resync));
    let before = received(&pair, 1);
    let left = |pair: &Pair| pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes;
    pair.run_until(|pair| left(pair) <= 256 << 10);
    pair.cut();
    pair.settle();
    pair.run_until(|pair| !is_resyncing(pair));
    pair.assert_in_sync();
    assert!(received(&pair, 1) - before <= 512 << 10);
}

/// DRBD: resync-finish.
#[test]
fn resync_finish() {
    let mut pair = paused();
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::ResumeSync).unwrap();
    let status = pair.nodes[0].engine.status(pair.now);
    assert_eq!((status.disk, status.peers[0].out_of_sync_bytes), (DiskState::UpToDate, 0));
    pair.heal();
    pair.assert_in_sync();
}

/// DRBD: brief-resync-oos. A client writes while the last block is under way.
#[test]
fn brief_resync_oos() {
    let mut pair = paused();
    pair.cut_at = Some(|m| matches!(m, Message::ResyncWritten { .. }));
    pair.command(1, Command::ResumeSync).unwrap();
    pair.write(0, 0, 9);
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[0], 9);
}

/// DRBD: resync-discard. Zeroes travel as such.
#[test]
fn resync_discard() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.write(0, 0, 1);
    pair.command(1, Command::Disconnect).unwrap();
    pair.client(0, ClientOp::Zero { range: ByteRange::new(0, 65_536), unmap: true, fua: false }).unwrap();
    let before = received(&pair, 1);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!((received(&pair, 1), pair.nodes[1].disk.0[0]), (before, 0));
}

/// What the target says of the resync arrives when the source is giving its disk up.
#[test]
fn a_source_that_is_detached_keeps_the_connection() {
    let late: [fn(&Message) -> bool; 3] = [
        |m| matches!(m, Message::ResyncWritten { .. } | Message::ResyncDone),
        |m| matches!(m, Message::ResyncDone),
        |m| matches!(m, Message::ResyncReady | Message::ResyncRequest { .. }),
    ];
    for late in late {
        let mut pair = synced(Protocol::C);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 4096, 2);
        pair.command(0, Command::Secondary).unwrap();
        pair.hold = Some(late);
        pair.command(1, Command::Connect).unwrap();
        let lost = pair.connections_lost;
        pair.slow_disk = Some((0, Device::Data));
        let detach = pair.begin_command(0, Command::Detach);
        pair.deliver();
        pair.slow_disk = None;
        while pair.finish_slow() > 0 {}
        assert_eq!(pair.ended(detach), Some(Ok(())));
        assert_eq!((status(&pair, 0).disk, pair.connections_lost), (DiskState::Diskless, lost));
        pair.attach(0).unwrap();
        pair.assert_in_sync();
    }
}
