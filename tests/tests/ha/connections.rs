//! What a client's connection goes through.

use std::time::{Duration, Instant};

use crate::host::Host;
use crate::servers::Servers;
use crate::wait;

/// Of the portmapper, NFS and mountd; for NFSv3 that is all.
const PORTS: [&str; 3] = ["111", "2049", "20048"];
/// A client that has heard nothing for some seconds looks again only after as long.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_client_is_woken_by_the_next_server_and_can_come_straight_back() {
    let servers = Servers::new("");
    let (a, b, c) = (&servers.lab.a, &servers.lab.b, &servers.lab.c);
    servers.failover(a, &["promote"]).ok();
    expect_fixed_ports(a);
    let client = servers.client.start(c);
    client.goes_on();
    servers.failover(a, &["demote"]).ok();
    let mut after = Duration::ZERO;
    wait::until("the client looks ever more rarely", || {
        after = next_attempt(c);
        after > PATIENCE
    });
    let looked = Instant::now();
    servers.failover(b, &["promote"]).ok();
    client.goes_on();
    println!("the client went on after {:.2?}, and would have after {after:.2?}", looked.elapsed());
    assert!(looked.elapsed() < after);

    client.longest_stall();
    servers.failover(b, &["demote"]).ok();
    servers.expect_down(b);
    servers.failover(a, &["promote"]).ok();
    client.goes_on();
    println!("straight back: the client's longest stall {:.2?}", client.longest_stall());
    servers.client.expect(c, client.end().acknowledged);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn tandemd_is_killed_and_a_resync_target_is_not_promoted() {
    let servers = Servers::new("");
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    servers.failover(a, &["promote"]).ok();
    let client = servers.client.start(&servers.lab.c);
    client.goes_on();
    a.signal("tandemd", "KILL");
    servers.adm(a, &["up", "r0"]).ok();
    client.goes_on();
    println!("tandemd killed: the client's longest stall {:.2?}", client.longest_stall());
    servers.expect_serving(a);
    wait::until("both nodes hold the same", || servers.are_healed());

    servers.adm(b, &["pause-sync", "r0"]).ok();
    servers.adm(b, &["invalidate", "r0"]).ok();
    let refused = servers.failover(b, &["promote"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("disk is Inconsistent"), "{refused:?}");
    servers.adm(b, &["resume-sync", "r0"]).ok();
    client.goes_on();
    wait::until("both nodes hold the same", || servers.are_healed());
    servers.client.expect(&servers.lab.c, client.end().acknowledged);
}

/// When the client's kernel sends again what was not acknowledged.
fn next_attempt(client: &Host) -> Duration {
    let sockets = client.run("ss", &["-Htno", "dport", "=", ":2049"]).ok().stdout;
    // "timer:(on,3.2sec,4)", "timer:(on,756ms,2)".
    let timers = sockets.split("timer:(on,").skip(1).filter_map(|timer| timer.split(',').next());
    let seconds = timers.filter_map(|timer| timer.strip_suffix("sec")?.parse().ok());
    seconds.map(Duration::from_secs_f64).max().unwrap_or_default()
}

/// The portmapper knows of no port that a firewall could not.
fn expect_fixed_ports(host: &Host) {
    let said = host.run("rpcinfo", &["-p"]).ok().stdout;
    let mut ports = said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
    assert!(ports.all(|port| PORTS.contains(&port)), "{said}");
}
