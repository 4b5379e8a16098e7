//! The administrator's programs, run by real daemons.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tandem_core::state::{ConnectionState, DiskState};

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::wait;

/// A pair whose handlers lie in a folder of scripts, `$SCRIPTS/NODE/HANDLER`; a missing script cannot be executed.
struct Scripts {
    pair: Pair,
    folder: PathBuf,
}

impl Scripts {
    /// With these handlers and these statements besides.
    fn new(handlers: &[&str], statements: &str) -> Scripts {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-handlers-XXXXXX")).unwrap();
        let lines: String = handlers
            .iter()
            .map(|h| format!("{h} \"{}/$TANDEM_NODE/{h} some argument\"; ", folder.display()))
            .collect();
        for node in ["alpha", "bravo"] {
            fs::create_dir(folder.join(node)).unwrap();
        }
        let statements = format!("handlers {{ {lines} }} {statements}");
        let pair = Pair::new(Setup { statements, ..Setup::default() });
        Scripts { pair, folder }
    }

    fn write(&self, node: &str, handler: &str, body: &str) {
        let path = self.folder.join(node).join(handler);
        // A script that is being executed cannot be written to: replace it.
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// What the handlers of a node have written to `$0.out`.
    fn written(&self, node: &str, handler: &str) -> String {
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
