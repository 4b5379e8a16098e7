//! HAProxy before both servers, as packaging/ has it, for clients that know no other address; UCARP elects behind it.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, Program};
use crate::host::Host;
use crate::outcome::Outcome;
use crate::servers::EXPORT;
use crate::site::{Decider, Site, packaging, read};

/// What a connection to a port that nobody listens on may take: it is refused, not left to wait.
const AT_ONCE: Duration = Duration::from_secs(3);
const HEALTH: &str = "health 0.0.0.0:8008;";

#[test]
#[ignore = "needs keepalived"]
fn the_example_for_lvs_is_whole() {
    let mut keepalived = Command::new("keepalived");
    keepalived.args(["--config-test", "--use-file"]).arg(packaging("haproxy/lvs.conf.example"));
    Outcome::of(keepalived).ok();
}

#[test]
#[ignore = "needs root, ucarp, haproxy, nfs-ganesha, libnfs-dev and the release binaries"]
fn haproxy_leads_clients_to_the_node_that_serves() {
    let mut site = Site::with(Decider::Ucarp, HEALTH);
    let client = through_haproxy(&site);

    let since = Instant::now();
    site.power_off("a");
    site.expect_moved(&client, "power off, through HAProxy", since);
    site.power_on("a");
    site.wait("the node that was off has what it missed", || site.servers.are_healed());
    expect_open_on_one(&site, &site.servers.lab.b, &site.servers.lab.a);

    client.longest_stall();
    let [a, b] = site.servers.hosts();
    site.servers.failover(b, &["switchover"]).ok();
    site.wait_up(a);
    site.wait_goes_on(&client);
    println!("planned move, through HAProxy: the client's longest stall {:.2?}", client.longest_stall());
    expect_open_on_one(&site, a, b);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

/// A client that writes through HAProxy on the third host, to `a`.
fn through_haproxy(site: &Site) -> Client {
    let [a, b] = site.servers.hosts();
    start_haproxy(site);
    site.elect(a);
    site.wait_up(a);
    site.elect(b);
    expect_open_on_one(site, a, b);
    let program = proxied(site);
    site.wait("the volume is reached through haproxy", || program.finds_nothing(&site.servers.lab.c));
    let client = program.start(&site.servers.lab.c);
    site.wait_goes_on(&client);
    client.longest_stall();
    client
}

fn proxied(site: &Site) -> Program {
    site.servers.client.at(&site.servers.lab.w.address, EXPORT)
}

/// It lives as long as the host.
fn start_haproxy(site: &Site) {
    let host = &site.servers.lab.w;
    let text = read("haproxy/nfs.cfg.example");
    for address in site.servers.hosts().map(|host| &host.address) {
        assert!(
            text.contains(&format!(" {address}:2049")),
            "the example is for other addresses than {address}"
        );
    }
    let (path, log) = (host.folder.join("haproxy.cfg"), host.folder.join("haproxy.log"));
    fs::write(&path, text.replace("    log /dev/log local0\n", "")).unwrap();
    let log = File::create(log).unwrap();
    let mut command = host.command("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(&path).stdout(log.try_clone().unwrap()).stderr(log);
    drop(command.spawn().unwrap());
}

/// What a balancer that only asks whether the port is open finds (LVS, ALOHA), and a client whose name server gave it the
/// addresses of both: it is open where the service is, and refused at once on the other.
#[track_caller]
fn expect_open_on_one(site: &Site, serves: &Host, other: &Host) {
    let from = &site.servers.lab.w;
    let connect = |to: &Host| {
        let script = format!("exec 3<>/dev/tcp/{}/2049", to.address);
        let since = Instant::now();
        (from.run("timeout", &["10", "bash", "-c", &script]), since.elapsed())
    };
    let (open, _) = connect(serves);
    open.ok();
    let (refused, took) = connect(other);
    assert!(refused.stderr.contains("Connection refused"), "{refused:?}");
    println!("{}: open; {}: refused after {took:.2?}", serves.name, other.name);
    assert!(took < AT_ONCE, "refused only after {took:?}");
}
