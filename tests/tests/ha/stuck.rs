//! Demotions that something is in the way of.

use crate::lab::VIP;
use crate::servers::Servers;

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
