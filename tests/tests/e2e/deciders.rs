//! Debian's real UCARP, keepalived and HAProxy with the hooks and examples of packaging/, the real service and real
//! daemons. What moves here is the role alone: no filesystem, no server. Whoever elects may say what it likes: tandemd
//! makes one node Primary.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfs_failover::carry_out::Way;
use nfs_failover::config::Config;
use nfs_failover::health::Phase;
use nfs_failover::plan::Cancel;
use nfs_failover::service::{self, Found, Mover, Outcome, Served, Wish};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tandem_core::state::Role;

use crate::node::{Node, RESOURCE, binary};
use crate::pair::{Pair, Setup, free_port};
use crate::wait;

/// Elections with pauses after setbacks take a while.
const LIMIT: Duration = Duration::from_secs(60);
/// Until a peer that is still Primary has given way.
const PEER_LIMIT: Duration = Duration::from_secs(3);

/// Moves the role and nothing else.
struct RoleOnly {
    line: Vec<String>,
    environment: [(&'static str, String); 2],
    role: String,
}

impl RoleOnly {
    fn of(node: &Node) -> RoleOnly {
        let tandemadm =
            [binary("tandemadm").display().to_string(), "-c".into(), node.config.display().to_string()];
        RoleOnly {
            line: node.prefix.iter().cloned().chain(tandemadm).collect(),
            environment: [
                ("TANDEM_NODE", node.name.into()),
                ("TANDEM_RUN_DIR", node.run.path().display().to_string()),
            ],
            role: node.role().to_string(),
        }
    }

    fn adm(&self, verb: &str) -> Result<(), String> {
        let mut command = Command::new(&self.line[0]);
        command.args(&self.line[1..]).args([verb, RESOURCE]).envs(self.environment.clone());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}

impl Mover for RoleOnly {
    fn run(&self, which: Way, cancel: &Cancel) -> Outcome {
        let end = Instant::now() + PEER_LIMIT;
        loop {
            let verb = if which == Way::Promote { "primary" } else { "secondary" };
            match self.adm(verb) {
                Ok(()) => return Outcome::Done,
                Err(why) if which == Way::Demote => return Outcome::Stuck(why),
                Err(_) if cancel.is_set() => return Outcome::Cancelled,
                Err(why) if !why.contains("(-1)") || Instant::now() > end => return Outcome::Failed(why),
                Err(_) => {}
            }
        }
    }

    fn found(&self) -> Found {
        if self.role == "Primary" { Found::Up } else { Found::Down }
    }

    fn server_answers(&self) -> bool {
        true
    }
}

/// Two nodes with a service each, and whatever elects one of them.
struct Site {
    pair: Pair,
    deciders: Vec<Option<Child>>,
    served: Vec<Served>,
}

impl Site {
    /// Neither is Primary. Where the link is cut, a folder that both see is the witness.
    fn new(decider: &str, own_networks: bool) -> Site {
        let claims = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-claims-XXXXXX")).unwrap();
        fs::write(claims.join("tandem-witness"), "").unwrap();
        let fence = |what: &str| {
            let program = binary("nfs-failover");
            let folder = claims.display();
            match what {
                "fence-peer" => {
                    format!("\"{} fence-peer --via witness --witness-folder {folder}\"", program.display())
                }
                _ => format!("\"{} unfence-peer --witness-folder {folder}\"", program.display()),
            }
        };
        let statements = format!(
            "handlers {{ fence-peer {}; unfence-peer {}; }}",
            fence("fence-peer"),
            fence("unfence-peer")
        );
        let net = "ping-int 1; ping-timeout 3; timeout 5; fencing resource-and-stonith;";
        let pair = Pair::synced(Setup { net, statements, own_networks, ..Setup::default() });
        pair.alpha.adm(&["secondary", RESOURCE]).ok();
        let mut site = Site { pair, deciders: vec![None, None], served: Vec::new() };
        for (end, node) in site.pair.nodes().into_iter().enumerate() {
            let text = format!(
                "service nfs {{ resource {RESOURCE}; mount /srv/nfs {{ fstype ext4; }} server none; \
                 state /srv/nfs/.state; vip 10.77.0.100/24 dev eth0; health 127.0.0.1:{}; decider {decider}; }}",
                free_port()
            );
            let path = site.file(node, "nfs-failover.conf");
            fs::write(&path, text).unwrap();
            let config = Config::load(&path).unwrap();
            let mover = |_: &nfs_failover::config::Service| Arc::new(RoleOnly::of(node)) as Arc<dyn Mover>;
            // It tells whoever elects in its own network only.
            let serve = || service::serve(&config, node.run.clone(), &run(node), mover).unwrap();
            let served = if own_networks { site.pair.cable().run_at(end, serve) } else { serve() };
            site.served.push(served);
            // What the hooks call, with this node's configuration.
            let script = format!(
                "#!/bin/sh\nTANDEM_RUN_DIR={} exec {} -c {} \"$@\"\n",
                node.run.path().display(),
                binary("nfs-failover").display(),
                path.display()
            );
            let wrapper = site.file(node, "nfs-failover");
            fs::write(&wrapper, script).unwrap();
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        }
        site
    }

    fn file(&self, node: &Node, name: &str) -> PathBuf {
        self.pair.folder().join(format!("{}-{name}", node.name))
    }

    fn start_ucarp(&mut self, end: usize) {
        let node = self.pair.nodes()[end];
        let mut ucarp = node.command(Path::new("/usr/sbin/ucarp"));
        ucarp.args(["--interface=eth0", "--vhid=1", "--pass=secret", "--addr=10.77.0.100", "--shutdown"]);
        ucarp.args(["--advbase=1", "--deadratio=1"]).arg(format!("--srcip={}", node.address.ip()));
        ucarp.arg(format!("--upscript={}", packaging("ucarp/vip-up").display()));
        ucarp.arg(format!("--downscript={}", packaging("ucarp/vip-down").display()));
        ucarp.env("NFS_FAILOVER", self.file(node, "nfs-failover")).stderr(Stdio::null());
        self.deciders[end] = Some(ucarp.stdout(Stdio::null()).spawn().unwrap());
    }

    fn start_keepalived(&mut self, end: usize) {
        let (node, peer) = (self.pair.nodes()[end], self.pair.nodes()[1 - end]);
        let file = |name: &str| self.file(node, name).display().to_string();
        let mut text = fs::read_to_string(packaging("keepalived/keepalived.conf.example")).unwrap();
        for (from, to) in [
            ("10.99.0.101/32", "10.77.0.101/32".to_owned()),
            ("unicast_src_ip 10.99.0.11", format!("unicast_src_ip {}", node.address.ip())),
            ("        10.99.0.12", format!("        {}", peer.address.ip())),
            ("/run/nfs-failover-keepalived.fifo", file("fifo")),
            ("/usr/sbin/nfs-failover", file("nfs-failover")),
            ("/run/tandem/nfs-failover/nfs.track", run(node).join("nfs.track").display().to_string()),
            ("enable_script_security", String::new()),
            ("advert_int 1", "advert_int 0.3".into()),
        ] {
            assert!(text.contains(from), "the example has no '{from}'");
            text = text.replace(from, &to);
        }
        let path = self.file(node, "keepalived.conf");
        fs::write(&path, text).unwrap();
        let mut keepalived = node.command(Path::new("/usr/sbin/keepalived"));
        keepalived.args(["--dont-fork", "--vrrp", "--log-console", "--use-file"]).arg(&path);
        keepalived.args(["--pid", &file("ka.pid"), "--vrrp_pid", &file("vrrp.pid")]);
        let log = fs::File::create(self.file(node, "keepalived.log")).unwrap();
        self.deciders[end] = Some(keepalived.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn phase(&self, end: usize) -> Phase {
        service::views(&run(self.pair.nodes()[end])).unwrap().unwrap()[0].phase
    }

    /// Waits until this end serves and the other does not.
    #[track_caller]
    fn wait_for(&self, end: usize) {
        let settled = || (self.phase(end), self.phase(1 - end)) == (Phase::Up, Phase::Down);
        assert!(wait::holds_within(LIMIT, settled), "{:?}, {:?}", self.phase(0), self.phase(1));
        assert_eq!(self.pair.nodes()[end].role(), Role::Primary);
        assert_eq!(self.pair.nodes()[1 - end].role(), Role::Secondary);
    }

    /// Waits until one end serves and the other does not; which.
    #[track_caller]
    fn wait_for_one(&self) -> usize {
        let mut end = 0;
        let settled = wait::holds_within(LIMIT, || {
            end = usize::from(self.phase(0) != Phase::Up);
            (self.phase(end), self.phase(1 - end)) == (Phase::Up, Phase::Down)
        });
        assert!(settled, "{:?}, {:?}", self.phase(0), self.phase(1));
        end
    }

    /// kill -9 of what elects.
    fn kill_decider(&mut self, end: usize) {
        if let Some(mut decider) = self.deciders[end].take() {
            decider.kill().unwrap();
            decider.wait().unwrap();
        }
    }

    /// What systemd runs when UCARP is gone.
    fn run_vip_down(&self, end: usize) {
        let node = self.pair.nodes()[end];
        let mut down = node.command(&packaging("ucarp/vip-down"));
        down.args(["eth0", "10.77.0.100"]).env("NFS_FAILOVER", self.file(node, "nfs-failover"));
        assert!(down.status().unwrap().success());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for end in [0, 1] {
            let log =
                fs::read_to_string(self.file(self.pair.nodes()[end], "keepalived.log")).unwrap_or_default();
            if std::thread::panicking() {
                println!("--- keepalived {end}:\n{log}");
            }
            self.kill_decider(end);
        }
    }
}

fn run(node: &Node) -> PathBuf {
    node.run.path().join("nfs-failover")
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn ucarp_started_on_both_at_once_gives_one_and_its_death_the_other() {
    let mut site = Site::new("ucarp", true);
    site.start_ucarp(0);
    site.start_ucarp(1);
    let first = site.wait_for_one();
    site.kill_decider(first);
    // The other is elected, and is refused as long as this one is Primary.
    site.run_vip_down(first);
    site.wait_for(1 - first);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_service_that_steps_down_has_ucarp_elect_the_other() {
    let mut site = Site::new("ucarp", true);
    site.start_ucarp(0);
    site.wait_for(0);
    site.start_ucarp(1);
    // The first that it does is to run its down script. One that was not there in time would not be elected.
    let mailbox = run(&site.pair.bravo).join("nfs.wish");
    wait::until("the other takes part", || {
        fs::read_to_string(&mailbox).is_ok_and(|w| w.starts_with("down "))
    });
    assert!(service::lost(&run(&site.pair.alpha), RESOURCE, "a test says so").unwrap());
    site.wait_for(1);
    let view = &service::views(&run(&site.pair.alpha)).unwrap().unwrap()[0];
    assert_eq!(view.trouble.as_deref(), Some("a test says so"));
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn keepalived_moves_by_fifo_and_track_file() {
    let mut site = Site::new("keepalived", true);
    site.start_keepalived(0);
    site.start_keepalived(1);
    let first = site.wait_for_one();
    // -254 in the track file is FAULT at once, and the other is elected.
    let node = site.pair.nodes()[first];
    assert!(service::lost(&run(node), RESOURCE, "a test says so").unwrap());
    site.wait_for(1 - first);
    // kill -9 of all of it: the end of the FIFO is the end of its election.
    let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let parent = site.deciders[1 - first].as_ref().unwrap().id();
    let vrrp: Vec<i32> = children(parent).split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    site.kill_decider(1 - first);
    for pid in vrrp {
        // It may have followed its parent.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    site.wait_for(first);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn haproxy_follows_the_health_endpoint_and_parks_whoever_comes_too_early() {
    let site = Site::new("none", false);
    let servers = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let (front, sorry, mountd) = (free_port(), free_port(), free_port());
    let mut text = fs::read_to_string(packaging("haproxy/nfs.cfg.example")).unwrap();
    for (index, (server, name)) in servers.iter().zip(["alpha 10.99.0.11", "bravo 10.99.0.12"]).enumerate() {
        let address = server.local_addr().unwrap();
        let health = site.served[index].health[0].1.port();
        let name_only = &name[..5];
        text = text
            .replace(&format!("server {name}:2049"), &format!("server {name_only} {address} port {health}"));
        text = text
            .replace(&format!("server {name}:20048"), &format!("server {name_only} {address} port {health}"));
    }
    for (from, to) in [
        ("bind :2049", format!("bind 127.0.0.1:{front}")),
        ("bind :20048", format!("bind 127.0.0.1:{mountd}")),
        ("127.0.0.1:2999", format!("127.0.0.1:{sorry}")),
        ("    log /dev/log local0\n", String::new()),
    ] {
        assert!(text.contains(from), "the example has no '{from}'");
        text = text.replace(from, &to);
    }
    let path = site.pair.folder().join("haproxy.cfg");
    fs::write(&path, text).unwrap();
    let mut haproxy = site.pair.alpha.command(Path::new("/usr/sbin/haproxy"));
    let mut haproxy =
        haproxy.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for (server, name) in servers.into_iter().zip(["alpha", "bravo"]) {
        // Says who it is and waits until it is hung up on.
        std::thread::spawn(move || {
            for stream in server.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let _ = stream.write_all(name.as_bytes());
                    let _ = stream.read(&mut [0]);
                });
            }
        });
    }
    let connect = || {
        let mut stream = None;
        wait::until("haproxy listens", || {
            stream = TcpStream::connect((Ipv4Addr::LOCALHOST, front)).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    };
    let who = |stream: &mut TcpStream| {
        let mut name = [0; 5];
        stream.read_exact(&mut name).is_ok().then(|| String::from_utf8(name.to_vec()).unwrap())
    };
    // Neither serves: accepted and parked, once haproxy knows.
    let mut parked = None;
    wait::until("a client is parked", || {
        let mut stream = connect();
        let error = stream.read(&mut [0]).err().map(|e| e.kind());
        parked = Some(stream);
        error == Some(std::io::ErrorKind::WouldBlock)
    });
    let by_hand = |node: &Node, wish| service::change(&run(node), "nfs", wish, LIMIT).unwrap().unwrap().phase;
    for (node, other) in [(&site.pair.alpha, &site.pair.bravo), (&site.pair.bravo, &site.pair.alpha)] {
        by_hand(other, Wish::Down);
        assert_eq!(by_hand(node, Wish::Up), Phase::Up);
        wait::until("clients are led to the node that serves", || {
            who(&mut connect()).as_deref() == Some(node.name)
        });
    }
    // The parked one was let go when a server appeared, to connect anew.
    let ended = |stream: &mut TcpStream| !matches!(stream.read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(ended(&mut parked.unwrap()));
    // Those of a node that stops are hung up on.
    let mut stream = connect();
    wait::until("a client is led to bravo", || {
        stream = connect();
        who(&mut stream).as_deref() == Some("bravo")
    });
    by_hand(&site.pair.bravo, Wish::Down);
    wait::until("the client is hung up on", || ended(&mut stream));
    haproxy.kill().unwrap();
    haproxy.wait().unwrap();
}
