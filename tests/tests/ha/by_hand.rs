//! The operator moves the service, with a client writing all the time.

use std::time::Duration;

use crate::lab::VIP;
use crate::servers::Servers;
use crate::wait;

/// A client must not wait for its own retransmissions on top: it is woken.
const LONGEST_MOVE: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn planned_move_and_power_off() {
    let mut servers = Servers::new("");
    println!("{}", servers.failover(&servers.lab.a, &["promote"]).ok().stdout);
    let client = servers.client.start(&servers.lab.c);
    client.goes_on();

    println!("{}", servers.failover(&servers.lab.a, &["demote"]).ok().stdout);
    println!("{}", servers.failover(&servers.lab.b, &["promote"]).ok().stdout);
    client.goes_on();
    let planned = client.longest_stall();

    servers.power_off("b");
    println!("{}", servers.failover(&servers.lab.a, &["promote"]).ok().stdout);
    client.goes_on();
    let power_off = client.longest_stall();

    servers.return_to_life("b");
    client.goes_on();
    wait::until("the node that was off has what it missed", || servers.are_healed());
    let seen = client.end();
    servers.client.expect(&servers.lab.c, seen.acknowledged);
    println!(
        "{} records acknowledged and there; longest stall: planned move {planned:?}, power off {power_off:?}",
        seen.acknowledged
    );
    assert!(planned < LONGEST_MOVE && power_off < LONGEST_MOVE);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_stale_owner_of_the_address_stops_the_promotion() {
    let servers = Servers::new("");
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let address = format!("{VIP}/24");
    b.run("ip", &["address", "add", &address, "dev", "eth0"]).ok();
    let outcome = servers.failover(a, &["promote"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("in use by 02:00:00:00:00:0c"), "{outcome:?}");
    servers.expect_down(a);
    b.run("ip", &["address", "del", &address, "dev", "eth0"]).ok();
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_portmapper_that_does_not_run_is_started_or_stops_the_promotion() {
    let servers = Servers::new("");
    let a = &servers.lab.a;
    let runs = || a.run("pgrep", &["-x", "rpcbind"]).code == Some(0);
    let program = a.run("sh", &["-c", "command -v rpcbind"]).ok().stdout;
    let program = program.trim();
    a.run("mount", &["--bind", "/bin/false", program]).ok();
    let outcome = servers.failover(a, &["promote"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("apt-get install rpcbind"), "{outcome:?}");
    servers.expect_down(a);
    assert!(!runs());
    a.run("umount", &[program]).ok();
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
    assert!(runs());
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_volume_in_use_is_given_up_all_the_same() {
    let servers = Servers::new("");
    let a = &servers.lab.a;
    servers.failover(a, &["promote"]).ok();
    let stubborn =
        "trap '' TERM; exec 3>/srv/nfs/data/open; cd /srv/nfs/data; while :; do echo >&3; sleep 1; done";
    let mut shell = a.command("bash").args(["-c", stubborn]).spawn().unwrap();
    wait::until("the volume is in use", || a.run("test", &["-s", "/srv/nfs/data/open"]).code == Some(0));
    let outcome = servers.failover(a, &["demote"]).ok();
    assert!(outcome.stdout.contains("after killing bash"), "{outcome:?}");
    assert!(!shell.wait().unwrap().success());
    servers.expect_down(a);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn switchover_through_the_services() {
    let servers = Servers::new(r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab";"#);
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let mut services = servers.serve();
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
    let client = servers.client.start(&servers.lab.c);
    for (here, there) in [(a, b), (b, a)] {
        client.goes_on();
        client.longest_stall();
        servers.failover(a, &["switchover"]).ok();
        client.goes_on();
        println!("{} to {}: longest stall {:?}", here.name, there.name, client.longest_stall());
        servers.expect_down(here);
    }
    let seen = client.end();
    servers.client.expect(&servers.lab.c, seen.acknowledged);
    services.iter_mut().for_each(|service| {
        service.kill().unwrap();
        service.wait().unwrap();
    });
}
