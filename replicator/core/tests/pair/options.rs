//! What was chosen changes while the resource is up: at once, with the next connection, with the next attach, or not now.

use tandem_core::config::{Fencing, OnCongestion, OnNoQuorum, Options, Protocol, Quorum, Votes};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::handler::Handler;
use tandem_core::handler::HandlerOutcome::Exited;
use tandem_core::io::{ClientError, ClientOp, Command};
use tandem_core::units::ByteRange;
use tandem_core::wire::Message;

use crate::harness::Pair;
use crate::scene::{status, synced};

fn set(options: &Options) -> Command {
    Command::SetOptions { options: Box::new(options.clone()), handlers: [Handler::FencePeer].into() }
}

fn refusal(pair: &mut Pair, options: &Options) -> (String, String) {
    let error = pair.command(0, set(options)).unwrap_err();
    (error.to_string(), error.detail().join("; "))
}

fn part(pair: &mut Pair) {
    pair.link_is_down = true;
    pair.cut();
    pair.settle();
}

#[test]
fn what_concerns_one_node_changes_at_once() {
    let mut pair = synced(Protocol::C);
    let mut options = pair.options.clone();
    options.max_epoch_size = 1;
    options.resync.max_bytes_per_s = 1 << 20;
    for n in [0, 1] {
        pair.command(n, set(&options)).unwrap();
    }
    pair.write(0, 0, 5);
    pair.write(0, 4096, 5);
    pair.assert_in_sync();
    // A handler that came with the change is run.
    options.fencing = Fencing::ResourceOnly;
    pair.command(0, set(&options)).unwrap();
    part(&mut pair);
    assert_eq!(pair.running(0), [Handler::FencePeer]);
    pair.end_handler(0, Handler::FencePeer, Exited(4));
    pair.heal();
    pair.assert_in_sync();
}

#[test]
fn what_the_activity_log_is_made_for_changes_with_the_next_attach() {
    let mut pair = synced(Protocol::C);
    let options = Options { al_extents: 67, ..pair.options.clone() };
    let text = "Failure: (124) Device is attached to a disk (use detach first)";
    let why = "changes with the next attach only: al-extents; 'detach' first, or use 'adjust'";
    assert_eq!(refusal(&mut pair, &options), (text.into(), why.into()));
    pair.command(0, Command::Detach).unwrap();
    pair.command(0, set(&options)).unwrap();
    pair.attach(0).unwrap();
    pair.write(0, 0, 1);
    pair.assert_in_sync();
}

/// Nodes that have chosen differently do not talk to each other; once they agree again they do.
#[test]
fn what_both_must_have_alike_changes_with_the_next_connection() {
    let mut pair = synced(Protocol::C);
    let options = Options { protocol: Protocol::A, ko_count: 1, ..pair.options.clone() };
    let why = "changes with the next connection only: protocol; 'disconnect' first, or use 'adjust'";
    assert_eq!(refusal(&mut pair, &options), ("Failure: (151) Need to be StandAlone".into(), why.into()));
    assert_eq!(status(&pair, 0).protocol, Protocol::C);
    pair.command(1, Command::Disconnect).unwrap();
    // It may have noticed already.
    pair.command(0, Command::Disconnect).unwrap_or_default();
    for n in [0, 1] {
        pair.command(n, set(&options)).unwrap();
        assert_eq!(status(&pair, n).protocol, Protocol::A);
        pair.command(n, Command::Connect).unwrap();
    }
    pair.write(0, 4096, 6);
    pair.assert_in_sync();
}

#[test]
fn policies_that_exclude_each_other_are_refused() {
    let mut pair = synced(Protocol::A);
    let stonith = Options { fencing: Fencing::ResourceAndStonith, ..pair.options.clone() };
    assert!(refusal(&mut pair, &stonith).0.starts_with("Failure: (154)"));
    let mut pair = synced(Protocol::C);
    let mut ahead = pair.options.clone();
    ahead.congestion.policy = OnCongestion::PullAhead;
    assert!(refusal(&mut pair, &ahead).0.starts_with("Failure: (155)"));
}

#[test]
fn a_digest_that_is_in_use_stays() {
    let mut pair = synced(Protocol::C);
    let mut options = pair.options.clone();
    options.verify_algorithm = Some(DigestAlgorithm::Sha1);
    pair.command(0, set(&options)).unwrap();
    pair.hold = Some(|m| matches!(m, Message::VerifyDigests { .. }));
    let verify = Command::Verify { volume: None, start_bytes: None, stop_bytes: None, repair: None };
    pair.command(0, verify).unwrap();
    options.verify_algorithm = None;
    assert_eq!(
        refusal(&mut pair, &options).0,
        "Failure: (149) Can not change verify-alg while online verify runs"
    );
    pair.deliver();
    pair.settle();
    pair.command(0, set(&options)).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.write(0, 0, 1);
    pair.hold = Some(|m| matches!(m, Message::ResyncRequest { .. }));
    pair.command(1, Command::Connect).unwrap();
    options.resync.csums_algorithm = Some(DigestAlgorithm::Sha1);
    assert_eq!(
        refusal(&mut pair, &options).0,
        "Failure: (148) Can not change csums-alg while resync is in progress"
    );
    pair.deliver();
    pair.settle();
    pair.command(0, set(&options)).unwrap();
    pair.assert_in_sync();
}

/// What is frozen for want of quorum goes on, or fails, as soon as the administrator says so.
#[test]
fn quorum_that_is_given_up_lets_requests_go_and_errors_end_them() {
    let quorum = Quorum { votes: Votes::Majority, ..Quorum::default() };
    let mut pair = synced(Protocol::C);
    let wanted = Options { quorum, ..pair.options.clone() };
    for n in [0, 1] {
        pair.command(n, set(&wanted)).unwrap();
    }
    part(&mut pair);
    assert_eq!(status(&pair, 0).suspended.to_string(), "quorum");
    let frozen = pair.begin_write(0, 4096, 2);
    assert!(!pair.completed(frozen));
    let on_loss = OnNoQuorum::IoError;
    let failing = Options { quorum: Quorum { on_loss, ..quorum }, ..wanted.clone() };
    let before = status(&pair, 0).generations.current;
    pair.command(0, set(&failing)).unwrap();
    assert_eq!(pair.answered(frozen), Some(Err(ClientError::Io)));
    pair.command(0, set(&wanted)).unwrap();
    let frozen = pair.begin_client(0, ClientOp::Read(ByteRange::new(0, 4096)));
    assert_eq!(pair.answered(frozen), None);
    assert_eq!(status(&pair, 0).generations.current, before, "nothing has gone on alone");
    assert_eq!(pair.nodes[0].disk.0[4096], 0);
    let free = Options { quorum: Quorum::default(), ..wanted };
    pair.command(0, set(&free)).unwrap();
    assert!(pair.answered(frozen).is_some_and(|answer| answer.is_ok()));
    pair.write(0, 8192, 3);
    assert_ne!(status(&pair, 0).generations.current, before, "it has gone on alone");
    pair.heal();
    pair.assert_in_sync();
}
