//! `up` starts the daemon. In a file of its own: a program just copied cannot be run while another test forks.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::Node;
use tandem_control::Reply;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const MIB: u64 = 1 << 20;

#[test]
fn up_starts_the_daemon_beside_the_program() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut node = Node::new(MIB);
    let pid_file = node.path("pid");
    install(&mut node, &format!("echo $$ > {}; exec sleep 20", pid_file.display()));
    let socket = node.run_dir().control_socket();
    let fake = std::thread::spawn(move || {
        // Answers only once the program beside was really run.
        let deadline = Instant::now() + Duration::from_secs(8);
        while fs::read_to_string(&pid_file).map_or(0, |text| text.len()) < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
        let listener = UnixListener::bind(socket).unwrap();
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let reply = serde_json::to_string(&Reply::default()).unwrap();
            writeln!(&stream, "{reply}").unwrap();
        }
        pid
    });
    let ran = node.adm("up r0");
    let pid = fake.join().unwrap();
    ran.expect(0, &[&format!("tandemd started (pid {pid}, log ")]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(session, pid, "it leads a session of its own");
}

#[test]
fn a_daemon_that_ends_at_once_is_reported_with_its_log() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut node = Node::new(MIB);
    install(&mut node, "echo no such ring >&2; exit 3");
    node.adm("up r0").expect(20, &["tandemd ended at once (exit status: 3)", "no such ring"]);
    let mut mute = Node::new(MIB);
    install(&mut mute, "exit 4");
    mute.adm("up r0").expect(20, &["(exit status: 4)", "is the file system full?"]);
}

/// Killed a moment ago, its socket still takes a conversation.
#[test]
fn a_daemon_that_is_ending_is_waited_for() {
    let _turn = ONE_AT_A_TIME.lock();
    let mut node = Node::new(MIB);
    install(&mut node, "echo the next one >&2; exit 3");
    let listener = UnixListener::bind(node.run_dir().control_socket()).unwrap();
    let ending = std::thread::spawn(move || drop(listener.accept()));
    node.adm("up r0").expect(20, &["tandemd ended at once (exit status: 3)", "the next one"]);
    ending.join().unwrap();
}

/// Puts the program and a `tandemd` of these shell commands into a folder of their own.
fn install(node: &mut Node, script: &str) {
    let program = node.path("tandemadm");
    fs::copy(&node.program, &program).unwrap();
    let daemon = node.path("tandemd");
    fs::write(&daemon, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
    node.program = program;
}
