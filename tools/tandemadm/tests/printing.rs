//! What is printed: to readers who have gone, to disks that are full, on a terminal that is needed afterwards.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Node, Ran, connected, snapshot};

const MIB: u64 = 1 << 20;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn what_does_not_fit_on_a_full_disk_is_a_failure() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    node.daemon(|_| snapshot(connected()));
    for line in ["dump-md r0", "dump", "status", "status --watch", "events2 --now", "get-gi r0"] {
        let ran = Ran::from(node.command(line).stdout(full()).stderr(Stdio::piped()).output().unwrap());
        ran.expect(1, &["not complete: writing to stdout: No space left on device"]);
    }
}

#[test]
fn nobody_need_hear_the_complaints() {
    let node = Node::new(MIB);
    let drbdsetup = node.path("drbdsetup");
    symlink(&node.program, &drbdsetup).unwrap();
    let mut commands =
        [(Command::new(drbdsetup), 20), (Command::new(&node.program), 1), (node.command("role nosuch"), 1)];
    for (command, code) in &mut commands {
        assert_eq!(command.stderr(full()).status().unwrap().code(), Some(*code), "{command:?}");
    }
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

#[test]
fn an_empty_line_is_no_wish_and_nothing_waits_for_more() {
    let node = Node::new(MIB);
    let mut command = node.command("events2 --poll");
    let mut events =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = lines(&mut events);
    assert_eq!(lines.next().unwrap(), "exists -");
    let mut stdin = events.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    node.daemon(|_| snapshot(connected()));
    assert!(lines.next().unwrap().starts_with("create resource name:r0"));
    stdin.write_all(b"q").unwrap();
    assert_eq!(events.wait().unwrap().code(), Some(0));
}

#[test]
fn events_have_the_time_on_the_wall() {
    let node = Node::new(MIB);
    for (zone, offset) in [("XYZ-05:30", "+05:30"), ("XYZ3", "-03:00"), ("", "+00:00")] {
        let ran = Ran::from(node.command("events2 --now --timestamps").env("TZ", zone).output().unwrap());
        let (time, rest) = ran.stdout.split_once(' ').unwrap();
        assert_eq!((&time[26..], rest), (offset, "exists -\n"), "{time}");
    }
}

/// The terminal is what it was, whoever ends the program.
#[test]
fn a_terminated_top_leaves_the_terminal_as_it_was() {
    let node = Node::new(MIB);
    let mut script = Command::new("script");
    let top = format!("exec {} top", node.program.display());
    script.args(["-qefc", &top, "/dev/null"]).env("TANDEM_RUN_DIR", node.path("run")).env("TERM", "xterm");
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = script.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\x1b[?1049h") {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    let children = format!("/proc/{0}/task/{0}/children", script.id());
    let top = fs::read_to_string(children).unwrap();
    kill(Pid::from_raw(top.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    screen.read_to_end(&mut seen).unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("\x1b[?1049l"), "{text}");
    assert_eq!(script.wait().unwrap().code(), Some(0));
}
