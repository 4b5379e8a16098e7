//! A service with an address of each family and two exports: all of it moves, and its clients go on.

use std::time::Duration;

use crate::host::Host;
use crate::lab::{VIP, VIP6};
use crate::listener::Listener;
use crate::servers::Servers;
use crate::wait;

const PEERS: &str = r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab";"#;
const MORE: &str = "/srv/nfs/more";
const LONGEST_MOVE: Duration = Duration::from_secs(3);

/// Servers of both, of which nobody serves yet.
fn servers() -> Servers {
    let export = format!("export \"{MORE} fd00:99::/64(rw,sync,no_subtree_check,no_root_squash,insecure)\";");
    let servers = Servers::new(&format!("vip {VIP6}/64 dev eth0; {export} {PEERS}"));
    let a = &servers.lab.a;
    servers.adm(a, &["primary", "r0"]).ok();
    a.run("mount", &["/dev/drbd0", "/srv/nfs"]).ok();
    a.run("mkdir", &[MORE]).ok();
    a.run("umount", &["/srv/nfs"]).ok();
    servers.adm(a, &["secondary", "r0"]).ok();
    servers
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn both_addresses_and_both_exports_move() {
    let mut servers = servers();
    let services = servers.serve();
    println!("{}", servers.failover(&servers.lab.a, &["promote"]).ok().stdout);
    let c = &servers.lab.c;
    let client6 = servers.client.at(VIP6, MORE);
    let [writer, writer6] = [servers.client.start(c), client6.start(c)];
    for at in ["a", "b"] {
        let (here, there) = match at {
            "a" => (&servers.lab.a, &servers.lab.b),
            _ => (&servers.lab.b, &servers.lab.a),
        };
        writer.goes_on();
        writer6.goes_on();
        wait::until("both clients are saved", || saved(here, VIP) && saved(here, &format!("[{VIP6}]")));
        // What this node says of itself to others comes from its own address.
        let route = here.run("ip", &["-6", "route", "get", &c.address6]).ok().stdout;
        assert!(route.contains(&format!("src {} ", here.address6)), "{route}");
        let (heard, heard6) = (Listener::start(c, VIP), Listener::start(c, VIP6));
        writer.longest_stall();
        writer6.longest_stall();
        servers.failover(&servers.lab.a, &["switchover"]).ok();
        heard.expect(there);
        heard6.expect(there);
        writer.goes_on();
        writer6.goes_on();
        let stalls = [writer.longest_stall(), writer6.longest_stall()];
        println!("{} to {}: longest stalls {stalls:?} (IPv4, IPv6)", here.name, there.name);
        assert!(stalls.iter().all(|stall| *stall < LONGEST_MOVE));
        servers.expect_down(here);
        assert!(!here.run("ip", &["address"]).ok().stdout.contains(VIP6));
    }
    // It serves from `a` again.
    let lab = &mut servers.lab;
    lab.a.power_off(&lab.switch);
    servers.failover(&servers.lab.b, &["promote"]).ok();
    writer.goes_on();
    writer6.goes_on();
    let stalls = [writer.longest_stall(), writer6.longest_stall()];
    println!("power off: longest stalls {stalls:?} (IPv4, IPv6)");
    let (seen, seen6) = (writer.end(), writer6.end());
    servers.client.expect(&servers.lab.c, seen.acknowledged);
    client6.expect(&servers.lab.c, seen6.acknowledged);
    println!("{} and {} records acknowledged and there", seen.acknowledged, seen6.acknowledged);
    for mut service in services {
        // One of them went with its host.
        let _ = service.kill();
        service.wait().unwrap();
    }
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_stale_owner_of_the_other_address_stops_the_promotion() {
    let servers = servers();
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let address = format!("{VIP6}/64");
    b.run("ip", &["address", "add", &address, "dev", "eth0", "nodad"]).ok();
    let outcome = servers.failover(a, &["promote"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let why = format!("{VIP6} is in use by {}", b.mac);
    assert!(outcome.stderr.contains(&why), "{outcome:?}");
    servers.expect_down(a);
    assert!(!a.run("ip", &["address"]).ok().stdout.contains(VIP6));
    b.run("ip", &["address", "del", &address, "dev", "eth0"]).ok();
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
}

/// Whether the list of clients on the volume has one of this address.
fn saved(host: &Host, address: &str) -> bool {
    let list = host.run("cat", &["/srv/nfs/.nfs-state/clients"]).stdout;
    list.lines().any(|line| line.starts_with(&format!("{address}:2049 ")))
}
