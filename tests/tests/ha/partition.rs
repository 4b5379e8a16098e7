//! The nodes lose each other while both live, and whoever elects does so on both sides; a client writes all the time. The
//! witness is on a third host.

use std::fs;
use std::time::Instant;

use crate::client::Client;
use crate::host::Host;
use crate::site::{Decider, Site};

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_primary_that_nobody_hears_is_replaced_and_gives_way() {
    let (site, client) = Site::serving(Decider::Ucarp);
    let (switch, [a, b]) = (&site.servers.lab.switch, site.servers.hosts());
    let since = Instant::now();
    switch.black_hole(a.port());
    site.expect_moved(&client, "black hole", since);
    switch.mend(a.port());
    expect_healed(&site, &client, b);
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn of_two_that_only_lose_each_other_one_serves_and_the_other_gives_way() {
    between_the_nodes(Decider::Ucarp);
}

#[test]
#[ignore = "needs root, keepalived, nfs-ganesha, libnfs-dev and the release binaries"]
fn of_two_that_only_lose_each_other_one_serves_with_keepalived_too() {
    between_the_nodes(Decider::Keepalived);
}

/// Both nodes still see the client and the witness, and are elected both. Whoever claims first at the witness serves.
fn between_the_nodes(decider: Decider) {
    let (site, client) = Site::serving(decider);
    let (switch, [a, b]) = (&site.servers.lab.switch, site.servers.hosts());
    let since = Instant::now();
    [a, b].iter().for_each(|host| switch.isolate(host.port(), true));
    let elected = site.wait_elected(b, since);
    site.wait("it is decided", || !claim(&site).is_empty());
    let (winner, loser) = if claim(&site) == "a" { (a, b) } else { (b, a) };
    site.wait_up(winner);
    site.wait_refused(loser);
    site.wait_goes_on(&client);
    println!(
        "{decider:?}, cut: {} serves, b was elected after {elected:.2?}, the client's longest stall {:.2?}",
        winner.name,
        client.longest_stall()
    );
    // Whoever elects knows of nobody else, and does it again.
    site.wait_down(loser);
    site.wait_elected(loser, since);
    site.wait_goes_on(&client);
    println!("elected in vain: the client's longest stall {:.2?}", client.longest_stall());
    [a, b].iter().for_each(|host| switch.isolate(host.port(), false));
    expect_healed(&site, &client, winner);
    site.expect_all(client);
}

/// Without a hand, the node that has not served has what it missed, and does not get the service back.
fn expect_healed(site: &Site, client: &Client, served: &Host) {
    site.wait("both nodes hold the same", || site.servers.are_healed());
    for host in site.servers.hosts() {
        match host.name == served.name {
            true => site.wait_up(host),
            false => site.wait_down(host),
        }
    }
    site.wait("the claim is given back", || claim(site).is_empty());
    site.wait_goes_on(client);
    println!("healed: the client's longest stall {:.2?}", client.longest_stall());
    site.watch.expect_one_writer();
}

/// Who has claimed at the witness, if anybody.
fn claim(site: &Site) -> String {
    let files = fs::read_dir(site.servers.lab.w.folder.join("claims")).into_iter().flatten().flatten();
    let mut claims = files.filter(|file| file.path().extension().is_some_and(|ending| ending == "claim"));
    // It may be given back in this moment.
    claims.next().and_then(|file| fs::read_to_string(file.path()).ok()).unwrap_or_default().trim().to_owned()
}
