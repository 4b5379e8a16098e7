//! The administrator's programs, run by real daemons.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tandem_core::state::{ConnectionState, DiskState};

use crate::nbd_client::NbdError;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::wait;

/// A pair whose handlers lie in a folder of scripts, `$SCRIPTS/NODE/HANDLER`; a missing script cannot be executed.
pub(crate) struct Scripts {
    pub(crate) pair: Pair,
    folder: PathBuf,
}

impl Scripts {
    /// With these handlers and these statements besides.
    fn new(handlers: &[&str], statements: &str) -> Scripts {
        Scripts::with(handlers, Setup { statements: statements.into(), ..Setup::default() })
    }

    /// With these handlers in a pair made in this way.
    pub(crate) fn with(handlers: &[&str], setup: Setup) -> Scripts {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-handlers-XXXXXX")).unwrap();
        let lines: String = handlers
            .iter()
            .map(|h| format!("{h} \"{}/$TANDEM_NODE/{h} some argument\"; ", folder.display()))
            .collect();
        for node in ["alpha", "bravo"] {
            fs::create_dir(folder.join(node)).unwrap();
        }
        let statements = format!("handlers {{ {lines} }} {}", setup.statements);
        let pair = Pair::new(Setup { statements, ..setup });
        Scripts { pair, folder }
    }

    pub(crate) fn write(&self, node: &str, handler: &str, body: &str) {
        let path = self.folder.join(node).join(handler);
        // A script that is being executed cannot be written to: replace it.
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// What the handlers of a node have written to `$0.out`.
    pub(crate) fn written(&self, node: &str, handler: &str) -> String {
        fs::read_to_string(self.folder.join(node).join(format!("{handler}.out"))).unwrap_or_default()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn handlers_know_what_they_are_run_for() {
    let scripts = Scripts::new(&["before-resync-target", "after-resync-target"], "");
    for handler in ["before-resync-target", "after-resync-target"] {
        scripts.write(
            "bravo",
            handler,
            "env | grep -e DRBD_ -e UP_TO > $0.tmp; echo arguments: $*; echo oh >&2; mv $0.tmp $0.out",
        );
    }
    scripts.pair.bring_up();
    wait::until("the handler has run", || !scripts.written("bravo", "after-resync-target").is_empty());
    let environment = scripts.written("bravo", "before-resync-target");
    let disk = scripts.pair.bravo.disk.display();
    for line in [
        "DRBD_RESOURCE=r0".to_owned(),
        format!("DRBD_BACKING_DEV={disk}"),
        format!("DRBD_CONF={}", scripts.pair.bravo.config.display()),
        "DRBD_MINOR=0".into(),
        "DRBD_VOLUME=0".into(),
        "DRBD_MY_NODE_ID=1".into(),
        "DRBD_MY_ADDRESS=127.0.0.2".into(),
        "DRBD_PEER_NODE_ID=0".into(),
        "DRBD_PEER_ADDRESS=127.0.0.1".into(),
        "DRBD_PEER_AF=ipv4".into(),
        "DRBD_PEER=alpha".into(),
        "DRBD_PEERS=alpha".into(),
        "DRBD_NODE_ID_0=alpha".into(),
        "DRBD_NODE_ID_1=bravo".into(),
        "DRBD_CSTATE=Connected".into(),
        "UP_TO_DATE_NODES=0x00000001".into(),
    ] {
        assert!(environment.lines().any(|l| l == line), "no {line} in {environment}");
    }
    assert!(scripts.written("bravo", "after-resync-target").contains("UP_TO_DATE_NODES=0x00000003"));
    let logged = |text: &str| {
        wait::until("the handler's output is logged", || scripts.pair.bravo.log().contains(text))
    };
    logged("helper command: before-resync-target exit code 0 (0x0)");
    logged("arguments: some argument");
    logged("oh");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_handler_refuses_a_resync() {
    let scripts = Scripts::new(&["before-resync-target"], "options { handler-timeout 1; }");
    let (pair, bravo) = (&scripts.pair, &scripts.pair.bravo);
    let refused = |text: &str| {
        wait::until("bravo stands alone", || bravo.connection() == Some(ConnectionState::StandAlone));
        let reason = bravo.peer().and_then(|p| p.standalone_reason).unwrap_or_default();
        assert!(reason.contains(text), "{reason}");
        bravo.adm(&["status", RESOURCE]).ok();
    };
    scripts.write("bravo", "before-resync-target", "exit 5");
    pair.create_md();
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();
    refused("before-resync-target handler returned 5, dropping connection.");
    assert!(bravo.disk_state() < DiskState::UpToDate);

    scripts.write("bravo", "before-resync-target", "sleep 1000");
    bravo.adm(&["connect", RESOURCE]).ok();
    refused("before-resync-target handler did not end in time and was killed");

    fs::remove_file(scripts.folder.join("bravo/before-resync-target")).unwrap();
    bravo.adm(&["connect", RESOURCE]).ok();
    refused("before-resync-target handler returned 127, dropping connection.");

    // What a handler leaves behind in the background keeps nobody.
    scripts.write("bravo", "before-resync-target", "sleep 1000 &\nexit 0");
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
}

/// Whoever handles the loss of the peer says so with its exit code.
fn fencing(policy: &str) -> Scripts {
    let scripts = Scripts::new(&["fence-peer", "unfence-peer"], &format!("disk {{ fencing {policy}; }}"));
    scripts.write("alpha", "unfence-peer", "echo $DRBD_PEER >> $0.out");
    scripts.pair.bring_up();
    scripts
}

/// A write that is under way on another thread.
fn begin_write(node: &Node, offset: u64) -> std::thread::JoinHandle<Result<(), NbdError>> {
    let mut client = node.client().unwrap();
    std::thread::spawn(move || client.write(offset, &[7; 4096], true))
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn requests_are_frozen_until_the_peer_is_fenced() {
    let scripts = fencing("resource-and-stonith");
    let (alpha, bravo) = (&scripts.pair.alpha, &scripts.pair.bravo);
    scripts.write("alpha", "fence-peer", "until [ -e $0.go ]; do sleep 0.05; done; exit 7");
    bravo.kill();
    wait::until("requests are frozen", || alpha.status().is_some_and(|s| s.suspended.fencing));
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(status.starts_with("r0 role:Primary suspended:fencing\n"), "{status}");
    wait::until("the status file says so", || {
        fs::read_to_string(alpha.run.proc_drbd()).is_ok_and(|text| text.contains(" C s-----"))
    });
    let write = begin_write(alpha, 0);
    wait::until("the write has arrived", || alpha.status().is_some_and(|s| s.client_pending == 1));
    assert!(!write.is_finished());
    fs::write(scripts.folder.join("alpha/fence-peer.go"), "").unwrap();
    write.join().unwrap().unwrap();
    wait::until("requests go on", || alpha.status().is_some_and(|s| !s.suspended.any()));
    assert_eq!(alpha.peer().map(|p| p.disk), Some(DiskState::Outdated));
    assert!(alpha.log().contains("helper command: fence-peer exit code 7 (0x700)"));
    bravo.adm(&["up", RESOURCE]).ok();
    scripts.pair.wait_healed();
    wait::until("bravo is unfenced", || scripts.written("alpha", "unfence-peer") == "bravo\n");
    scripts.pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_broken_fence_agent_keeps_requests_frozen_until_the_peer_is_back() {
    let scripts = fencing("resource-and-stonith");
    let (alpha, bravo) = (&scripts.pair.alpha, &scripts.pair.bravo);
    // There is no script: the shell cannot execute it.
    bravo.kill();
    wait::until("requests are frozen", || alpha.status().is_some_and(|s| s.suspended.fencing));
    wait::until("the handler has failed", || alpha.log().contains("fence-peer helper broken, returned 127"));
    let write = begin_write(alpha, 0);
    wait::until("the write has arrived", || alpha.status().is_some_and(|s| s.client_pending == 1));
    assert!(alpha.status().is_some_and(|s| s.suspended.fencing));
    bravo.adm(&["up", RESOURCE]).ok();
    write.join().unwrap().unwrap();
    scripts.pair.wait_healed();

    bravo.kill();
    wait::until("requests are frozen", || alpha.status().is_some_and(|s| s.suspended.fencing));
    let write = begin_write(alpha, 4096);
    alpha.adm(&["resume-io", RESOURCE]).ok();
    write.join().unwrap().unwrap();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_node_alone_is_promoted_as_fence_peer_says() {
    let scripts = fencing("resource-only");
    let (alpha, bravo) = (&scripts.pair.alpha, &scripts.pair.bravo);
    let promote = || bravo.adm(&["primary", RESOURCE]);
    alpha.kill();
    wait::until("bravo is unsure", || bravo.disk_state() == DiskState::Consistent);
    for code in [1, 5, 20] {
        scripts.write("bravo", "fence-peer", &format!("exit {code}"));
        promote().refused(17, "State change failed: (-2) Need access to UpToDate data");
    }
    scripts.write("bravo", "fence-peer", "kill -9 $$");
    promote().refused(17, "(-2)");
    // The peer is outdated where its disk is: the daemon there is dead.
    scripts.write("bravo", "fence-peer", "exit 4");
    alpha.adm(&["outdate", RESOURCE]).ok();
    promote().ok();
    assert_eq!(
        (bravo.disk_state(), bravo.peer().map(|p| p.disk)),
        (DiskState::UpToDate, Some(DiskState::Outdated))
    );
    bravo.client().unwrap().write(0, &[9; 4096], true).unwrap();
    alpha.adm(&["up", RESOURCE]).ok();
    scripts.pair.wait_healed();
    scripts.pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_hanging_fence_agent_is_killed() {
    let scripts =
        Scripts::new(&["fence-peer"], "net { fencing resource-only; } options { handler-timeout 1; }");
    let (alpha, bravo) = (&scripts.pair.alpha, &scripts.pair.bravo);
    scripts.pair.bring_up();
    scripts.write("bravo", "fence-peer", "sleep 1000");
    alpha.kill();
    wait::until("bravo is unsure", || bravo.disk_state() == DiskState::Consistent);
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    assert!(bravo.log().contains("fence-peer helper broken, it did not end in time and was killed"));
    bravo.adm(&["primary", "--force", RESOURCE]).ok();
    assert!(bravo.log().contains("Forced into split brain situation!"));
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn requests_are_suspended_and_resumed() {
    let scripts = Scripts::new(&[], "");
    let alpha = &scripts.pair.alpha;
    scripts.pair.bring_up();
    alpha.adm(&["suspend-io", RESOURCE]).ok();
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(status.starts_with("r0 role:Primary suspended:user\n"), "{status}");
    let write = begin_write(alpha, 0);
    wait::until("the write has arrived", || alpha.status().is_some_and(|s| s.client_pending == 1));
    scripts.pair.assert_identical();
    alpha.adm(&["resume-io", RESOURCE]).ok();
    write.join().unwrap().unwrap();
    scripts.pair.alpha.adm(&["outdate", RESOURCE]).refused(17, "(-2)");
    scripts
        .pair
        .bravo
        .adm(&["outdate", RESOURCE])
        .refused(11, "(-6) Refusing to be Outdated while Connected");
}
