//! `nfs-failover fence-peer` as the handler of real daemons: when the link is cut, exactly one node goes on.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::cable::Cut;
use crate::nbd_client::NbdError;
use crate::node::{Node, RESOURCE, binary};
use crate::pair::{Pair, Setup, free_port};
use crate::wait;

const SHORT_TEMPER: &str = "ping-int 1; ping-timeout 5; timeout 5; fencing resource-and-stonith;";

/// A pair in networks of its own whose nodes fence each other in some way.
struct Fenced {
    pair: Pair,
    folder: PathBuf,
    witness: Option<Child>,
}

impl Fenced {
    /// `handlers` is given the folder for whatever the handlers need.
    fn new(handlers: impl FnOnce(&Path) -> String) -> Fenced {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-fencing-XXXXXX")).unwrap();
        let statements = format!("handlers {{ {} }}", handlers(&folder));
        let pair = Pair::new(Setup { net: SHORT_TEMPER, statements, own_networks: true, ..Setup::default() });
        pair.bring_up();
        Fenced { pair, folder, witness: None }
    }

    /// With a witness that lives at bravo's end of the cable, on a port that is not cut.
    fn by_witness() -> Fenced {
        let port = free_port();
        let mut fenced = Fenced::new(|folder| {
            fs::write(folder.join("secret"), "known to both\n").unwrap();
            let secret = folder.join("secret");
            claiming(&format!("--witness 10.77.0.2:{port} --secret-file {}", secret.display()))
        });
        let mut witness = fenced.pair.bravo.command(&binary("nfs-failover"));
        witness.args(["witness", "--listen", &format!("0.0.0.0:{port}"), "--state"]);
        witness.arg(fenced.folder.join("claims")).arg("--secret-file").arg(fenced.folder.join("secret"));
        let mut witness = witness.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 7];
        witness.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"witness");
        fenced.witness = Some(witness);
        fenced
    }

    /// With a folder that both nodes see.
    fn by_folder() -> Fenced {
        Fenced::new(|folder| {
            let claims = folder.join("claims");
            fs::create_dir(&claims).unwrap();
            fs::write(claims.join("tandem-witness"), "").unwrap();
            claiming(&format!("--witness-folder {}", claims.display()))
        })
    }

    fn cut(&self) {
        self.pair.cable().cut(Cut::Port { port: self.pair.alpha.address.port() });
    }

    fn claims(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.join("claims")).into_iter().flatten().flatten();
        let claims = files.filter(|file| file.path().extension().is_some_and(|e| e == "claim"));
        // It may be given back in this moment.
        claims.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    /// The one that did not go on has what the other one has, and either may go on the next time.
    fn heal(&self, winner: &Node) {
        let loser = self.pair.other(winner);
        if loser.role() == Role::Primary {
            loser.adm(&["secondary", RESOURCE]).ok();
        }
        self.pair.cable().mend();
        self.pair.wait_healed();
        wait::until("the claim is given back", || self.claims().is_empty());
        self.pair.assert_identical();
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        if let Some(witness) = &mut self.witness {
            let _ = witness.kill();
            let _ = witness.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Handlers that claim at a witness, which these options name, and give the claim back.
fn claiming(witness: &str) -> String {
    let program = binary("nfs-failover");
    format!(
        "fence-peer \"{0} fence-peer --via witness {witness}\"; unfence-peer \"{0} unfence-peer {witness}\";",
        program.display()
    )
}

/// A write that is under way on another thread.
fn begin_write(node: &Node) -> JoinHandle<Result<(), NbdError>> {
    let mut client = node.client().unwrap();
    std::thread::spawn(move || client.write(0, &[7; 4096], true))
}

fn is_frozen(node: &Node) -> bool {
    node.status().is_some_and(|s| s.suspended.fencing)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_witness_lets_a_primary_go_on_and_keeps_the_other_from_it() {
    let fenced = Fenced::by_witness();
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    fenced.cut();
    let write = begin_write(alpha);
    write.join().unwrap().unwrap();
    assert_eq!(fenced.claims(), ["alpha"]);
    wait::until("bravo has noticed", || bravo.connection() != Some(ConnectionState::Connected));
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    assert_eq!((bravo.role(), bravo.disk_state()), (Role::Secondary, DiskState::Outdated));
    fenced.heal(alpha);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_folder_that_both_nodes_see_is_a_witness_too() {
    let fenced = Fenced::by_folder();
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    fenced.cut();
    begin_write(alpha).join().unwrap().unwrap();
    assert_eq!(fenced.claims(), ["alpha"]);
    wait::until("bravo has noticed", || bravo.connection() != Some(ConnectionState::Connected));
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    fenced.heal(alpha);
}

/// What is written after the cut is acknowledged only once the other node is dead.
#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_fence_agent_kills_the_peer() {
    let fenced = Fenced::new(|folder| {
        let agent = folder.join("agent");
        // Until it may: a machine takes its time to die.
        let script = "until [ -e $0.may ]; do sleep 0.05; done; kill -9 $(cat $0.target)\n";
        fs::write(&agent, script).unwrap();
        let program = binary("nfs-failover");
        format!(
            "fence-peer \"{} fence-peer --via agent --agent 'sh {}'\";",
            program.display(),
            agent.display()
        )
    });
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    let victim = bravo.pid().unwrap();
    fs::write(fenced.folder.join("agent.target"), victim.to_string()).unwrap();
    // As nfs-failover's service notes it.
    let met = alpha.run.path().join("nfs-failover/met");
    fs::create_dir_all(&met).unwrap();
    fs::write(met.join(format!("{RESOURCE}-bravo")), "").unwrap();
    fenced.cut();
    let write = begin_write(alpha);
    wait::until("alpha waits", || is_frozen(alpha));
    assert!(!write.is_finished() && kill(victim, None).is_ok());
    fs::write(fenced.folder.join("agent.may"), "").unwrap();
    write.join().unwrap().unwrap();
    assert!(bravo.pid().is_none(), "bravo lives");
    assert_eq!(alpha.peer().map(|p| p.disk), Some(DiskState::Outdated));
    bravo.adm(&["up", RESOURCE]).ok();
    fenced.heal(alpha);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_primary_that_was_paused_finds_that_the_other_has_gone_on() {
    let fenced = Fenced::by_witness();
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    let write = {
        let client = alpha.client().unwrap();
        kill(alpha.pid().unwrap(), Signal::SIGSTOP).unwrap();
        fenced.cut();
        bravo.promote();
        assert_eq!(fenced.claims(), ["bravo"]);
        bravo.client().unwrap().write(4096, &[9; 4096], true).unwrap();
        kill(alpha.pid().unwrap(), Signal::SIGCONT).unwrap();
        drop(client);
        begin_write(alpha)
    };
    wait::until("alpha was refused", || alpha.log().contains("fence-peer exit code 6"));
    assert!(is_frozen(alpha), "{:?}", alpha.status());
    assert!(!write.is_finished(), "alpha has completed a write that bravo does not know");
    // What was never completed may come to nothing.
    alpha.kill();
    assert!(write.join().unwrap().is_err());
    fenced.pair.cable().mend();
    alpha.adm(&["up", RESOURCE]).ok();
    fenced.heal(bravo);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn of_two_that_want_to_go_on_at_once_one_does() {
    let fenced = Fenced::by_witness();
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    for round in 0..4 {
        fenced.cut();
        // It is refused until the loss is noticed, and then races with alpha's own handler.
        wait::until("it is decided", || {
            bravo.adm(&["primary", RESOURCE]);
            !fenced.claims().is_empty() && bravo.connection() != Some(ConnectionState::Connected)
        });
        let settled = || match fenced.claims().first().map(String::as_str) {
            Some("alpha") => !is_frozen(alpha) && bravo.disk_state() == DiskState::Outdated,
            _ => bravo.role() == Role::Primary && alpha.log().matches("exit code 6").count() > 0,
        };
        wait::until("both know", || {
            bravo.adm(&["primary", RESOURCE]);
            settled()
        });
        let winner = if fenced.claims() == ["alpha"] { alpha } else { bravo };
        let serves = |node: &Node| node.role() == Role::Primary && !is_frozen(node);
        assert_ne!(serves(alpha), serves(bravo), "round {round}");
        assert!(serves(winner), "round {round}");
        winner.client().unwrap().write(round * 4096, &[round as u8 + 1; 4096], true).unwrap();
        fenced.heal(winner);
        if winner.name == "bravo" {
            break;
        }
    }
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn without_its_witness_nobody_goes_on() {
    let mut fenced = Fenced::by_witness();
    if let Some(mut witness) = fenced.witness.take() {
        witness.kill().unwrap();
        witness.wait().unwrap();
    }
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    let asked = || alpha.log().matches("fence-peer helper broken, returned 1").count();
    // Perhaps when it was forced to be Primary, if bravo was not connected by then.
    let before = asked();
    fenced.cut();
    wait::until("alpha does not know", || asked() > before);
    assert!(is_frozen(alpha));
    wait::until("bravo is unsure", || bravo.disk_state() == DiskState::Consistent);
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    // The peer is back: nothing was lost, and nothing needs to be given back.
    fenced.pair.cable().mend();
    fenced.pair.wait_healed();
    begin_write(alpha).join().unwrap().unwrap();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_peer_is_outdated_over_another_path() {
    let fenced = Fenced::new(|folder| {
        let ssh = folder.join("ssh");
        let program = binary("nfs-failover");
        format!(
            "fence-peer \"{} fence-peer --via ssh --ssh-command 'sh {} %n'\";",
            program.display(),
            ssh.display()
        )
    });
    let (alpha, bravo) = (&fenced.pair.alpha, &fenced.pair.bravo);
    // What ssh does, as long as the other path is there: `NAME tandemadm outdate r0`.
    let ways: String = fenced
        .pair
        .nodes()
        .iter()
        .map(|node| {
            format!(
                "{}) exec {} env TANDEM_NODE={} TANDEM_RUN_DIR={} {} -c {} \"$3\" \"$4\";;\n",
                node.name,
                node.prefix.join(" "),
                node.name,
                node.run.path().display(),
                binary("tandemadm").display(),
                node.config.display()
            )
        })
        .collect();
    let cut = fenced.folder.join("cut");
    let script = format!("[ -e {} ] && exit 255\ncase \"$1\" in\n{ways}esac\nexit 1\n", cut.display());
    fs::write(fenced.folder.join("ssh"), script).unwrap();
    fenced.cut();
    begin_write(alpha).join().unwrap().unwrap();
    wait::until("bravo was outdated", || bravo.disk_state() == DiskState::Outdated);
    assert_eq!(alpha.peer().map(|p| p.disk), Some(DiskState::Outdated));
    fenced.heal(alpha);

    // With both paths cut, who has the newest data goes on and the other does not.
    fs::write(&cut, "").unwrap();
    fenced.cut();
    begin_write(alpha).join().unwrap().unwrap();
    wait::until("bravo is unsure", || bravo.disk_state() == DiskState::Consistent);
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    fs::remove_file(&cut).unwrap();
    // It asks alpha now, and is told.
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2)");
    assert_eq!(bravo.disk_state(), DiskState::Outdated);
    fenced.heal(alpha);
}
