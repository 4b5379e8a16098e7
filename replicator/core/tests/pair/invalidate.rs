//! DRBD's test `invalidate`: local and remote, connected and not, Primary and Secondary, with and without the bitmap.

use tandem_core::config::Protocol;
use tandem_core::io::{Command, Device};
use tandem_core::state::DiskState;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROMOTE, peer, read, synced};

const LOCAL: Command = Command::Invalidate { reset_bitmap: true };
const REMOTE: Command = Command::InvalidateRemote { reset_bitmap: true };

fn received(pair: &Pair, n: usize) -> u64 {
    pair.nodes[n].engine.status(pair.now).peers[0].received_bytes
}

fn disk(pair: &Pair, n: usize) -> DiskState {
    pair.nodes[n].engine.status(pair.now).disk
}

#[test]
fn invalidate_on_a_secondary_has_everything_anew() {
    let mut pair = synced(Protocol::C);
    pair.nodes[1].disk.0[4096 * 5] = 0x77;
    pair.command(1, LOCAL).unwrap();
    pair.assert_in_sync();
}

#[test]
fn invalidate_remote_on_the_primary_replaces_the_peers_copy() {
    let mut pair = synced(Protocol::C);
    pair.nodes[1].disk.0[4096 * 5] = 0x77;
    pair.command(0, REMOTE).unwrap();
    pair.assert_in_sync();
    pair.write(0, 4096 * 5, 9);
    pair.assert_in_sync();
}

#[test]
fn invalidate_remote_on_a_secondary_replaces_the_peers_copy() {
    let mut pair = synced(Protocol::A);
    pair.command(0, Command::Secondary).unwrap();
    pair.nodes[0].disk.0[4096 * 5] = 0x77;
    pair.command(1, REMOTE).unwrap();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[0].disk.0[4096 * 5], 0);
}

#[test]
fn invalidate_without_a_connection_takes_effect_at_the_next() {
    let mut pair = synced(Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    pair.nodes[1].disk.0[4096 * 5] = 0x77;
    pair.command(1, LOCAL).unwrap();
    assert_eq!(disk(&pair, 1), DiskState::Inconsistent);
    let refused = pair.command(1, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.exit_code(), 17);
    pair.crash(1);
    pair.attach(1).unwrap();
    assert_eq!(disk(&pair, 1), DiskState::Inconsistent);
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
}

#[test]
fn without_resetting_the_bitmap_only_what_is_marked_is_resynced() {
    let mut pair = synced(Protocol::C);
    pair.write(0, 0, 1);
    let before = received(&pair, 1);
    pair.command(1, Command::Invalidate { reset_bitmap: false }).unwrap();
    pair.assert_in_sync();
    assert_eq!(received(&pair, 1), before);
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096 * 3, 2);
    pair.command(1, Command::Invalidate { reset_bitmap: false }).unwrap();
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(received(&pair, 1) - before, 4096);
}

#[test]
fn a_copy_that_nothing_could_replace_is_kept() {
    let mut pair = synced(Protocol::C);
    let text = |refused: tandem_core::refusal::CommandError| refused.to_string();
    let primary = pair.command(0, LOCAL).unwrap_err();
    assert!(primary.detail()[0].contains("move the role to the other node first"));
    assert_eq!(
        text(pair.command(1, REMOTE).unwrap_err()),
        "State change failed: (-18) In transient state, retry after next state change"
    );
    pair.command(1, Command::Detach).unwrap();
    assert_eq!(
        text(pair.command(0, REMOTE).unwrap_err()),
        "State change failed: (-5) Can not resync without remote disk"
    );
    assert_eq!(
        text(pair.command(1, LOCAL).unwrap_err()),
        "Failure: (138) Device does not have a disk-config"
    );
    pair.command(0, Command::Disconnect).unwrap();
    assert_eq!(
        text(pair.command(0, LOCAL).unwrap_err()),
        "State change failed: (-2) Need access to UpToDate data"
    );
    assert_eq!(
        text(pair.command(0, REMOTE).unwrap_err()),
        "State change failed: (-15) State change requires a connection"
    );
    assert_eq!(disk(&pair, 0), DiskState::UpToDate);
}

/// Simulator: seed 192 B. A Primary that went on without it would otherwise find it UpToDate again after a crash.
#[test]
fn a_copy_gets_all_writes_until_its_disk_says_that_it_was_given_up() {
    let mut pair = synced(Protocol::C);
    pair.slow_disk = Some((1, Device::Meta));
    let given_up = pair.begin_command(1, LOCAL);
    assert_eq!(disk(&pair, 1), DiskState::Inconsistent);
    assert_eq!(peer(&pair, 0).disk, DiskState::UpToDate);
    pair.slow_disk = None;
    while pair.finish_slow() > 0 {}
    pair.ended(given_up).unwrap().unwrap();
    pair.assert_in_sync();
}

/// Simulator: seed 34001 B. Until the copy is given up it gets every write, whatever becomes of the command.
#[test]
fn who_agrees_to_an_invalidate_counts_on_the_copy_until_it_is_given_up() {
    for cancelled in [true, false] {
        let mut pair = synced(Protocol::C);
        pair.hold = Some(|m| matches!(m, Message::InvalidateReply { .. }));
        let invalidation = pair.begin_command(1, LOCAL);
        pair.write(0, 4096, 7);
        if cancelled {
            pair.feed(1, tandem_core::Input::CancelCommand { id: invalidation });
            pair.deliver();
            pair.assert_in_sync();
        } else {
            pair.drop_held();
            pair.crash(0);
            pair.command(1, PROMOTE).unwrap();
            assert_eq!(read(&mut pair, 1, 4096), 7);
        }
    }
}
