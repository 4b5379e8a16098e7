//! What the enumeration of short histories found (`tests/src/histories`).

use tandem_core::config::Protocol;
use tandem_core::io::Command;
use tandem_core::state::ConnectionState;
use tandem_core::wire::Message;

use crate::harness::Pair;

/// DRBD's resync-missed-end-no-bits, twice in a row: the second resync is missed after a new generation began.
#[test]
fn two_missed_ends_of_a_resync_cost_no_full_sync() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 4096, 1);
    pair.cut_at = Some(|m| matches!(m, Message::ResyncDone));
    pair.command(1, Command::Connect).unwrap();
    pair.write(0, 2 * 4096, 2);
    pair.cut_at = Some(|m| matches!(m, Message::BitmapChunk { .. }));
    pair.heal();
    let received = pair.nodes[1].engine.status(pair.now).peers[0].received_bytes;
    pair.heal();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].engine.status(pair.now).peers[0].received_bytes - received, 4096);
}

#[test]
fn two_fresh_disks_that_were_both_declared_good_are_unrelated() {
    let mut pair = Pair::new(Protocol::C);
    for n in 0..2 {
        pair.attach(n).unwrap();
        pair.command(n, Command::Primary { force: true }).unwrap();
        pair.command(n, Command::Connect).unwrap();
    }
    for n in 0..2 {
        let status = pair.nodes[n].engine.status(pair.now);
        assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
        assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("Unrelated data"));
    }
}
