//! The verbs that others are made of, against a daemon with canned answers.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use support::{Node, connected, snapshot};
use tandem_control::{Action, Reply, Request};
use tandem_core::state::{ConnectionState, DiskState};

const MIB: u64 = 1 << 20;

#[test]
fn a_resource_is_made_bare() {
    let node = Node::new(MIB);
    let dry = node.adm("-d new-resource r0");
    dry.expect(0, &["{\"request\":\"new\",\"spec\":{\"name\":\"r0\""]);
    let text = fs::read_to_string(node.config()).unwrap();
    let common = "common { net { cram-hmac-alg sha256; shared-secret \"Raspberry Jam\"; } }\n";
    fs::write(node.config(), format!("{common}{text}")).unwrap();
    let dry = node.adm("-d new-resource r0");
    assert!(!dry.expect(0, &["(not shown)"]).stdout.contains("Raspberry"), "{dry:?}");
}

#[test]
fn minors_come_and_go_with_their_resource() {
    let node = Node::new(MIB);
    for verb in ["new-minor", "del-minor"] {
        node.adm(&format!("{verb} r0")).expect(10, &["r0: No such resource"]);
    }
    node.daemon(|request| {
        let mut status = connected();
        if *request == (Request::Status { resource: Some("r1".into()) }) {
            (status.spec.name, status.engine.resource) = ("r1".into(), "r1".into());
            status.engine.disk = DiskState::Diskless;
        }
        snapshot(status)
    });
    node.adm("new-minor r0/0").expect(0, &[]);
    node.adm("new-minor r1").expect(10, &["r1: Failure: (162)", "'tandemadm up r1'"]);
    node.adm("del-minor minor-0").expect(10, &["0: Failure: (160) Minor still configured (down it first)"]);
    node.adm("del-minor r1").expect(0, &["'tandemadm down r1'"]);
    node.adm("check-resize r0").expect(0, &[]);
    node.adm("check-resize r9").expect(1, &["'r9' not defined"]);
}

/// DRBD's test `force-resync`: one of two fresh copies is sent to the other, and nobody's data is overwritten by it.
#[test]
fn force_resync_is_for_fresh_copies() {
    for (disk, connection, code, text) in [
        (DiskState::Inconsistent, ConnectionState::Connected, 0, ""),
        (DiskState::UpToDate, ConnectionState::Connected, 10, "the local disk is UpToDate"),
        (
            DiskState::Inconsistent,
            ConnectionState::Connecting,
            11,
            "(-15) State change requires a connection",
        ),
    ] {
        let node = Node::new(MIB);
        let asked = node.daemon(move |_| {
            let mut status = connected();
            status.engine.disk = disk;
            (status.engine.peers[0].disk, status.engine.peers[0].connection) =
                (DiskState::Inconsistent, connection);
            snapshot(status)
        });
        node.adm("new-current-uuid --force-resync r0").expect(code, &[text]);
        let asked = asked.lock().unwrap();
        let acts = asked.iter().filter_map(|request| match request {
            Request::Act { action, .. } => Some(*action),
            _ => None,
        });
        let both = [Action::Primary { force: true }, Action::Secondary { force: false }];
        assert_eq!(acts.collect::<Vec<_>>(), if code == 0 { both.to_vec() } else { Vec::new() });
    }
}

#[test]
fn every_step_of_an_adjust_is_told() {
    let node = Node::new(MIB);
    node.daemon(|request| match request {
        Request::Status { .. } => {
            let mut status = connected();
            status.engine.disk = DiskState::Diskless;
            snapshot(status)
        }
        _ => Reply::default(),
    });
    // The device, too, is another one in the configuration.
    let ran = node.adm("adjust-with-progress r0");
    assert_eq!(
        ran.expect(10, &["when the resource is brought up"]).stdout,
        "[\n     adjust net: r0\n    adjust disk: r0\n]\n"
    );
}
