//! Exports are changed under clients: nobody notices who is not concerned.

use std::fs;

use crate::client::Program;
use crate::host::Host;
use crate::lab::VIP;
use crate::nfs4::{Client, DENIED, Opened};
use crate::outcome::Outcome;
use crate::servers::Servers;
use crate::wait;

const PEERS: &str = r#"peer 10.99.0.11:7790 10.99.0.12:7790; shared-secret "of the lab";"#;
const MORE: &str = "/srv/nfs/more";

/// Two NFSv4 clients, of which one has a lock that the other one wants.
struct Lock {
    holder: Client,
    other: Client,
    wanted: Opened,
}

impl Lock {
    fn new(host: &Host) -> Lock {
        let (mut holder, mut other) = (Client::new(host, "holder"), Client::new(host, "other"));
        let mut held = holder.open("file").unwrap();
        holder.lock(&mut held, false).unwrap();
        let wanted = other.open("file").unwrap();
        Lock { holder, other, wanted }
    }

    #[track_caller]
    fn expect_held(&mut self) {
        self.holder.renew().unwrap();
        assert_eq!(self.other.lock(&mut self.wanted, false), Err(DENIED));
    }
}

/// Writes the configuration anew, with another export for these.
fn export_more(servers: &Servers, usual: &str, clients: &str) {
    let more = match clients {
        "" => String::new(),
        clients => format!("  export \"{MORE} {clients}\";\n"),
    };
    fs::write(servers.failover_configuration(), usual.replacen("  vip ", &(more + "  vip "), 1)).unwrap();
}

#[track_caller]
fn reload(servers: &Servers, host: &Host, expected: &str) {
    let said = servers.failover(host, &["reload"]).ok().stdout;
    assert!(said.contains(expected), "{said}");
}

/// D-Bus's daemon, as every Debian has it. It lives as long as the host.
fn start_bus(host: &Host) {
    host.run("mkdir", &["-p", "/run/dbus"]).ok();
    host.run("dbus-daemon", &["--system", "--fork"]).ok();
}

fn server(host: &Host) -> String {
    host.run("pgrep", &["-x", "ganesha.nfsd"]).ok().stdout
}

fn is_refused(said: &Outcome) -> bool {
    said.stderr.contains("MNT3ERR_")
}

#[test]
#[ignore = "needs root, dbus, nfs-ganesha, libnfs-dev and the release binaries"]
fn an_export_comes_changes_and_goes_while_others_are_used() {
    let servers = Servers::new(PEERS);
    let (a, b, c) = (&servers.lab.a, &servers.lab.b, &servers.lab.c);
    let usual = fs::read_to_string(servers.failover_configuration()).unwrap();
    // The other one has no bus.
    start_bus(a);
    let mut services = servers.serve();
    println!("{}", servers.failover(a, &["promote"]).ok().stdout);
    let began = server(a);
    let client = servers.client.start(c);
    let more: Program = servers.client.at(VIP, MORE);
    let mut lock = Lock::new(c);
    client.goes_on();
    assert!(is_refused(&more.try_to_write(c)));

    // A folder that is not there is exported by nobody, now or after a move.
    export_more(&servers, &usual, "10.99.0.0/24(rw,insecure,no_root_squash)");
    let refused = servers.failover(a, &["reload"]);
    assert!(refused.code == Some(1) && refused.stderr.contains(MORE), "{refused:?}");
    a.run("mkdir", &[MORE]).ok();
    lock.expect_held();
    reload(&servers, a, "nfs: /srv/nfs/more is exported\n");
    reload(&servers, a, "nothing that is exported here has changed");
    reload(&servers, b, "nothing that is exported here has changed");
    servers.failover(a, &["check"]).ok();
    more.try_to_write(c).ok();
    lock.expect_held();

    export_more(&servers, &usual, "10.99.0.0/24(ro,insecure)");
    reload(&servers, a, "nfs: /srv/nfs/more is exported in another way\n");
    let refused = more.try_to_write(c);
    assert!(refused.stderr.contains("NFS3ERR_ROFS"), "{refused:?}");
    lock.expect_held();
    // What the server does not take is not taken for exported, and said.
    export_more(&servers, &usual, "no-such-host.invalid(rw)");
    let refused = servers.failover(a, &["reload"]);
    let why = "/srv/nfs/more: NFS-Ganesha does not take that";
    assert!(refused.code == Some(1) && refused.stderr.contains(why), "{refused:?}");
    // All else takes more than that.
    fs::write(servers.failover_configuration(), usual.replace("grace 10", "grace 11")).unwrap();
    let refused = servers.failover(a, &["reload"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("`grace`"), "{refused:?}");
    lock.expect_held();

    export_more(&servers, &usual, "");
    reload(&servers, a, "nfs: /srv/nfs/more is not exported any more\n");
    assert!(is_refused(&more.try_to_write(c)));
    lock.expect_held();
    client.goes_on();
    println!("the client's longest stall {:.2?}", client.longest_stall());
    assert_eq!(server(a), began, "it is still the same server");

    // The other node serves what it was told meanwhile, and without a bus follows, too.
    export_more(&servers, &usual, "10.99.0.0/24(rw,insecure,no_root_squash)");
    reload(&servers, a, "nfs: /srv/nfs/more is exported\n");
    reload(&servers, b, "nothing that is exported here has changed");
    println!("{}", servers.failover(a, &["switchover"]).ok().stdout);
    more.try_to_write(c).ok();
    export_more(&servers, &usual, "");
    reload(&servers, b, "D-Bus, on which it would say what comes of that, is not to be had");
    wait::until("it has followed", || is_refused(&more.try_to_write(c)));
    client.goes_on();
    let seen = client.end();
    servers.client.expect(c, seen.acknowledged);
    services.iter_mut().for_each(|service| {
        service.kill().unwrap();
        service.wait().unwrap();
    });
}
