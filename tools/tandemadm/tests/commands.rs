//! The program against a daemon with canned answers.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Node, Ran, connected, snapshot};
use tandem_control::{Action, Reply, Request};
use tandem_core::split_brain::NoPrimary;
use tandem_core::state::{ConnectionState, ReplicationState};
use tandem_core::status::ResyncProgress;
use tandem_core::units::NodeId;

const MIB: u64 = 1 << 20;

#[test]
fn wrong_usage_ends_with_1_and_help_with_0() {
    let node = Node::new(MIB);
    for line in ["", "frobnicate r0", "up", "status --frobnicate", "wait-sync -t soon r0"] {
        node.adm(line).expect(1, &[]);
    }
    node.adm("--help").expect(0, &["create-md", "wait-sync"]);
    let help = node.adm("--help").stdout;
    assert!(!help.contains("sh-exec-detached"), "{help}");
}

#[test]
fn another_tools_verb_is_understood_well_enough_to_name_ours() {
    let node = Node::new(MIB);
    node.adm("promote r0").expect(1, &["unrecognized subcommand 'promote'", "'primary'"]);
    node.adm("upp r0").expect(1, &["'up'"]);
}

#[test]
fn an_unknown_resource_is_refused_before_anything_is_done() {
    let node = Node::new(MIB);
    let asked = node.daemon(|_| Reply::default());
    let lines = [
        "primary r0 nosuch",
        "up all nosuch",
        "down nosuch all",
        "status all nosuch",
        "dstate all nosuch",
        "dump all nosuch",
    ];
    for line in lines {
        node.adm(line).expect(1, &["'nosuch' not defined in your config (for this host)."]);
    }
    assert!(asked.lock().unwrap().is_empty());
    node.adm("down all r0 all").expect(0, &[]);
    assert_eq!(asked.lock().unwrap().len(), 2, "each resource once");
}

/// As drbdsetup, which knows no configuration, waits for what may come.
#[test]
fn nobody_waits_for_the_events_of_a_resource_that_cannot_come() {
    let node = Node::new(MIB);
    for line in ["events2 nosuch", "events2 --now nosuch", "events2 r0/0"] {
        node.adm(line).expect(1, &["not defined in your config (for this host).", "This node has: r0, r1."]);
    }
    node.adm("events2 --now r0").expect(0, &["exists -"]);
    node.adm("events2 --now all").expect(0, &["exists -"]);
    fs::remove_file(node.config()).unwrap();
    node.adm("events2 --now nosuch").expect(0, &["exists -"]);
}

#[test]
fn a_broken_configuration_has_drbdadms_exit_codes() {
    let node = Node::new(MIB);
    fs::write(node.config(), "resource r0 {").unwrap();
    node.adm("role r0").expect(10, &["tandem.conf"]);
    fs::write(node.config(), "resource r0 { net { protocol Z; } }").unwrap();
    node.adm("role r0").expect(10, &["tandem.conf"]);
    fs::write(node.config(), "include \"absent\";").unwrap();
    node.adm("role r0").expect(10, &["absent", "tandem.conf:1:9"]);
    fs::remove_file(node.config()).unwrap();
    node.adm("role r0").expect(20, &["tandem.conf", "No such file", "`-c FILE` names another"]);
    fs::create_dir(node.config()).unwrap();
    node.adm("role r0").expect(20, &["tandem.conf", "Is a directory"]);
}

#[test]
fn without_a_daemon_every_command_says_what_is_the_matter() {
    let node = Node::new(MIB);
    let ran = node.adm("status");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "# No currently configured DRBD found.\n"));
    node.adm("status --why").expect(0, &["# T001 tandemd does not run", "#   next: tandemadm up all"]);
    for command in ["status", "role", "cstate", "wait-connect"] {
        node.adm(&format!("{command} r0")).expect(10, &["r0: No such resource"]);
    }
    node.adm("primary r0").expect(20, &["tandemd is not running"]);
    node.adm("down r0").expect(0, &[]);
}

#[test]
fn status_and_its_parts_come_from_the_daemon() {
    let node = Node::new(MIB);
    node.daemon(|_| snapshot(connected()));
    let golden =
        "r0 role:Primary\n  disk:UpToDate open:no\n  bravo role:Secondary\n    peer-disk:UpToDate\n\n";
    assert_eq!(node.adm("status").stdout, golden);
    assert_eq!(node.adm("status r0").stdout, golden);
    node.adm("status -v r0").expect(0, &["r0 node-id:0 role:Primary suspended:no", " quorum:yes open:no"]);
    node.adm("status --statistics").expect(0, &["\n      read:0 written:0\n", "received:0 sent:0\n"]);
    node.adm("-vv status --statistics r0").expect(0, &["    write-ordering:flush\n", "al-writes:0"]);
    node.adm("status --color r0").expect(0, &["\x1b[1;36mPrimary\x1b[0m"]);
    node.adm("status --color=never --json").expect(0, &["\"role\": \"Primary\""]);
    assert_eq!(node.adm("role r0").stdout, "Primary\n");
    assert_eq!(node.adm("cstate r0").stdout, "Connected\n");
    assert_eq!(node.adm("dstate r0").stdout, "UpToDate/UpToDate\n");
}

#[test]
fn each_command_asks_for_its_action() {
    let node = Node::new(MIB);
    let asked = node.daemon(|_| Reply::default());
    let expected = [
        ("attach r0", Action::Attach),
        ("detach r0", Action::Detach { force: false }),
        ("detach --force r0", Action::Detach { force: true }),
        ("connect r0", Action::Connect { discard_my_data: false, tentative: false }),
        ("connect --discard-my-data r0", Action::Connect { discard_my_data: true, tentative: false }),
        ("disconnect r0", Action::Disconnect),
        ("primary r0", Action::Primary { force: false }),
        ("primary --force r0", Action::Primary { force: true }),
        ("secondary r0", Action::Secondary { force: false }),
        ("secondary --force r0", Action::Secondary { force: true }),
        ("down r0", Action::Down),
    ];
    for (line, _) in &expected {
        let ran = node.adm(line);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{line}");
    }
    let requests = expected.map(|(_, action)| Request::Act { resource: "r0".into(), action });
    assert_eq!(*asked.lock().unwrap(), requests);
}

/// What options say of a peer stays true while it is away.
#[test]
fn options_change_while_the_peer_that_one_names_is_taken_away() {
    let node = Node::new(MIB);
    let mut status = connected();
    status.spec.peers.clear();
    status.engine.peers.clear();
    status.spec.options.after_split_brain.no_primary = NoPrimary::DiscardNode(NodeId(1));
    let mut expected = status.spec.clone();
    let asked = node.daemon(move |_| snapshot(status.clone()));
    node.adm("net-options r0 --ping-int").expect(1, &["--ping-int needs a value: --ping-int=VALUE"]);
    node.adm("net-options --ping-int 7 r0").expect(0, &[]);
    expected.options.ping_interval_ms = 7000;
    let asked = asked.lock().unwrap();
    let Some(Request::Change { spec }) = asked.last() else { panic!("{asked:?}") };
    assert_eq!(**spec, expected);
}

#[test]
fn a_resource_that_is_not_up_is_down_already() {
    let node = Node::new(MIB);
    let unknown = "r0: Failure: (158) Unknown resource";
    node.daemon(move |_| Reply { exit_code: 10, error: Some(unknown.into()), ..Reply::default() });
    node.adm("down r0").expect(0, &[]);
    node.adm("secondary r0").expect(10, &[unknown]);
}

#[test]
fn a_daemon_that_hangs_up_is_not_taken_for_another_release() {
    let node = Node::new(MIB);
    let listener = UnixListener::bind(node.run_dir().control_socket()).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    node.adm("secondary r0").expect(20, &["control.sock without an answer"]);
}

#[test]
fn a_reader_that_is_gone_is_no_reason_to_panic() {
    let node = Node::new(MIB);
    let mut child =
        node.command("--dry-run up all").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_refusal_is_shown_as_it_is_with_its_exit_code() {
    let node = Node::new(MIB);
    node.daemon(|_| Reply {
        exit_code: 17,
        error: Some("r0: State change failed: (-2) Need access to UpToDate data".into()),
        detail: vec!["the disk is Inconsistent".into()],
        ..Reply::default()
    });
    let ran = node.adm("primary r0");
    assert_eq!(ran.code, 17);
    assert_eq!(
        ran.stderr,
        "r0: State change failed: (-2) Need access to UpToDate data\nadditional info:\nthe disk is Inconsistent\n\
         Command 'primary r0' terminated with exit code 17\n"
    );
}

#[test]
fn all_goes_on_in_the_order_of_the_configuration_and_ends_with_the_highest_code() {
    let node = Node::new(MIB);
    let asked = node.daemon(|request| match request {
        Request::Act { resource, .. } if resource == "r0" => {
            Reply { exit_code: 11, error: Some("r0: no".into()), ..Reply::default() }
        }
        _ => Reply::default(),
    });
    node.adm("secondary all").expect(11, &["r0: no"]);
    let names = ["r0", "r1"]
        .map(|name| Request::Act { resource: name.into(), action: Action::Secondary { force: false } });
    assert_eq!(*asked.lock().unwrap(), names);
}

#[test]
fn up_sends_the_resource_as_configured() {
    let node = Node::new(MIB);
    let asked = node.daemon(|_| Reply::default());
    node.adm("up r0").expect(0, &[]);
    let asked = asked.lock().unwrap();
    let Some(Request::Up { spec }) = asked.last() else { panic!("{asked:?}") };
    assert_eq!((spec.name.as_str(), spec.node.name.as_str()), ("r0", "alpha"));
    assert_eq!(spec.volume.disk, node.disk());
    assert_eq!(spec.paths[0].remote, "127.0.0.2:7788".parse().unwrap());
}

#[test]
fn a_dry_run_prints_the_request() {
    let node = Node::new(MIB);
    node.adm("-d primary --force r0").expect(0, &[r#""resource":"r0""#, r#""force":true"#]);
    node.adm("-d up r0").expect(0, &[r#""request":"up""#]);
}

#[test]
fn waiting_ends_when_the_state_is_reached() {
    let node = Node::new(MIB);
    let begun = Instant::now();
    node.daemon(move |_| {
        let mut status = connected();
        if begun.elapsed() < Duration::from_millis(400) {
            status.engine.peers[0].replication = ReplicationState::SyncSource;
            status.engine.peers[0].resync = Some(ResyncProgress {
                total_bytes: 100 * MIB,
                left_bytes: 50 * MIB,
                elapsed_ms: 100,
                recent_bytes_per_s: 10 * MIB,
                average_bytes_per_s: 10 * MIB,
                ..ResyncProgress::default()
            });
        }
        snapshot(status)
    });
    node.adm("wait-connect r0").expect(0, &[]);
    node.adm("wait-sync --progress r0")
        .expect(0, &["r0 [==========>.........]  50.0%  10,240 KiB/s  finish: 0:00:05"]);
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn waiting_ends_with_5_on_timeout_and_at_once_on_standalone() {
    for (state, part) in
        [(ConnectionState::Connecting, "timeout"), (ConnectionState::StandAlone, "Split-Brain detected")]
    {
        let node = Node::new(MIB);
        node.daemon(move |_| {
            let mut status = connected();
            status.engine.peers[0].connection = state;
            status.engine.peers[0].standalone_reason = Some("Split-Brain detected".into());
            snapshot(status)
        });
        let begun = Instant::now();
        node.adm("wait-connect -t 1 r0").expect(5, &[part]);
        assert_eq!(begun.elapsed() >= Duration::from_secs(1), state == ConnectionState::Connecting);
    }
}

#[test]
fn options_are_explained() {
    let node = Node::new(MIB);
    node.adm("options ping-timeout").expect(0, &["A probe must be answered", "default 5"]);
    node.adm("options disk").expect(0, &["al-extents", "c-max-rate"]);
    node.adm("options").expect(0, &["ping-timeout", "al-extents", "fence-peer"]);
    node.adm("options ping-tiemout").expect(1, &["did you mean `ping-timeout`?"]);
}

#[test]
fn sh_commands_print_what_scripts_ask_for() {
    let node = Node::new(MIB);
    assert_eq!(node.adm("sh-resources").stdout, "r0\nr1\n");
    assert_eq!(node.adm("sh-ll-dev r0").stdout, format!("{}\n", node.disk().display()));
    assert_eq!(node.adm("sh-minor all").stdout, "0\n1\n");
    assert_eq!(node.adm("sh-dev r1").stdout, "/dev/drbd1\n");
    assert_eq!(node.adm("sh-dev r1 minor-0").stdout, "/dev/drbd1\n/dev/drbd0\n");
    assert_eq!(node.adm("sh-resource r1/0").stdout, "r1\n");
    assert_eq!(node.adm("sh-md-dev r0").stdout, format!("{}\n", node.disk().display()));
    assert_eq!(node.adm("sh-md-idx r0").stdout, "internal\n");
    assert_eq!(node.adm("sh-ip r0").stdout, "127.0.0.1\n");
    assert_eq!(node.adm("sh-mod-parms").stdout, "minor_count=32\n");
    assert_eq!(node.adm("sh-nop").stdout, "");
    node.adm("sh-dev r0/7").expect(1, &["Resource 'r0' has no volume 7"]);
    node.adm("sh-dev r9").expect(1, &["'r9' not defined in your config (for this host)."]);
    assert!(node.adm("dump-xml r0").stdout.starts_with("<resource name=\"r0\" conf-file-line=\""));
    node.adm("dump r1").expect(0, &["resource r1"]);
}
