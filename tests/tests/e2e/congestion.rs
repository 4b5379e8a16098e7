//! `on-congestion pull-ahead` on a link that is too slow: the Primary goes ahead, the Secondary catches up.

use tandem_core::config::Protocol;
use tandem_core::state::{DiskState, ReplicationState, Role};

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_primary_pulls_ahead_of_a_slow_link_and_the_secondary_catches_up() {
    let pair = Pair::synced(Setup {
        protocol: Protocol::A,
        net: "on-congestion pull-ahead; congestion-fill 512K; ping-timeout 50;",
        own_networks: true,
        ..Setup::default()
    });
    let Pair { alpha, bravo, .. } = &pair;
    pair.cable().slow_down(0, 4);
    let mut client = alpha.client().unwrap();
    let mut random = Random::new(21);
    let replication = |node: &crate::node::Node| node.peer().map(|p| p.replication);
    let mut written = 0;
    wait::until("the Primary is ahead", || {
        client.write(written % (16 << 20), &random.bytes(256 << 10), false).unwrap();
        written += 256 << 10;
        replication(alpha) == Some(ReplicationState::Ahead)
    });
    assert_eq!(bravo.disk_state(), DiskState::Outdated);
    let status = alpha.adm(&["status", RESOURCE]).ok().stdout;
    assert!(
        status.contains("replication:Ahead") || replication(alpha) != Some(ReplicationState::Ahead),
        "{status}"
    );
    client.write(20 << 20, &random.bytes(64 << 10), false).unwrap();
    assert_eq!(alpha.role(), Role::Primary);
    pair.cable().speed_up(0);
    pair.wait_healed();
    for (node, state) in [(alpha, "Ahead"), (bravo, "Behind")] {
        assert!(node.log().contains(state), "{} was never {state}", node.name);
    }
    client.flush().unwrap();
    drop(client);
    pair.wait_healed();
    pair.assert_identical();
}
