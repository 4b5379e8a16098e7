//! What has become possible is done at once: the next input may be long in coming.

use tandem_core::config::{Fencing, Options, Protocol, ResyncOptions};
use tandem_core::handler::Handler::{BeforeResyncSource, FencePeer};
use tandem_core::handler::HandlerOutcome::Exited;
use tandem_core::io::{Command, Device};
use tandem_core::state::{ConnectionState, Role};
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{PROMOTE, connections, status, synced};

/// Simulator: seed 29420 A. A promotion waits for a handshake, which ends because this node refuses it.
#[test]
fn a_promotion_goes_on_when_the_handshake_it_waits_for_is_refused() {
    let mut pair = synced(Protocol::A);
    pair.slow_disk = Some((1, Device::Data));
    pair.write(0, 0, 1);
    pair.disk_fails[0] = true;
    let unsure = pair.begin_write(0, 4096, 2);
    pair.cut();
    pair.settle();
    assert!(!pair.completed(unsure));
    let promotion = pair.begin_command(1, PROMOTE);
    while connections(&pair)[1] != ConnectionState::StandAlone {
        assert_eq!(pair.ended(promotion), None);
        assert_ne!(pair.finish_slow(), 0);
    }
    assert_eq!(pair.ended(promotion), Some(Ok(())));
    assert_eq!(status(&pair, 1).role, Role::Primary);
}

/// Simulator: seed 13281 C. The target has asked for data, which says that it has noted what it is, while the source's
/// handler ran.
#[test]
fn a_frozen_write_completes_when_the_handler_before_the_resync_ends() {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    let options = Options { fencing: Fencing::ResourceAndStonith, resync, ..Options::default() };
    let mut pair = Pair::with_handlers(&options, &[FencePeer, BeforeResyncSource]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.end_handler(0, BeforeResyncSource, Exited(0));
    pair.assert_in_sync();
    pair.cut_at = Some(|m| matches!(m, Message::WriteAck { .. }));
    let write = pair.begin_write(0, 4096, 2);
    pair.heal();
    pair.slow_disk = Some((0, Device::Data));
    assert!(!pair.completed(write));
    pair.end_handler(0, BeforeResyncSource, Exited(0));
    assert!(pair.completed(write));
    pair.slow_disk = None;
    pair.finish_slow();
    pair.assert_in_sync();
}
