//! Opens and locks of NFSv4 clients outlive their server.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::nfs4::{Client, DENIED, GRACE, STALE_CLIENT};
use crate::servers::Servers;
use crate::wait;

#[test]
#[ignore = "needs root, nfs-ganesha, libnfs-dev and the release binaries"]
fn an_open_and_a_lock_are_taken_again_within_the_grace_and_kept_from_others() {
    let mut servers = Servers::new("");
    servers.failover(&servers.lab.a, &["promote"]).ok();
    let c = &servers.lab.c;
    let (mut holder, mut other) = (Client::new(c, "holder"), Client::new(c, "other"));
    assert_eq!(holder.lease_s(), 10, "as configured");
    let server = Client::server(c);
    assert!(!server.0.is_empty() && !server.1.is_empty(), "{server:?}");
    let mut held = holder.open("file").unwrap();
    holder.lock(&mut held, false).unwrap();
    let mut wanted = other.open("file").unwrap();
    assert_eq!(other.lock(&mut wanted, false), Err(DENIED));

    // By the second in which a server began its clients are told from those of the next.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let began = second();
    wait::until("the second is over", || second() > began);
    servers.power_off("a");
    servers.failover(&servers.lab.b, &["promote"]).ok();
    let (c, since) = (&servers.lab.c, Instant::now());
    assert_eq!(Client::server(c), server);
    other.reconnect(c);
    other.introduce();
    // The next server waits for those whom the first one knew: it has found that on the volume.
    assert_eq!(other.open("file").err(), Some(GRACE));
    holder.reconnect(c);
    assert_eq!(holder.renew(), Err(STALE_CLIENT));
    holder.introduce();
    assert_eq!(holder.lease_s(), 10);
    let mut held = holder.open_again(&held.handle).unwrap();
    assert_eq!(holder.lock(&mut held, false), Err(GRACE));
    holder.lock(&mut held, true).unwrap();

    let mut wanted = Err(GRACE);
    wait::until("the grace is over", || {
        holder.renew().unwrap();
        wanted = other.open("file");
        wanted.as_ref().err() != Some(&GRACE)
    });
    println!("{:.1?} after the promotion an open is granted that was not there before", since.elapsed());
    assert_eq!(other.lock(&mut wanted.unwrap(), false), Err(DENIED));
}
