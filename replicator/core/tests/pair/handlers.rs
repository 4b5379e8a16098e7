//! The administrator's programs: when they run, and what their end means.

use tandem_core::config::{Options, ResyncOptions};
use tandem_core::handler::Handler;
use tandem_core::handler::Handler::{
    AfterResyncTarget, BeforeResyncSource, BeforeResyncTarget, InitialSplitBrain, PriOnInconDegr, SplitBrain,
};
use tandem_core::handler::HandlerOutcome::{Exited, NotStarted, TimedOut};
use tandem_core::io::{ClientError, ClientOp, Command, Payload};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};

use crate::harness::Pair;

fn pair(handlers: &[Handler]) -> Pair {
    let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
    Pair::with_handlers(&Options { resync, ..Options::default() }, handlers)
}

#[test]
fn a_resync_waits_for_both_handlers_before_it_changes_anything() {
    let mut pair = pair(&[BeforeResyncTarget, BeforeResyncSource, AfterResyncTarget]);
    pair.nodes[0].disk.0[..4096].fill(7);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    assert_eq!((pair.running(0), pair.running(1)), (vec![BeforeResyncSource], vec![BeforeResyncTarget]));
    pair.end_handler(1, BeforeResyncTarget, Exited(0));
    assert_eq!(pair.nodes[1].disk.0[0], 0);
    pair.end_handler(0, BeforeResyncSource, Exited(3));
    assert_eq!(pair.running(1), [AfterResyncTarget]);
    pair.end_handler(1, AfterResyncTarget, Exited(1));
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].disk.0[0], 7);
}

#[test]
fn a_handler_refuses_a_resync_until_it_thinks_better_of_it() {
    for outcome in [Exited(1), NotStarted, TimedOut] {
        let mut pair = pair(&[BeforeResyncTarget]);
        pair.nodes[0].disk.0[..4096].fill(7);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.end_handler(1, BeforeResyncTarget, outcome);
        let status = pair.nodes[1].engine.status(pair.now);
        assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
        assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("before-resync-target handler"));
        let peer = pair.nodes[0].engine.status(pair.now).peers[0].clone();
        assert_eq!((peer.connection, peer.standalone_reason), (ConnectionState::Connecting, None));
        assert_eq!(pair.nodes[1].disk.0[0], 0);
        pair.write(0, 8192, 1);
        pair.command(1, Command::Connect).unwrap();
        pair.end_handler(1, BeforeResyncTarget, Exited(0));
        pair.assert_in_sync();
    }
}

#[test]
fn the_outcome_for_a_lost_connection_means_nothing() {
    let mut pair = pair(&[BeforeResyncTarget]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.cut();
    pair.settle();
    assert_eq!(pair.running(1), [BeforeResyncTarget, BeforeResyncTarget]);
    pair.end_handler(1, BeforeResyncTarget, Exited(1));
    let peer = &pair.nodes[1].engine.status(pair.now).peers[0];
    assert_eq!(
        (peer.connection, peer.replication),
        (ConnectionState::Connected, ReplicationState::WFBitMapT)
    );
    pair.end_handler(1, BeforeResyncTarget, Exited(0));
    pair.assert_in_sync();
}

#[test]
fn a_disk_that_is_detached_meanwhile_ends_the_wait() {
    let mut pair = pair(&[BeforeResyncTarget]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Detach).unwrap();
    pair.end_handler(1, BeforeResyncTarget, Exited(0));
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Diskless);
    pair.write(0, 0, 1);
    pair.attach(1).unwrap();
    pair.end_handler(1, BeforeResyncTarget, Exited(0));
    pair.assert_in_sync();
}

#[test]
fn a_split_brain_is_told_on_both_sides() {
    let mut pair = pair(&[InitialSplitBrain, SplitBrain]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.link_is_down = true;
    pair.cut();
    pair.command(1, Command::Primary { force: false }).unwrap();
    pair.write(0, 0, 1);
    pair.write(1, 0, 2);
    pair.heal();
    for n in 0..2 {
        assert_eq!(pair.running(n), [InitialSplitBrain, SplitBrain]);
    }
}

#[test]
fn a_primary_without_good_data_calls_for_help_once() {
    let mut pair = pair(&[PriOnInconDegr]);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.disk_fails[0] = true;
    let payload = Payload::new(vec![1; 4096].into());
    let write = || ClientOp::Write { offset: 0, payload: payload.clone(), fua: false };
    assert_eq!(pair.client(0, write()), Err(ClientError::Io));
    assert_eq!(pair.running(0), [PriOnInconDegr]);
    assert_eq!(pair.client(0, write()), Err(ClientError::Io));
    assert_eq!(pair.running(0), [PriOnInconDegr]);
}
