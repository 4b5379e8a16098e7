//! `nfs-failover drill` and `check` on two nodes that are as they would be in earnest.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::outcome::binary;
use crate::servers::{Servers, append};
use crate::site::{Decider, Site};
use crate::wait;

const PEERS: &str = r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab";"#;
/// Of what is moved on purpose, on a machine with other load.
const LONGEST_MOVE: Duration = Duration::from_secs(3);
/// Of what has to be noticed first.
const LONGEST_LOSS: Duration = Duration::from_secs(30);
const GANESHA: &str = "/usr/bin/ganesha.nfsd";
const TABLE: &str = "nfs-failover-drill-nfs";

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_drill_measures_every_part_and_finds_every_write() {
    let (site, client) = Site::serving(Decider::Ucarp);
    let a = &site.servers.lab.a;
    let said = site.servers.failover(a, &["drill", "--yes"]).ok().stdout;
    println!("{said}");
    let parts = [
        "planned move there",
        "planned move back",
        "server killed",
        "planned move home",
        "link cut",
        "link back",
    ];
    let rows: Vec<&str> = said.lines().skip(1).take(parts.len()).collect();
    for (row, part) in rows.iter().zip(parts) {
        assert!(row.starts_with(part), "{said}");
    }
    assert!(said.ends_with(" acknowledged writes 0 are lost\n") && !said.contains("STOPPED"), "{said}");
    site.wait_up(a);
    client.goes_on();
    assert!(!a.run("nft", &["list", "tables"]).ok().stdout.contains(TABLE));
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_drill_asks_first_and_can_be_started_on_the_node_that_does_not_serve() {
    let servers = Servers::new(PEERS);
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let refused = servers.failover(a, &["drill", "--yes"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("not now: the other node's"), "{refused:?}");
    let services = servers.serve();
    servers.failover(a, &["promote"]).ok();
    // Whoever does not agree has nothing moved.
    let declined = servers.failover(b, &["drill"]);
    assert!(
        declined.stderr.contains("150 s") && declined.stderr.contains("nothing was done"),
        "{declined:?}"
    );
    servers.expect_up(a);
    let said = servers.failover(b, &["--json", "drill", "--yes"]).ok().stdout;
    println!("{said}");
    let findings: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&findings["lost"], &findings["stopped"]), (&Value::from(0), &Value::Null));
    let rows = findings["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let outage = Duration::from_millis(row["outage_ms"].as_u64().unwrap());
        let planned = row["part"].as_str().unwrap().starts_with("planned");
        assert!(outage < if planned { LONGEST_MOVE } else { LONGEST_LOSS }, "{row}");
    }
    servers.expect_up(a);
    servers.expect_down(b);
    end(services);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_power_cut_is_rehearsed_with_the_operator_at_the_plug() {
    let (mut site, client) = Site::serving(Decider::Ucarp);
    let [out, err] = ["drill.out", "drill.err"].map(|name| site.servers.lab.folder().join(name));
    let mut drill = site.servers.lab.a.command(binary("nfs-failover"));
    drill.arg("-c").arg(site.servers.failover_configuration()).args(["drill", "--part", "power-cut"]);
    let mut drill = drill.stdin(Stdio::piped()).stdout(append(&out)).stderr(append(&err)).spawn().unwrap();
    let said = |path: &Path| fs::read_to_string(path).unwrap();
    let mut operator = drill.stdin.take().unwrap();
    site.wait("it asks first", || said(&err).contains("you are asked to cut"));
    writeln!(operator, "yes").unwrap();
    site.wait("it asks for the power to be cut", || said(&err).contains("The other node serves nfs now"));
    site.wait_up(&site.servers.lab.b);
    writeln!(operator, "yes").unwrap();
    site.power_off("b");
    site.wait_up(&site.servers.lab.a);
    site.power_on("b");
    site.wait("the drill ends", || drill.try_wait().unwrap().is_some());
    let said = said(&out);
    println!("{said}");
    assert!(drill.wait().unwrap().success() && !said.contains("STOPPED"), "{said}");
    for part in ["\nplanned move there ", "\npower cut ", "\npower back "] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.ends_with(" acknowledged writes 0 are lost\n"), "{said}");
    site.wait_up(&site.servers.lab.a);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_drill_stops_at_the_first_surprise_and_leaves_no_cut_behind() {
    let servers = Servers::new(PEERS);
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let services = servers.serve();
    servers.failover(a, &["promote"]).ok();
    b.run("mount", &["--bind", "/bin/false", GANESHA]).ok();
    let stopped = servers.failover(a, &["drill", "--yes"]);
    println!("{}", stopped.stdout);
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    for said in [
        "STOPPED: planned move there: the other node cannot serve: server: ",
        "; this node serves again\n",
        "r0 here: Primary UpToDate",
        "the service here: up, there: down",
        " acknowledged writes 0 are lost",
    ] {
        assert!(stopped.stdout.contains(said), "no '{said}': {stopped:?}");
    }
    b.run("umount", &[GANESHA]).ok();
    servers.expect_up(a);
    servers.expect_down(b);
    // One that is killed while the link is cut: the kernel will mend it.
    let mut drill = start(&servers, a, &["drill", "--yes", "--part", "cut"]);
    wait::until("the link is cut", || cut(a).contains("10.99.0.12"));
    // In the namespace of the host's processes.
    a.run("pkill", &["-KILL", "-f", "drill --yes"]).ok();
    drill.wait().unwrap();
    wait::until("the link is seen to be cut", || {
        servers.adm(a, &["status", "r0"]).stdout.contains("Connecting")
    });
    let left = cut(a);
    assert!(left.contains("timeout 2m30s expires 2m"), "{left}");
    // As it does when its time has come.
    a.run("nft", &["delete", "element", "inet", TABLE, "peers4", "{ 10.99.0.12 }"]).ok();
    wait::until("the link is back", || servers.are_healed());
    servers.failover(a, &["drill", "--yes", "--part", "cut"]).ok();
    assert!(cut(a).is_empty());
    end(services);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn what_the_other_node_is_configured_differently_for_is_named() {
    let servers = Servers::new(PEERS);
    let (a, b) = (&servers.lab.a, &servers.lab.b);
    let own = fs::read_to_string(servers.failover_configuration()).unwrap();
    let other = servers.lab.folder().join("other.conf");
    fs::write(&other, own.replace("grace 10", "grace 20").replace("no_root_squash", "root_squash")).unwrap();
    let mut serve = b.command(binary("nfs-failover"));
    serve.arg("-c").arg(&other).arg("serve").stdout(append(&b.folder.join("serve.log")));
    let services = [servers.start_service(a), serve.spawn().unwrap()];
    let mut check = servers.failover(a, &["check"]);
    wait::until("the other node answers", || {
        check = servers.failover(a, &["check"]);
        !check.stderr.contains("does not answer")
    });
    println!("{}", check.stderr);
    assert_eq!(check.code, Some(1));
    assert!(check.stderr.contains("nfs: `grace` is '10' here and '20' on the other node: make it the same"));
    let squash = check.stderr.lines().find(|line| line.contains("`export`")).unwrap();
    let (here, there) = squash.split_once(" here and ").unwrap();
    assert!(here.contains(",no_root_squash,") && there.contains(",root_squash,"), "{squash}");
    assert_eq!(check.stderr.matches("on the other node").count(), 2);
    // Rehearsing it would show nothing but that.
    let refused = servers.failover(a, &["drill", "--yes"]);
    assert!(refused.stderr.contains("not now: `"), "{refused:?}");
    end(services);
}

fn start(servers: &Servers, host: &Host, arguments: &[&str]) -> Child {
    let mut command = host.command(binary("nfs-failover"));
    command.arg("-c").arg(servers.failover_configuration()).args(arguments).stdout(Stdio::null());
    command.spawn().unwrap()
}

fn cut(host: &Host) -> String {
    host.run("nft", &["list", "table", "inet", TABLE]).stdout
}

fn end<const N: usize>(services: [Child; N]) {
    for mut service in services {
        service.kill().unwrap();
        service.wait().unwrap();
    }
}
