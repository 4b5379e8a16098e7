//! How verbs are spelled and resources are named, as drbdadm's users do; how long peers are waited for.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Node, Ran, connected, snapshot};
use tandem_control::{Action, Reply, Request};
use tandem_core::metadata::{Placement, Superblock};
use tandem_core::state::ConnectionState;
use tandem_core::units::NodeId;

const MIB: u64 = 1 << 20;

/// A node with the resource `r0` of two volumes, and `r1` of one.
fn two_volumes(startup: &str) -> Node {
    let node = Node::new(MIB);
    let volume = |number: u32, disk: &str| {
        format!(
            "volume {number} {{ device minor {}; disk {}; meta-disk internal; }}",
            number + 4,
            node.path(disk).display()
        )
    };
    let hosts =
        |port| format!("on alpha {{ address 127.0.0.1:{port}; }} on bravo {{ address 127.0.0.2:{port}; }}");
    let text = format!(
        "resource r0 {{ {startup} {} {} {} }}\nresource r1 {{ {} {} }}\n",
        volume(0, "disk"),
        volume(1, "second"),
        hosts(7788),
        volume(2, "third"),
        hosts(7789),
    );
    fs::write(node.config(), text).unwrap();
    for disk in ["second", "third"] {
        File::create(node.path(disk)).unwrap().set_len(MIB).unwrap();
    }
    node
}

fn acts(asked: &[Request]) -> Vec<(&str, Action)> {
    asked
        .iter()
        .filter_map(|request| match request {
            Request::Act { resource, action } => Some((resource.as_str(), *action)),
            _ => None,
        })
        .collect()
}

#[test]
fn every_form_of_a_name_finds_its_resource() {
    let node = two_volumes("");
    let asked = node.daemon(|_| Reply::default());
    for name in ["r1", "r1/2", "r1:bravo", "r1:bravo/2", "minor-6"] {
        node.adm(&format!("secondary {name}")).expect(0, &[]);
    }
    node.adm("secondary r0:bravo").expect(0, &[]);
    let secondary = Action::Secondary { force: false };
    let expected = [("r1", secondary); 5].into_iter().chain([("r0", secondary)]).collect::<Vec<_>>();
    assert_eq!(acts(&asked.lock().unwrap()), expected);
}

#[test]
fn a_name_that_fits_nothing_is_refused_in_drbdadms_words() {
    let node = two_volumes("");
    let asked = node.daemon(|_| Reply::default());
    for (line, message) in [
        ("connect r0:charlie", "Not a valid connection (r0:charlie) for this host"),
        ("connect r0:alpha", "Not a valid connection (r0:alpha) for this host"),
        ("primary r0/7", "Resource 'r0' has no volume 7"),
        ("primary r0/x", "Resource 'r0' has no volume x"),
        ("primary minor-9", "'minor-9' not defined in your config (for this host)."),
        ("primary r9:bravo/0", "'r9:bravo/0' not defined in your config (for this host)."),
        ("primary r0/1", "primary operates on whole resources, but you specified a specific volume!"),
        (
            "disconnect minor-5",
            "disconnect operates on whole resources, but you specified a specific volume!",
        ),
        ("down r0:bravo/1", "name 'r0'"),
    ] {
        node.adm(line).expect(1, &[message]);
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_volume_has_a_line_of_its_own() {
    let node = two_volumes("");
    node.adm("create-md --force r0").expect(0, &[]);
    for (name, lines) in [("r0", 2), ("r0/1", 1), ("r0:bravo/0", 1), ("minor-5", 1)] {
        let state = node.adm(&format!("dstate {name}"));
        assert_eq!(state.expect(0, &[]).stdout, "Inconsistent\n".repeat(lines), "{name}");
        // They have their identifiers in common.
        let identifiers = node.adm(&format!("get-gi {name}"));
        assert_eq!(identifiers.expect(0, &[]).stdout.lines().count(), 1, "{name}");
        node.adm(&format!("show-gi {name}")).expect(0, &["Secondary, Inconsistent, not up"]);
    }
}

#[test]
fn spellings_of_earlier_releases_are_understood() {
    let node = Node::new(MIB);
    let asked = node.daemon(|_| Reply::default());
    let forced = Action::Primary { force: true };
    let expected = [
        ("-- --overwrite-data-of-peer primary r0", forced),
        ("primary r0 -- --force", forced),
        ("primary -o r0", forced),
        ("-- --clear-bitmap new-current-uuid r0", Action::NewCurrentUuid { clear_bitmap: true }),
        ("-- --discard-my-data connect r0", Action::Connect { discard_my_data: true, tentative: false }),
        ("-s /sbin/drbdsetup -m /sbin/drbdmeta disconnect --force r0", Action::ForceDisconnect),
    ];
    for (line, _) in &expected {
        let ran = node.adm(line);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""), "{line}");
    }
    assert_eq!(acts(&asked.lock().unwrap()), expected.map(|(_, action)| ("r0", action)));
    node.adm("syncer r0").expect(1, &["'disk { }'"]);
    node.adm("-S up r0").expect(1, &["stacked resources are not supported"]);
}

#[test]
fn what_is_asked_of_the_daemon_can_be_seen() {
    let node = Node::new(MIB);
    let asked = node.daemon(|_| Reply::default());
    let ran = node.adm("-v detach r0");
    assert_eq!(ran.expect(0, &[]).stdout, "");
    assert!(ran.stderr.starts_with("tandemd <- {\"request\":\"act\",\"resource\":\"r0\""), "{ran:?}");
    assert_eq!(acts(&asked.lock().unwrap()), [("r0", Action::Detach { force: false })]);
}

#[test]
fn a_file_can_be_tried_with_the_configuration() {
    let node = Node::new(MIB);
    let more = node.path("more.res");
    let resource = |name: &str, minor: u32| {
        format!(
            "resource {name} {{ device minor {minor}; disk /dev/sdz; meta-disk internal;\n\
             on alpha {{ address 127.0.0.1:7000; }} on bravo {{ address 127.0.0.2:7000; }} }}\n"
        )
    };
    let try_it = |verb: &str| node.adm(&format!("-t {} {verb}", more.display()));
    fs::write(&more, resource("r7", 7)).unwrap();
    assert_eq!(try_it("sh-nop").expect(0, &[]).stdout, "");
    try_it("dump").expect(0, &["resource r7", "resource r0"]);
    node.adm("sh-resource r7").expect(1, &["'r7' not defined"]);
    fs::write(&more, resource("r7", 0)).unwrap();
    try_it("sh-nop").expect(10, &["more.res", "minor"]);
    fs::write(&more, "resource r7 {").unwrap();
    try_it("sh-nop").expect(10, &["more.res"]);
    fs::remove_file(&more).unwrap();
    let absent = try_it("sh-nop");
    absent.expect(20, &["cannot read", "more.res`: No such file"]);
    assert!(!absent.stderr.contains("`-c FILE`"), "{absent:?}");
    try_it("role r0").expect(1, &["only allowed with the dump and sh-nop commands"]);
}

/// As LINSTOR tries a new version of a resource's file before it puts it in place.
#[test]
fn a_file_is_tried_in_the_place_of_another() {
    let node = Node::new(MIB);
    let (old, new) = (node.path("r0.res"), node.path("r0 [new].tmp"));
    let text = fs::read_to_string(node.config()).unwrap();
    fs::write(&old, &text).unwrap();
    fs::write(&new, text.replace("minor 0", "minor 9")).unwrap();
    fs::write(node.config(), "include \"*.res\";").unwrap();
    let adm = |line: &[&str]| {
        let mut command = node.command("");
        Ran::from(command.arg("-t").arg(&new).args(line).output().unwrap())
    };
    adm(&["sh-nop"]).expect(10, &["duplicate resource `r0`"]);
    let old = old.to_str().unwrap();
    assert_eq!(adm(&["--config-to-exclude", old, "sh-nop"]).expect(0, &[]).stdout, "");
    adm(&["-E", old, "dump"]).expect(0, &["minor 9"]);
}

#[test]
fn the_configuration_may_come_from_the_standard_input() {
    let node = Node::new(MIB);
    let adm = |file: &Path, line: &str| {
        let mut command = Command::new(&node.program);
        command.args(["-c", "-"]).args(line.split(' ')).env("__DRBD_NODE__", "bravo");
        command.env("TANDEM_RUN_DIR", node.path("run")).stdin(File::open(file).unwrap());
        Ran::from(command.output().unwrap())
    };
    let dumped = adm(&node.config(), "dump r0");
    dumped.expect(0, &["resource r0", "# defined at STDIN:1\n"]);
    assert!(dumped.stdout.contains("# resource r0 on bravo: not ignored"), "{dumped:?}");
    adm(&node.config(), "sh-resources").expect(0, &["r0\nr1\n"]);
    let broken = node.path("broken");
    fs::write(&broken, "\nresource r0 {").unwrap();
    adm(&broken, "dump").expect(10, &["STDIN:2:14"]);
}

#[test]
fn commands_for_scripts_are_shown_apart() {
    let node = Node::new(MIB);
    let ran = node.adm("hidden-commands");
    ran.expect(0, &["sh-resources", "sh-udev"]);
    assert!(!node.adm("--help").stdout.contains("sh-udev"));
    assert_eq!(
        node.adm("sh-udev minor-1").stdout,
        "DEVICE=drbd1\nSYMLINK=drbd/by-res/r1/0\nSYMLINK_BY_RES=drbd/by-res/r1/0\n"
    );
}

#[test]
fn a_copy_comes_from_a_peer_only() {
    let node = Node::new(MIB);
    node.adm("create-md r0").expect(0, &[]);
    node.adm("invalidate r0 --sync-from-peer-node-id=0")
        .expect(10, &["r0: Failure: (171) Invalid peer-node-id"]);
    node.adm("invalidate r0 --sync-from-peer-node-id=1").expect(0, &[]);
    node.adm("invalidate r0:bravo").expect(0, &[]);
}

/// Puts a superblock on the disk whose slot of bravo is as `change` makes it.
fn remember(node: &Node, bitmap_id: u64, outdated: bool) {
    let mut superblock = Superblock::fresh(0xD, MIB, Placement::Internal, 1);
    superblock.node = Some(NodeId(0));
    let slot = &mut superblock.peers[0];
    (slot.node, slot.bitmap_id, slot.outdated) = (Some(NodeId(1)), bitmap_id, outdated);
    for copy in [MIB - 4096, MIB - 8192] {
        node.write_to_disk(copy, &superblock.encode());
    }
}

#[test]
fn the_metadata_tells_which_time_limit_holds() {
    let node = two_volumes("startup { wfc-timeout 30; degr-wfc-timeout 20; outdated-wfc-timeout 10; }");
    let limits = |line: &str| node.adm(&format!("-d {line}")).expect(0, &[]).stdout.clone();
    assert_eq!(limits("wait-connect r0"), "wait for r0, 30 s: wfc-timeout\n");
    remember(&node, 0x22, false);
    assert_eq!(limits("wait-sync r0"), "wait for r0, 20 s: degr-wfc-timeout\n");
    remember(&node, 0x22, true);
    let all = "wait for r0, 10 s: outdated-wfc-timeout\nwait for r1, for ever: wfc-timeout is 0\n";
    assert_eq!(limits("wait-con-int"), all);
    assert_eq!(
        limits("wait-con-int --wfc-timeout=5"),
        "wait for r0, 5 s: outdated-wfc-timeout\nwait for r1, 5 s: wfc-timeout\n"
    );
    let note = "degr-wfc-timeout implicitly set to wfc-timeout (5s)";
    node.adm("-d wait-connect r1 -t 5 --degr-wfc-timeout=6").expect(0, &[note]);
}

/// A daemon that says of every resource that it is in this state, and Connected after a while if that is given.
fn answer(node: &Node, state: ConnectionState, connected_after: Option<Duration>) {
    let begun = Instant::now();
    node.daemon(move |request| {
        let mut status = connected();
        let Request::Status { resource: Some(name) } = request else { return snapshot(status) };
        status.engine.resource = name.clone();
        if connected_after.is_none_or(|after| begun.elapsed() < after) {
            status.engine.peers[0].connection = state;
        }
        snapshot(status)
    });
}

#[test]
fn a_booting_node_waits_as_long_as_the_configuration_says() {
    let node = two_volumes("startup { degr-wfc-timeout 1; }");
    fs::write(
        node.config(),
        fs::read_to_string(node.config()).unwrap().replace("resource r1", "skip resource r1"),
    )
    .unwrap();
    remember(&node, 0x22, false);
    answer(&node, ConnectionState::Connecting, None);
    let begun = Instant::now();
    let ran = node.adm("wait-con-int");
    ran.expect(5, &["r0: timeout: bravo is Connecting, Established (1 s: degr-wfc-timeout)"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn after_a_split_brain_it_waits_on_if_that_is_wished() {
    let node = Node::new(MIB);
    answer(&node, ConnectionState::StandAlone, Some(Duration::from_millis(700)));
    node.adm("wait-connect r0").expect(5, &["StandAlone, not waiting any longer"]);
    node.adm("wait-con-int --wait-after-sb").expect(0, &[]);
    node.adm("wait-connect r0").expect(0, &[]);
}

#[test]
fn the_operator_sees_a_countdown_and_can_end_it() {
    let node = Node::new(MIB);
    answer(&node, ConnectionState::Connecting, None);
    let line = format!("{} -c {} wait-con-int", node.program.display(), node.config().display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.env("TANDEM_RUN_DIR", node.path("run")).env("TANDEM_NODE", "alpha");
    let mut child = script.spawn().unwrap();
    // The terminal keeps it until it is read.
    child.stdin.as_mut().unwrap().write_all(b"no\nyes\n").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.expect(
        5,
        &[
            "r0: bravo, for ever: wfc-timeout is 0",
            "To abort waiting enter 'yes' [   0]: ",
            "r1: not waiting any longer",
        ],
    );
}

/// The configuration has got another volume since the resource was brought up.
#[test]
fn a_volume_that_is_not_up_is_not_taken_for_one_that_is() {
    let node = two_volumes("");
    let asked = node.daemon(|_| snapshot(connected()));
    for line in ["dstate r0/1", "verify r0/1", "resize r0/1"] {
        node.adm(line)
            .expect(10, &["r0/1: Failure: (127) Device minor not allocated", "'tandemadm down r0'"]);
    }
    assert!(acts(&asked.lock().unwrap()).is_empty());
    node.adm("dstate r0/0").expect(0, &["UpToDate/UpToDate\n"]);
}
