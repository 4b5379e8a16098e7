//! A pair's life in commands, as the operator sees it: outputs, refusals, exit statuses.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use tandem_core::config::Protocol;
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::nbd_client::NbdError;
use crate::node::{Outcome, RESOURCE, binary};
use crate::pair::{Pair, Setup, free_port};
use crate::wait;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_a() {
    life(Protocol::A);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_b() {
    life(Protocol::B);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn protocol_c() {
    life(Protocol::C);
}

fn life(protocol: Protocol) {
    let pair = Pair::new(Setup { protocol, ..Setup::default() });
    birth(&pair);
    first_sync(&pair);
    only_one_primary(&pair);
    exports_follow_the_role(&pair);
    roles_change(&pair);
    connection_and_disk_come_and_go(&pair);
    the_end(&pair);
}

/// Metadata, daemons, a connection; nobody has good data yet.
fn birth(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    alpha.adm(&["up", RESOURCE]).refused(10, "(119) No valid meta-data signature found.");
    pair.create_md();
    let again = alpha.adm(&["create-md", RESOURCE]);
    assert_ne!(again.code, Some(0), "existing metadata was overwritten: {again:?}");
    let started = bravo.adm(&["up", RESOURCE]).ok();
    assert!(started.stdout.contains("tandemd started"), "{started:?}");
    alpha.adm(&["up", RESOURCE]).ok();
    for node in pair.nodes() {
        node.adm(&["wait-connect", "-t", "30", RESOURCE]).ok();
        assert_eq!(node.adm(&["role", RESOURCE]).ok().stdout.trim(), "Secondary");
        assert_eq!(node.adm(&["dstate", RESOURCE]).ok().stdout.trim(), "Inconsistent/Inconsistent");
        node.adm(&["primary", RESOURCE])
            .refused(17, "State change failed: (-2) Need access to UpToDate data");
    }
}

fn first_sync(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    alpha.adm(&["primary", "--force", RESOURCE]).ok();
    alpha.adm(&["wait-sync", "-t", "30", RESOURCE]).ok();
    pair.wait_healed();
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert_eq!(
        status,
        "r0 role:Primary\n  disk:UpToDate open:no\n  bravo role:Secondary\n    peer-disk:UpToDate\n\n"
    );
    assert_eq!(alpha.adm(&["cstate", RESOURCE]).ok().stdout.trim(), "Connected");
    assert_eq!(bravo.adm(&["dstate", RESOURCE]).ok().stdout.trim(), "UpToDate/UpToDate");
    let letter = alpha.status().unwrap().protocol.letter();
    let line = format!(" 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate {letter} r-----\n");
    wait::until("the status file agrees", || {
        fs::read_to_string(alpha.run.proc_drbd()).is_ok_and(|file| file.contains(&line))
    });
    let file = fs::read_to_string(alpha.run.proc_drbd()).unwrap();
    assert!(file.starts_with("version: 8.4."), "{file}");
    assert!(file.contains("\n    ns:") && file.contains(" oos:0\n"), "{file}");
    pair.assert_identical();
}

fn only_one_primary(pair: &Pair) {
    let refused = "State change failed: (-1) Multiple primaries not allowed by config";
    pair.bravo.adm(&["primary", RESOURCE]).refused(11, refused);
    pair.bravo.adm(&["primary", "--force", RESOURCE]).refused(11, refused);
    assert_eq!(pair.bravo.role(), Role::Secondary);
}

fn exports_follow_the_role(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    let Err(NbdError::Refused(text)) = bravo.client() else { panic!("a Secondary's export was opened") };
    assert!(text.contains("alpha"), "the refusal does not say who is Primary: {text}");
    let mut client = alpha.client().unwrap();
    client.write(8192, &[7; 4096], true).unwrap();
    alpha
        .adm(&["secondary", RESOURCE])
        .refused(11, "State change failed: (-12) Device is held open by someone");
    let refusal = alpha.adm(&["secondary", RESOURCE]);
    assert!(refusal.stderr.contains(&std::process::id().to_string()), "the client is not named: {refusal:?}");
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(status.contains("open:yes"), "{status}");
    assert_eq!(client.read(8192, 4096).unwrap(), [7; 4096]);
    drop(client);
    wait::until("the client's end is noticed", || alpha.status().is_some_and(|s| s.openers.is_empty()));
}

fn roles_change(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    alpha.adm(&["secondary", RESOURCE]).ok();
    bravo.adm(&["primary", RESOURCE]).ok();
    let mut client = bravo.client().unwrap();
    assert_eq!(client.read(8192, 4096).unwrap(), [7; 4096], "what alpha wrote");
    client.write(0, &[9; 4096], false).unwrap();
    drop(client);
    wait::until("the client's end is noticed", || bravo.status().is_some_and(|s| s.openers.is_empty()));
    bravo.adm(&["secondary", RESOURCE]).ok();
    alpha.adm(&["primary", RESOURCE]).ok();
    assert_eq!(alpha.client().unwrap().read(0, 4096).unwrap(), [9; 4096], "what bravo wrote");
    pair.assert_identical();
}

/// Exactly the blocks written meanwhile are resynced.
fn connection_and_disk_come_and_go(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    bravo.adm(&["disconnect", RESOURCE]).ok();
    assert_eq!(bravo.connection(), Some(ConnectionState::StandAlone));
    wait::until("alpha has noticed", || alpha.connection() != Some(ConnectionState::Connected));
    let mut client = alpha.client().unwrap();
    client.write(1 << 20, &[3; 8192], false).unwrap();
    client.flush().unwrap();
    assert_eq!(alpha.peer().unwrap().out_of_sync_bytes, 8192);
    let received = bravo.peer().unwrap().received_bytes;
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    let resynced = bravo.peer().unwrap().received_bytes - received;
    assert!(resynced <= 64 << 10, "{resynced} bytes for a resync of 8192");
    pair.assert_identical();

    bravo.adm(&["detach", RESOURCE]).ok();
    assert_eq!(bravo.disk_state(), DiskState::Diskless);
    client.write(2 << 20, &[4; 4096], false).unwrap();
    bravo.adm(&["attach", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    drop(client);
}

fn the_end(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    wait::until("the client's end is noticed", || alpha.status().is_some_and(|s| s.openers.is_empty()));
    for node in [alpha, bravo] {
        node.adm(&["down", RESOURCE]).ok();
        assert!(node.status().is_none(), "{} still has the resource", node.name);
    }
    pair.alpha.adm(&["down", "nosuch"]).refused(1, "'nosuch' not defined in your config (for this host).");
    up_again_keeps_everything(pair);
    terminate(pair);
}

fn up_again_keeps_everything(pair: &Pair) {
    pair.bravo.adm(&["up", RESOURCE]).ok();
    pair.alpha.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    pair.bravo.adm(&["primary", RESOURCE]).ok();
    let mut client = pair.bravo.client().unwrap();
    assert_eq!(client.read(0, 4096).unwrap(), [9; 4096]);
    assert_eq!(client.read(2 << 20, 4096).unwrap(), [4; 4096]);
}

/// SIGTERM demotes, flushes and closes cleanly: the next start is no crash, nothing is resynced.
fn terminate(pair: &Pair) {
    let Pair { alpha, bravo, .. } = pair;
    wait::until("the client's end is noticed", || bravo.status().is_some_and(|s| s.openers.is_empty()));
    let pid = bravo.pid().unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait::until("the daemon has ended", || bravo.pid().is_none());
    wait::until("alpha has noticed", || alpha.connection() != Some(ConnectionState::Connected));
    let written = alpha.status().unwrap().disk_written_bytes;
    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(alpha.status().unwrap().disk_written_bytes, written, "a clean end needs no resync");
}

/// A lock that a script holds is free when the script has ended, whoever it has started.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_daemon_keeps_nothing_open_that_its_starter_had() {
    let pair = Pair::new(Setup::default());
    let Pair { alpha, .. } = &pair;
    pair.create_md();
    let lock = pair.folder().join("lock");
    let mut script = alpha.command(Path::new("sh"));
    script.args(["-c", "exec 9> \"$1\"; \"$2\" -c \"$3\" up r0", "sh"]).args([
        &lock,
        &binary("tandemadm"),
        &alpha.config,
    ]);
    Outcome::of(script).ok();
    let open = fs::read_dir(format!("/proc/{}/fd", alpha.pid().unwrap())).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(open.contains(&alpha.disk) && !open.contains(&lock), "{open:?}");
}

/// What runs goes on with the old addresses until it is taken down; then the new ones count.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_changed_configuration_counts_after_down_and_up() {
    let pair = Pair::synced(Setup::default());
    let text = fs::read_to_string(&pair.alpha.config).unwrap();
    let (old, new) = (pair.alpha.address.port(), free_port());
    fs::write(&pair.alpha.config, text.replace(&format!(":{old};"), &format!(":{new};"))).unwrap();
    for node in pair.nodes() {
        let said = node.adm(&["up", RESOURCE]).ok();
        assert!(said.stderr.contains("it takes effect with 'tandemadm adjust r0'"), "{said:?}");
    }
    assert!(pair.is_healed(), "the running pair was disturbed");
    for node in pair.nodes() {
        node.adm(&["down", RESOURCE]).ok();
    }
    TcpListener::bind(pair.alpha.address).expect("the old address is free");
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    pair.wait_healed();
    TcpListener::bind((pair.alpha.address.ip(), new)).expect_err("somebody listens at the new address");
}
