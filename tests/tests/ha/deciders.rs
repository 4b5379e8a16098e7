//! UCARP and keepalived elect, with the hooks and examples of packaging/; a client writes all the time.

use std::time::Instant;

use crate::site::{Decider, Site};

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn ucarp_moves_the_service_when_the_power_fails_and_nothing_moves_back() {
    let (mut site, client) = Site::serving(Decider::Ucarp);
    let since = Instant::now();
    site.power_off("a");
    site.expect_moved(&client, "power off", since);
    site.power_on("a");
    site.wait("the node that was off has what it missed", || site.servers.are_healed());
    client.goes_on();
    assert!(site.is_up(&site.servers.lab.b), "the service moved back");
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn ucarp_is_told_to_step_back() {
    let (site, client) = Site::serving(Decider::Ucarp);
    let since = Instant::now();
    site.servers.lab.a.signal("ucarp", "USR2");
    site.expect_moved(&client, "SIGUSR2", since);
    site.wait_down(&site.servers.lab.a);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn ucarp_is_killed() {
    let (site, client) = Site::serving(Decider::Ucarp);
    let since = Instant::now();
    site.servers.lab.a.signal("ucarp", "KILL");
    site.expect_moved(&client, "kill -9 of ucarp", since);
    site.wait_down(&site.servers.lab.a);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn ucarp_starts_on_both_nodes_at_once() {
    let site = Site::new(Decider::Ucarp);
    let [a, b] = site.servers.hosts();
    site.elect(a);
    site.elect_with_interface(b);
    site.wait("one serves", || site.is_up(a) != site.is_up(b));
    let client = site.servers.client.start(&site.servers.lab.c);
    client.goes_on();
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_server_that_hangs_is_noticed_and_the_service_moves() {
    let (site, client) = Site::serving(Decider::Ucarp);
    let since = Instant::now();
    site.servers.lab.a.signal("ganesha.nfsd", "STOP");
    site.expect_moved(&client, "SIGSTOP of ganesha", since);
    site.wait_down(&site.servers.lab.a);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_filesystem_that_meets_an_error_is_noticed_and_given_up() {
    let (site, client) = Site::serving(Decider::Ucarp);
    // It would be told of the error.
    let seen = client.end();
    let [a, b] = site.servers.hosts();
    let since = Instant::now();
    // As if the kernel had found one: it makes the filesystem read-only.
    let meet = "echo of-the-lab >/sys/fs/ext4/$(basename $(readlink -f /dev/drbd0))/trigger_fs_error";
    a.run("sh", &["-c", meet]).ok();
    site.wait_trouble(a, "takes no writes any more");
    site.wait_down(a);
    println!("filesystem read-only: the service is given up after {:.2?}", since.elapsed());
    site.wait("one serves again", || site.is_up(a) != site.is_up(b));
    site.servers.client.expect(&site.servers.lab.c, seen.acknowledged);
    site.watch.expect_one_mount();
}

#[test]
#[ignore = "needs root, keepalived, nfs-ganesha, libnfs-dev and the release binaries"]
fn keepalived_moves_the_service_when_the_power_fails() {
    let (mut site, client) = Site::serving(Decider::Keepalived);
    let since = Instant::now();
    site.power_off("a");
    site.expect_moved(&client, "power off", since);
    site.power_on("a");
    site.watch.expect_one_mount();
    site.expect_all(client);
}

#[test]
#[ignore = "needs root, keepalived, nfs-ganesha, libnfs-dev and the release binaries"]
fn keepalived_is_stopped() {
    let (site, client) = Site::serving(Decider::Keepalived);
    let since = Instant::now();
    site.servers.lab.a.signal("keepalived", "TERM");
    site.expect_moved(&client, "SIGTERM of keepalived", since);
    site.wait_down(&site.servers.lab.a);
    site.watch.expect_one_mount();
    site.expect_all(client);
}
