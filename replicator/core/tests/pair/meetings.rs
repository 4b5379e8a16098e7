//! What goes wrong around a handshake: words that overtake each other, and what changes while it is under way.

use tandem_core::config::Options;
use tandem_core::digest::DigestAlgorithm;
use tandem_core::io::Command;
use tandem_core::state::DiskState;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROTOCOLS, peer, synced};

/// A node learns that its peer's disk had failed when it has already said that it knows of nothing.
#[test]
fn what_is_marked_in_mid_handshake_is_not_in_sync() {
    for protocol in PROTOCOLS {
        let verify_algorithm = Some(DigestAlgorithm::Sha256);
        let mut pair = Pair::with_options(&Options { protocol, verify_algorithm, ..Options::default() });
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.command(0, Command::Secondary).unwrap();
        pair.assert_in_sync();
        pair.hold = Some(|m| matches!(m, Message::State { .. } | Message::Handshake(_)));
        pair.disk_fails[1] = true;
        pair.begin_command(1, Command::Verify { start_bytes: None, stop_bytes: None, repair: None });
        // Alpha marks what bravo may lack, and fails in turn.
        pair.disk_fails[0] = true;
        while peer(&pair, 0).disk != DiskState::Diskless {
            pair.deliver_first();
        }
        pair.disk_fails = [false, false];
        pair.nodes[0].disk.0[8192] ^= 1;
        pair.attach(1).unwrap();
        pair.attach(0).unwrap();
        pair.deliver();
        pair.assert_in_sync();
    }
}

/// The target's disk fails as soon as it is UpToDate, and the ack that says so overtakes both words.
#[test]
fn an_ack_that_overtakes_the_word_on_the_disk_is_the_last_word() {
    for protocol in PROTOCOLS {
        let mut pair = synced(protocol);
        pair.command(1, Command::Disconnect).unwrap();
        pair.write(0, 0, 1);
        pair.hold = Some(|m| {
            matches!(
                m,
                Message::State { disk: DiskState::UpToDate | DiskState::Failed | DiskState::Diskless, .. }
                    | Message::ResyncDone
            )
        });
        pair.command(1, Command::Connect).unwrap();
        pair.disk_fails[1] = true;
        pair.begin_write(0, 4096, 2);
        for _ in 0..2 {
            assert_eq!(peer(&pair, 0).disk, DiskState::Failed);
            pair.deliver_first();
        }
        pair.deliver();
        assert_eq!(peer(&pair, 0).disk, DiskState::Diskless);
        pair.disk_fails[1] = false;
        pair.attach(1).unwrap();
        pair.assert_in_sync();
    }
}
