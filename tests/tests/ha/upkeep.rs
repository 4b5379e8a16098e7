//! What others take away of a service that is up is put back, and the clients go on.

use crate::lab::VIP;
use crate::servers::Servers;
use crate::wait;

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn an_address_and_a_process_that_were_taken_away_are_put_back() {
    let servers = Servers::new("");
    let a = &servers.lab.a;
    let mut services = servers.serve();
    servers.failover(a, &["promote"]).ok();
    let client = servers.client.start(&servers.lab.c);
    client.goes_on();
    // As a restart of the network does.
    a.run("ip", &["address", "del", &format!("{VIP}/24"), "dev", "eth0"]).ok();
    client.goes_on();
    let keeper = || a.run("pgrep", &["-f", "nfs-failover .*keep nfs"]).stdout;
    let killed = keeper();
    a.run("kill", &["-9", killed.trim()]).ok();
    wait::until("the clients are written down again", || !keeper().is_empty() && keeper() != killed);
    client.goes_on();
    println!("longest stall {:?}", client.longest_stall());
    let seen = client.end();
    servers.client.expect(&servers.lab.c, seen.acknowledged);
    servers.expect_serving(a);
    services.iter_mut().for_each(|service| {
        service.kill().unwrap();
        service.wait().unwrap();
    });
}
