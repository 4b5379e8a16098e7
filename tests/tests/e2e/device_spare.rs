//! The keeper in reserve: it is there before the promotion that uses it, nobody depends on it, and it never outlives its
//! daemon.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::device::{demote, pair_with_devices};
use crate::node::{Node, RESOURCE, is_running};
use crate::wait;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_promotion_uses_the_spare_and_does_without_a_killed_one() {
    let (pair, [on_alpha, on_bravo]) = pair_with_devices();
    let [alpha, bravo] = [&pair.alpha, &pair.bravo];
    let killed = spare(bravo);
    kill(killed, Signal::SIGKILL).unwrap();
    wait::until("the killed spare is gone", || find_spare(bravo).is_none());
    demote(alpha, &on_alpha);
    bravo.adm(&["primary", RESOURCE]).ok();
    assert_ne!(keeper(bravo), killed);
    demote(bravo, &on_bravo);

    // The one before was used by its first promotion.
    let waiting = spare(alpha);
    alpha.adm(&["primary", RESOURCE]).ok();
    assert_eq!(keeper(alpha), waiting);
    demote(alpha, &on_alpha);

    let waiting = spare(bravo);
    bravo.kill();
    wait::until("the spare has ended with its daemon", || !is_running(waiting));
    let waiting = spare(alpha);
    alpha.adm(&["down", RESOURCE]).ok();
    wait::until("nobody needs the spare", || !is_running(waiting));
}

/// The spare of a node, as soon as it is there.
fn spare(node: &Node) -> Pid {
    wait::until("a spare is there", || find_spare(node).is_some());
    find_spare(node).unwrap()
}

/// What the daemon has started that waits to be told something.
fn find_spare(node: &Node) -> Option<Pid> {
    let children = format!("/proc/{0}/task/{0}/children", node.pid()?);
    let children = fs::read_to_string(children).unwrap_or_default();
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let is_spare = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // The one that keeps a device was a spare, too.
        words.split(|byte| *byte == 0).any(|word| word == b"spare") && !keeps_one(*pid)
    };
    children.find(is_spare).map(Pid::from_raw)
}

/// Whether a process has a device's lock.
fn keeps_one(pid: i32) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| target.extension() == Some("pid".as_ref()))
}

/// The process that keeps a node's device.
fn keeper(node: &Node) -> Pid {
    let pid = fs::read_to_string(node.run.devices().join("r0-0.pid")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap())
}
