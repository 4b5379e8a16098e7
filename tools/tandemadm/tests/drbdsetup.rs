//! Under the name drbdsetup: what is up is asked about, and no configuration is needed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use support::{Node, Ran, connected, snapshot};
use tandem_control::{Action, Reply, Request, ResourceStatus};

const MIB: u64 = 1 << 20;

/// A node on which nobody finds a configuration.
fn node() -> Node {
    let node = Node::new(MIB);
    fs::remove_file(node.config()).unwrap();
    symlink(&node.program, node.path("drbdsetup")).unwrap();
    node
}

fn drbdsetup(node: &Node, line: &str) -> Ran {
    let mut command = Command::new(node.path("drbdsetup"));
    command.args(line.split(' ')).env("TANDEM_RUN_DIR", node.path("run"));
    command.output().unwrap().into()
}

fn two_volumes() -> ResourceStatus {
    let mut status = connected();
    let mut second = status.spec.volume.clone();
    (second.number, second.minor) = (1, 4);
    status.spec.more_volumes.push(second);
    status
}

#[test]
fn what_is_up_is_shown_without_a_configuration() {
    let node = node();
    node.daemon(|_| snapshot(connected()));
    for (line, text) in [
        ("status r0", "r0 role:Primary\n  disk:UpToDate open:no\n"),
        ("status", "r0 role:Primary\n"),
        // Cut short, as getopt allows.
        ("status r0 --verb --stat", "al-writes:0"),
        ("role r0", "Primary\n"),
        ("r0 role", "Primary\n"),
        ("cstate r0 1", "Connected\n"),
        ("dstate 0", "UpToDate/UpToDate\n"),
        ("/dev/drbd0 dstate", "UpToDate/UpToDate\n"),
        ("show r0", "resource \"r0\" {\n"),
        ("show -D -j", "\"ping-int\": 10"),
        ("events2 r0 --now", "exists resource name:r0 role:Primary"),
        ("wait-sync-volume r0 1 0", ""),
    ] {
        drbdsetup(&node, line).expect(0, &[text]);
    }
}

#[test]
fn what_is_up_is_changed_without_a_configuration() {
    let node = node();
    let asked = node.daemon(|_| snapshot(connected()));
    for (line, action) in [
        ("primary r0", Action::Primary { force: false }),
        ("disconnect r0 1", Action::Disconnect),
        ("pause-sync r0 1 0", Action::PauseSync),
        ("detach 0", Action::Detach { force: false }),
        // As drbd-utils' units call it.
        ("secondary --force=yes r0", Action::Secondary { force: true }),
        ("down", Action::Down),
    ] {
        drbdsetup(&node, line).expect(0, &[]);
        let request = asked.lock().unwrap().last().cloned();
        assert_eq!(request, Some(Request::Act { resource: "r0".into(), action }), "{line}");
    }
    for line in [
        "net-options r0 1 --ping-int=7",
        "resource-options r0 --set-defaults --quorum=majority",
        "resource-options --on-no-quorum io-error --on-no-data suspend-io r0",
    ] {
        drbdsetup(&node, line).expect(0, &[]);
        assert!(matches!(asked.lock().unwrap().last(), Some(Request::Prepare { .. })), "{line}");
    }
    drbdsetup(&node, "net-options r0 1 --ping-int=0").expect(10, &["`ping-int` is out of range"]);
}

#[test]
fn what_is_not_up_is_unknown_in_drbdsetups_words() {
    let node = node();
    node.daemon(|_| snapshot(two_volumes()));
    for (line, text) in [
        ("status r1", "r1: No such resource\n"),
        ("role r1", "r1: Unknown resource\n"),
        ("cstate r0 2", "r0: No such connection\n"),
        ("dstate 9", "9: No such device\n"),
        ("get-gi r0 1 2", "r0: No such peer device\n"),
        ("primary r1", "r1: Failure: (158) Unknown resource\n"),
        ("detach 9", "9: Failure: (127) Device minor not allocated\n"),
    ] {
        assert_eq!(drbdsetup(&node, line).expect(10, &[]).stderr, text, "{line}");
    }
    drbdsetup(&node, "down r1").expect(0, &[]);
    drbdsetup(&node, "dstate 4").expect(0, &["UpToDate/UpToDate\n"]);
    // All of a resource waits, by whatever minor it is called; and it is waited for.
    for line in ["suspend-io 4", "resume-io 4", "wait-sync-volume r0 1 1", "wait-connect-volume r0 1 0"] {
        drbdsetup(&node, line).expect(0, &[]);
    }
    drbdsetup(&node, "detach 4").expect(1, &["operates on whole resources"]);
}

#[test]
fn drbdmeta_has_our_metadata_to_do_with() {
    let node = node();
    symlink(&node.program, node.path("drbdmeta")).unwrap();
    let drbdmeta = |line: &str| -> Ran {
        let mut command = Command::new(node.path("drbdmeta"));
        command
            .args(["7", "v09"])
            .arg(node.disk())
            .args(line.split(' '))
            .env("TANDEM_RUN_DIR", node.path("run"));
        command.output().unwrap().into()
    };
    for line in ["internal apply-al", "internal read-dev-uuid --force", "internal get-gi --node-id=1"] {
        drbdmeta(line).expect(1, &["No valid meta"]);
    }
    drbdmeta("internal create-md 2 --force").expect(0, &["New tandem meta data block successfully created."]);
    drbdmeta("internal create-md 99").expect(20, &["1 to 31 peers"]);
    drbdmeta("internal write-dev-uuid 0123456789ABCDEF").expect(0, &[]);
    for (line, text) in [
        ("internal apply-al", ""),
        ("internal check-resize", ""),
        ("internal dstate", "Inconsistent\n"),
        ("internal get-gi --node-id=1", "0000000000000004:"),
        ("internal dump-md", "max-peers 2;"),
    ] {
        assert!(drbdmeta(line).expect(0, &[text]).stderr.is_empty(), "{line}");
    }
    drbdmeta("internal get-gi").expect(10, &["The get-gi command requires the --node-id option"]);
    drbdmeta("internal outdate").expect(5, &["Device is inconsistent."]);
    drbdmeta("flex-external dump-md").expect(20, &["use 'tandemadm dump-md'"]);
    drbdmeta("0 dump-md").expect(20, &["is not supported"]);
    drbdmeta("internal nosuch").expect(20, &["Unknown command 'nosuch'."]);
    drbdmeta("internal wipe-md --force").expect(0, &["successfully wiped out"]);
    drbdmeta("internal").expect(20, &["USAGE"]);
}

#[test]
fn without_a_daemon_nothing_is_up() {
    let node = node();
    drbdsetup(&node, "status").expect(0, &["# No currently configured DRBD found.\n"]);
    drbdsetup(&node, "status r0").expect(10, &["r0: No such resource"]);
    for line in ["down r0", "down", "secondary r0", "disconnect r0 1", "detach 0"] {
        assert_eq!(drbdsetup(&node, line).expect(0, &[]).stderr, "", "{line}");
    }
    drbdsetup(&node, "primary r0").expect(20, &["tandemd is not running"]);
}

/// Of tandemadm, too.
#[test]
fn a_broken_configuration_does_not_hide_what_is_up() {
    let node = Node::new(MIB);
    fs::write(node.config(), "resource r0 {").unwrap();
    node.adm("status r0").expect(10, &["tandem.conf", "r0: No such resource"]);
    node.daemon(|_: &Request| -> Reply { snapshot(connected()) });
    let ran = node.adm("status r0");
    assert!(
        ran.expect(0, &["warning: the configuration cannot be used"]).stdout.starts_with("r0 role:Primary\n")
    );
    for line in ["status -x r0", "status -x all"] {
        let ran = node.adm(line);
        let shown = &ran.expect(2, &[]).stdout;
        assert!(shown.contains("configuration") && shown.contains("Well: r0."), "{line}: {shown}");
    }
    assert!(!node.adm("status -x r9").expect(2, &[]).stdout.contains("r0"));
    node.adm("role r0").expect(10, &["tandem.conf"]);
    node.adm("status r9").expect(10, &["r9: No such resource"]);
}
