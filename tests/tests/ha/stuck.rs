//! Demotions that something is in the way of.

use std::process::Child;

use crate::host::Host;
use crate::lab::VIP;
use crate::servers::Servers;
use crate::wait;

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn addresses_that_are_gone_or_were_added_otherwise_hold_nothing_up() {
    let servers = Servers::new("vip 10.99.1.100/24 dev eth0; vip 10.99.1.101/24 dev eth0;");
    let a = &servers.lab.a;
    // Debian's default: with the first address of a network go its others.
    a.run("sysctl", &["-w", "net.ipv4.conf.all.promote_secondaries=0"]).ok();
    a.run("sysctl", &["-w", "net.ipv4.conf.eth0.promote_secondaries=0"]).ok();
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
    // As keepalived adds it.
    a.run("ip", &["address", "del", &format!("{VIP}/24"), "dev", "eth0"]).ok();
    a.run("ip", &["address", "add", &format!("{VIP}/32"), "dev", "eth0"]).ok();
    servers.failover(a, &["demote"]).ok();
    servers.expect_down(a);
    let addresses = a.run("ip", &["address"]).ok().stdout;
    assert!(!addresses.contains("10.99.1."), "{addresses}");
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_volume_that_is_mounted_elsewhere_too_is_given_up_all_the_same() {
    let servers = Servers::new("");
    let a = &servers.lab.a;
    servers.failover(a, &["promote"]).ok();
    // As it is done for NFSv4, with somebody in it, and something else inside of it.
    a.run("mkdir", &["-p", "/mnt/export"]).ok();
    a.run("mount", &["--bind", "/srv/nfs/data", "/mnt/export"]).ok();
    a.run("mkdir", &["/mnt/export/inner"]).ok();
    a.run("mount", &["-t", "tmpfs", "tmpfs", "/mnt/export/inner"]).ok();
    let mut user = use_folder(a, "/mnt/export/inner");
    servers.failover(a, &["demote"]).ok();
    user.wait().unwrap();
    servers.expect_down(a);
    let mounts = a.run("cat", &["/proc/self/mounts"]).ok().stdout;
    assert!(!mounts.contains("/mnt/export"), "{mounts}");
    servers.failover(a, &["promote"]).ok();
    servers.expect_up(a);
}

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn another_filesystem_at_the_place_of_the_volume_is_left_alone() {
    let servers = Servers::new("");
    let b = &servers.lab.b;
    b.run("mkdir", &["-p", "/srv/nfs"]).ok();
    b.run("mount", &["-t", "tmpfs", "tmpfs", "/srv/nfs"]).ok();
    let mut user = use_folder(b, "/srv/nfs");
    let said = servers.failover(b, &["demote"]).ok().stdout;
    assert!(said.contains("tmpfs is mounted there: not the volume, and left alone"), "{said}");
    b.run("mountpoint", &["-q", "/srv/nfs"]).ok();
    assert_eq!(user.try_wait().unwrap(), None, "who uses it was ended");
    b.run("sh", &["-c", "kill $(cat /run/user)"]).ok();
    user.wait().unwrap();
}

/// Somebody who stands in a folder.
fn use_folder(host: &Host, folder: &str) -> Child {
    let script = format!("cd {folder}; echo $$ >/run/user; exec sleep 600");
    let user = host.command("bash").args(["-c", &script]).spawn().unwrap();
    wait::until("somebody is in it", || host.run("test", &["-s", "/run/user"]).code == Some(0));
    user
}
