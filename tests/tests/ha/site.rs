//! The servers with the service on both and whoever elects one of them, as packaging/ has them started.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nfs_failover::health::{Phase, ServiceView};
use nfs_failover::service;

use crate::client::Client;
use crate::host::Host;
use crate::lab::Lab;
use crate::outcome::binary;
use crate::servers::{Servers, append};
use crate::wait;
use crate::watch::Watch;

const PEERS: &str = r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab";"#;
const PASSWORD_FILE: &str = "ucarp-password";
const PASSWORD: &str = "secret";
/// What moving the service may take on a machine with other load, beside noticing that it has to.
const LONGEST_MOVE: Duration = Duration::from_secs(5);

/// Who elects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decider {
    Ucarp,
    Keepalived,
}

/// All of it.
pub(crate) struct Site {
    pub(crate) servers: Servers,
    pub(crate) watch: Watch,
    decider: Decider,
}

impl Site {
    /// The services run, fencing each other by a witness; nobody elects yet.
    pub(crate) fn new(decider: Decider) -> Site {
        Site::with(decider, "")
    }

    /// `service` is what stands in the service's configuration besides.
    pub(crate) fn with(decider: Decider, service: &str) -> Site {
        Site::on(Servers::fenced(&statements(decider, service)), decider)
    }

    /// One without a witness; `resource` is what stands in the resource's configuration besides.
    pub(crate) fn unfenced(decider: Decider, resource: &str) -> Site {
        Site::on(Servers::replicated(Lab::new(), &statements(decider, ""), resource), decider)
    }

    fn on(servers: Servers, decider: Decider) -> Site {
        let site = Site { watch: Watch::new(servers.hosts()), servers, decider };
        fs::write(site.file(PASSWORD_FILE), PASSWORD).unwrap();
        // What the hooks call, with the configuration of here.
        let script = format!(
            "#!/bin/sh\nexec {} -c {} \"$@\"\n",
            binary("nfs-failover").display(),
            site.servers.failover_configuration().display()
        );
        fs::write(site.program(), script).unwrap();
        fs::set_permissions(site.program(), Permissions::from_mode(0o755)).unwrap();
        for host in site.servers.hosts() {
            // It lives as long as the host.
            drop(site.servers.start_service(host));
        }
        site
    }

    /// One that serves from `a`, with a client writing.
    pub(crate) fn serving(decider: Decider) -> (Site, Client) {
        Site::serving_with(decider, "")
    }

    /// The same, with this in the service's configuration besides.
    pub(crate) fn serving_with(decider: Decider, service: &str) -> (Site, Client) {
        let site = Site::with(decider, service);
        let client = site.serve();
        (site, client)
    }

    /// Serves from `a`, with a client writing.
    pub(crate) fn serve(&self) -> Client {
        let (a, b) = (&self.servers.lab.a, &self.servers.lab.b);
        self.elect(a);
        self.wait_up(a);
        self.elect(b);
        let client = self.servers.client.start(&self.servers.lab.c);
        client.goes_on();
        // Who came within the last second is not woken by the next server.
        self.wait("the client is on the list", || {
            a.run("grep", &["-q", ":2049 ", "/srv/nfs/.nfs-state/clients"]).code == Some(0)
        });
        client.longest_stall();
        client
    }

    /// Starts whoever elects on a host.
    pub(crate) fn elect(&self, host: &Host) {
        let mut command = match self.decider {
            Decider::Ucarp => self.ucarp(host),
            Decider::Keepalived => self.keepalived(host),
        };
        let log = append(&host.folder.join("decider.log"));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        drop(command.env("NFS_FAILOVER", self.program()).spawn().unwrap());
    }

    /// Starts UCARP on a host as Debian does with the interface, by what the example says of that.
    pub(crate) fn elect_with_interface(&self, host: &Host) {
        let hooks = packaging("ucarp").display().to_string();
        let example = read("ucarp/interfaces.example")
            .replace("10.99.0.11", &host.address)
            .replace("16charsatmost", PASSWORD)
            .replace("/usr/lib/tandem", &hooks);
        let mut command = host.command("/etc/network/if-up.d/ucarp");
        command.env("IFACE", "eth0").env("NFS_FAILOVER", self.program());
        for (key, value) in example.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(' ')) {
            command.env(format!("IF_{}", key.to_uppercase().replace('-', "_")), value);
        }
        assert!(command.status().unwrap().success());
    }

    /// As systemd does it with the unit of packaging/: however it ends, what is to be done then is done, and it is started
    /// again.
    fn ucarp(&self, host: &Host) -> Command {
        let hooks = packaging("ucarp").display().to_string();
        let unit = read("ucarp/ucarp@.service").replace("\\\n", " ").replace("/usr/lib/tandem", &hooks);
        let line = |key: &str| {
            unit.lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap_or_else(|| panic!("no {key}"))
                .to_owned()
        };
        let environment = read("ucarp/nfs.example")
            .replace("10.99.0.11", &host.address)
            .replace("/etc/tandem/ucarp/password", &self.file(PASSWORD_FILE).display().to_string());
        let [start, stop, pause] = ["ExecStart=", "ExecStopPost=", "RestartSec="].map(line);
        let mut command = host.command("bash");
        command.arg("-c");
        command.arg(format!("{environment}\nwhile :; do {start}; {stop}; sleep {pause}; done"));
        command
    }

    fn keepalived(&self, host: &Host) -> Command {
        let [a, b] = self.servers.hosts();
        let peer = if host.name == a.name { b } else { a };
        let mut text = read("keepalived/keepalived.conf.example");
        for (from, to) in [
            ("unicast_src_ip 10.99.0.11", format!("unicast_src_ip {}", host.address)),
            ("        10.99.0.12", format!("        {}", peer.address)),
            ("/usr/sbin/nfs-failover", self.program().display().to_string()),
            // It trusts no program below a folder that everybody may write to.
            ("    enable_script_security\n", String::new()),
        ] {
            assert!(text.contains(from), "the example has no '{from}'");
            text = text.replace(from, &to);
        }
        let path = host.folder.join("keepalived.conf");
        fs::write(&path, text).unwrap();
        let mut command = host.command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--use-file"]).arg(path);
        command
    }

    /// Waits until a host is elected; how long that took from `since` on.
    #[track_caller]
    pub(crate) fn wait_elected(&self, host: &Host, since: Instant) -> Duration {
        let wish = host.outside("/run/tandem/nfs-failover/nfs.wish");
        let is_elected = || fs::read_to_string(&wish).is_ok_and(|wish| wish.starts_with("up "));
        self.wait(&format!("{} is elected", host.name), is_elected);
        since.elapsed()
    }

    /// Waits until a host serves.
    #[track_caller]
    pub(crate) fn wait_up(&self, host: &Host) {
        self.wait(&format!("{} serves", host.name), || self.is_up(host));
    }

    /// Waits until a host is a clean secondary.
    #[track_caller]
    pub(crate) fn wait_down(&self, host: &Host) {
        self.wait(&format!("{} is down", host.name), || phase(host) == Some(Phase::Down));
        self.servers.expect_down(host);
    }

    /// Waits until a host has come so far.
    #[track_caller]
    pub(crate) fn wait_phase(&self, host: &Host, wanted: Phase) {
        self.wait(&format!("{} is {wanted:?}", host.name), || phase(host) == Some(wanted));
    }

    pub(crate) fn is_up(&self, host: &Host) -> bool {
        phase(host) == Some(Phase::Up)
    }

    /// Waits, and shows what everybody has said if that was in vain.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, condition: impl FnMut() -> bool) {
        if !wait::holds_within(wait::LIMIT, condition) {
            for host in self.servers.hosts() {
                for log in ["serve.log", "decider.log"] {
                    let text = fs::read_to_string(host.folder.join(log)).unwrap_or_default();
                    println!("--- {} {log}:\n{text}", host.name);
                }
            }
            panic!("not within {} s: {what}", wait::LIMIT.as_secs());
        }
    }

    /// Waits until some more records are acknowledged.
    #[track_caller]
    pub(crate) fn wait_goes_on(&self, client: &Client) {
        let before = client.seen().acknowledged;
        self.wait("the client goes on", || client.seen().acknowledged > before + 20);
    }

    /// The service is moved from `a` to `b`: says how long that took, by the side of the election.
    #[track_caller]
    pub(crate) fn expect_moved(&self, client: &Client, event: &str, since: Instant) {
        let b = &self.servers.lab.b;
        let elected = self.wait_elected(b, since);
        self.wait_up(b);
        self.wait_goes_on(client);
        let stall = client.longest_stall();
        println!(
            "{:?}, {event}: elected after {elected:.2?}, the client's longest stall {stall:.2?}",
            self.decider
        );
        assert!(stall < elected + LONGEST_MOVE, "{stall:?}");
    }

    /// Everything that was acknowledged is there, and both nodes hold the same.
    #[track_caller]
    pub(crate) fn expect_all(&self, client: Client) {
        let seen = client.end();
        self.servers.client.expect(&self.servers.lab.c, seen.acknowledged);
        println!("{} records acknowledged and there", seen.acknowledged);
        self.wait("both nodes hold the same", || self.servers.are_healed());
    }

    /// Cuts the power of a server.
    pub(crate) fn power_off(&mut self, name: &str) {
        self.servers.power_off(name);
    }

    /// A server is switched on again, with all that runs on it.
    pub(crate) fn power_on(&mut self, name: &str) {
        self.servers.return_to_life(name);
        let host = self.servers.host(name);
        self.watch.add(host);
        drop(self.servers.start_service(host));
        self.elect(host);
    }

    /// Waits until a host was refused the service, or has given it up.
    #[track_caller]
    pub(crate) fn wait_refused(&self, host: &Host) {
        self.wait_trouble(host, "");
    }

    /// Waits until a host was refused the service, or has given it up, for a reason that contains this.
    #[track_caller]
    pub(crate) fn wait_trouble(&self, host: &Host, why: &str) {
        let is_refused = || view(host).and_then(|view| view.trouble).is_some_and(|said| said.contains(why));
        self.wait(&format!("{} is refused: {why}", host.name), is_refused);
    }

    fn program(&self) -> PathBuf {
        self.file("nfs-failover")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.servers.lab.folder().join(name)
    }
}

/// What stands in the configuration of a service that this one elects.
fn statements(decider: Decider, service: &str) -> String {
    let word = match decider {
        Decider::Ucarp => "ucarp",
        Decider::Keepalived => "keepalived",
    };
    format!("{PEERS} decider {word}; {service}")
}

/// How far the service says it is on its host.
pub(crate) fn phase(host: &Host) -> Option<Phase> {
    view(host).map(|view| view.phase)
}

fn view(host: &Host) -> Option<ServiceView> {
    service::views(&host.outside("/run/tandem/nfs-failover")).ok()??.into_iter().next()
}

pub(crate) fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(packaging(name)).unwrap()
}
