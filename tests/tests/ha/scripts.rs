//! Hooks that are slow and hang, while UCARP goes on electing; a client writes all the time.

use std::time::Instant;

use nfs_failover::health::Phase;

use crate::host::Host;
use crate::site::{Decider, Site};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ha");

#[test]
#[ignore = "needs root, ucarp, nfs-ganesha, libnfs-dev and the release binaries"]
fn a_slow_down_is_waited_for_and_an_up_that_hangs_is_given_up() {
    let hooks = format!("hooks {{ start {FOLDER}/hook-start; stop {FOLDER}/hook-stop; }}");
    let (site, client) = Site::serving_with(Decider::Ucarp, &hooks);
    let [a, b] = site.servers.hosts();

    // The other node is elected long before this one is down.
    let since = Instant::now();
    has(a, "stop-hangs", true);
    a.signal("ucarp", "USR2");
    site.wait_elected(b, since);
    site.wait_phase(b, Phase::Promoting);
    site.wait_phase(a, Phase::Demoting);
    has(a, "stop-hangs", false);
    site.wait_up(b);
    site.wait_down(a);
    site.wait_goes_on(&client);

    // Whoever was elected hangs, and is not wanted any more.
    let since = Instant::now();
    has(a, "start-hangs", true);
    b.signal("ucarp", "USR2");
    site.wait_elected(a, since);
    site.wait("it hangs", || a.run("pgrep", &["hook-start"]).code == Some(0));
    site.wait_down(b);
    a.signal("ucarp", "USR2");
    site.wait_down(a);
    assert_ne!(a.run("pgrep", &["hook-start"]).code, Some(0), "it was left behind");
    site.wait_up(b);
    site.wait_goes_on(&client);
    site.watch.expect_one_mount();
    site.expect_all(client);
}

/// Whether hooks on a host hang.
fn has(host: &Host, what: &str, hangs: bool) {
    host.run(if hangs { "touch" } else { "rm" }, &[&format!("/run/{what}")]).ok();
}
