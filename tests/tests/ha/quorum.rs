//! Quorum of two nodes, with a service on it: who is left alone does not serve.

use std::fs;
use std::time::Instant;

use crate::site::{Decider, Site};

/// A lost link is noticed soon.
const QUICK: &str = "net { timeout 20; ping-int 3; }\n";

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_primary_whose_requests_fail_without_quorum_gives_the_service_up() {
    let site = Site::unfenced(
        Decider::Ucarp,
        &format!("options {{ quorum majority; on-no-quorum io-error; }}\n{QUICK}"),
    );
    let seen = site.serve().end();
    let (switch, [a, b]) = (&site.servers.lab.switch, site.servers.hosts());
    let since = Instant::now();
    [a, b].iter().for_each(|host| switch.isolate(host.port(), true));
    // Clients are spared the errors, and whoever elects is told: that quorum is lost, or what comes of it, that the filesystem
    // takes no more writes.
    site.wait_refused(a);
    site.wait_down(a);
    println!("cut: the service is given up after {:.2?}", since.elapsed());
    // The other one is elected, and serves no more than this.
    site.wait_trouble(b, "(-25) No quorum");
    assert!(!site.is_up(a) && !site.is_up(b));
    [a, b].iter().for_each(|host| switch.isolate(host.port(), false));
    site.wait("one serves again", || site.is_up(a) != site.is_up(b));
    site.servers.client.expect(&site.servers.lab.c, seen.acknowledged);
    site.watch.expect_one_mount();
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_primary_that_waits_for_quorum_goes_on_with_it_or_gives_the_service_up() {
    let site = Site::unfenced(
        Decider::Ucarp,
        &format!("options {{ quorum majority; on-no-quorum suspend-io; }}\n{QUICK}"),
    );
    let client = site.serve();
    let (switch, [a, b]) = (&site.servers.lab.switch, site.servers.hosts());
    let cut = |is_cut| [a, b].iter().for_each(|host| switch.isolate(host.port(), is_cut));
    cut(true);
    site.wait_trouble(b, "(-25) No quorum");
    assert!(site.is_up(a), "its client waits");
    cut(false);
    site.wait_goes_on(&client);
    println!("cut: the client's longest stall {:.2?}", client.longest_stall());

    // Nobody waits for long for what cannot be ended in good order.
    cut(true);
    site.wait("it waits for quorum", || {
        site.servers.adm(a, &["status", "r0"]).stdout.contains("suspended:quorum")
    });
    site.servers.failover(a, &["demote"]).ok();
    site.wait_down(a);
    let log = fs::read_to_string(a.folder.join("serve.log")).unwrap();
    println!("{}", log.lines().filter(|line| line.contains(" abandon ")).collect::<Vec<_>>().join("\n"));
    cut(false);
    site.wait("both nodes hold the same", || site.servers.are_healed());
    site.servers.failover(a, &["promote"]).ok();
    site.wait_goes_on(&client);
    site.watch.expect_one_mount();
    site.expect_all(client);
}
