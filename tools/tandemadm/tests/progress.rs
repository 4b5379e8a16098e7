//! What is seen on a terminal while something takes long, against a daemon that takes its time; `script` is the terminal.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use support::{Node, Ran, connected, snapshot};
use tandem_control::{Action, Reply, Request, ResourceStatus};
use tandem_core::state::{ConnectionState, ReplicationState};
use tandem_core::status::ResyncProgress;

const MIB: u64 = 1 << 20;
/// How far the canned verify is.
const HALF: &str = "r0 [==========>.........]  50.0%  10,240 KiB/s  finish: 0:00:05";
const STAYS: &str = "Ctrl-C ends the watching only";

/// The command on a terminal, whose error output is what the terminal shows.
fn on_terminal(node: &Node, program: &str, arguments: &str) -> Ran {
    let line = format!("{program} -c {} {arguments}", node.config().display());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]);
    command.env("TANDEM_RUN_DIR", node.run_dir().path()).env("TANDEM_NODE", "alpha");
    command.output().unwrap().into()
}

fn tandemadm(node: &Node) -> String {
    node.program.display().to_string()
}

/// A verify that is seen half done so many times, and then has found 8 KiB.
fn verifying(looks: usize) -> impl Fn(&Request) -> Reply + Send {
    let (sender, left) = mpsc::channel();
    (0..looks).for_each(|_| sender.send(()).unwrap());
    move |request| match request {
        Request::Status { .. } => snapshot(at(left.try_recv().is_ok())),
        _ => Reply::default(),
    }
}

fn at(half: bool) -> ResourceStatus {
    let mut status = connected();
    let peer = &mut status.engine.peers[0];
    peer.out_of_sync_bytes = 8192;
    if half {
        peer.replication = ReplicationState::VerifyS;
        peer.resync = Some(ResyncProgress {
            total_bytes: 100 * MIB,
            left_bytes: 50 * MIB,
            recent_bytes_per_s: 10 * MIB,
            ..ResyncProgress::default()
        });
    }
    status
}

#[test]
fn a_verify_is_watched_on_a_terminal_and_nowhere_else() {
    let node = Node::new(MIB);
    let end = "r0: 8 KiB differ from bravo: tandemadm explain T404";
    let asked = node.daemon(verifying(30));
    on_terminal(&node, &tandemadm(&node), "verify r0").expect(0, &[STAYS, HALF, end]);
    let verify = Action::Verify { volume: None, start_bytes: None, stop_bytes: None, repair: None };
    assert_eq!(asked.lock().unwrap()[0], Request::Act { resource: "r0".into(), action: verify });

    for line in ["--no-progress verify r0", "--no-progress invalidate-remote r0"] {
        let ran = on_terminal(&node, &tandemadm(&node), line);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{line}");
    }
    let ran = node.adm("verify r0");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    // As drbdadm, it returns at once.
    let drbdadm = node.path("drbdadm");
    std::os::unix::fs::symlink(&node.program, &drbdadm).unwrap();
    let ran = on_terminal(&node, &drbdadm.display().to_string(), "verify r0");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
}

#[test]
fn a_script_that_asks_for_it_waits_for_the_end() {
    let node = Node::new(MIB);
    node.daemon(verifying(3));
    node.adm("verify --progress r0").expect(0, &[STAYS, HALF, "8 KiB differ"]);
}

#[test]
fn a_verify_that_loses_its_peer_has_not_ended_well() {
    let node = Node::new(MIB);
    node.daemon(|_| {
        let mut status = at(true);
        status.engine.peers[0].connection = ConnectionState::Connecting;
        snapshot(status)
    });
    node.adm("verify --progress r0")
        .expect(5, &["r0: bravo is Connecting; the next verify goes on where it was"]);
}

#[test]
fn waiting_for_a_peer_says_for_whom_and_how_long() {
    let node = Node::new(MIB);
    node.daemon(|_| {
        let mut status = connected();
        status.engine.peers[0].connection = ConnectionState::Connecting;
        snapshot(status)
    });
    let shown = "r0: waiting, bravo is Connecting, Established, 0:00:01 of 0:00:02";
    on_terminal(&node, &tandemadm(&node), "wait-connect -t 2 r0").expect(5, &[shown]);
    let ran = node.adm("wait-connect -t 1 r0");
    assert!(!ran.stderr.contains("waiting"), "{ran:?}");
}

#[test]
fn a_daemon_that_takes_its_time_is_seen_to() {
    let node = Node::new(MIB);
    node.daemon(|_| {
        std::thread::sleep(Duration::from_millis(1500));
        Reply::default()
    });
    on_terminal(&node, &tandemadm(&node), "attach r0").expect(0, &["r0: attach, 0:00:01"]);
}
