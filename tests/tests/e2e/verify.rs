//! Online verify between real daemons: damage behind the daemon's back is found, reported and repaired.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tandem_core::state::ReplicationState;

use crate::handlers::Scripts;
use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;

const BLOCK: u64 = 4096;

fn setup() -> Setup {
    Setup { net: "verify-alg sha256;", ..Setup::default() }
}

/// The node's disk changes the first bytes of a block by itself.
fn damage(node: &Node, block: u64) {
    let disk = File::options().write(true).open(&node.disk).unwrap();
    disk.write_all_at(b"rotten", block * BLOCK).unwrap();
    disk.sync_all().unwrap();
}

/// The device holds data, everywhere.
fn fill(pair: &Pair) {
    let mut client = pair.alpha.client().unwrap();
    client.write(0, &Random::new(5).bytes(16 << 20), true).unwrap();
}

fn out_of_sync_kib(node: &Node) -> u64 {
    node.peer().unwrap().out_of_sync_bytes / 1024
}

/// Verifies, and waits until both nodes know of the end; what is out of sync then.
fn verify(pair: &Pair, node: &Node, more: &[&str]) -> u64 {
    let ends = || pair.nodes().map(|node| node.log().matches("Online verify done").count());
    let before = ends();
    node.adm(&[["verify", RESOURCE].as_slice(), more].concat()).ok();
    wait::until("the verify ends", || ends().iter().zip(before).all(|(now, before)| *now > before));
    out_of_sync_kib(node)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn damage_is_found_reported_and_resynced_at_the_next_connection() {
    let scripts = Scripts::with(&["out-of-sync"], setup());
    let pair = &scripts.pair;
    let Pair { alpha, bravo, .. } = pair;
    for node in ["alpha", "bravo"] {
        scripts.write(node, "out-of-sync", "echo $DRBD_RESOURCE >> $0.out");
    }
    pair.bring_up();
    fill(pair);
    assert_eq!(verify(pair, alpha, &[]), 0);
    assert_eq!(scripts.written("alpha", "out-of-sync"), "");
    for block in [99, 1340, 1341, 3980] {
        damage(bravo, block);
    }
    assert_eq!(verify(pair, alpha, &[]), 16);
    for node in pair.nodes() {
        let log = node.log();
        for found in ["start=792, size=8", "start=10720, size=16", "start=31840, size=8"] {
            assert!(log.contains(&format!("Out of sync: {found} (sectors)")), "{}: {found}", node.name);
        }
        assert!(log.contains("Online verify found 4 4k block out of sync!"), "{}", node.name);
    }
    wait::until("the handler has run", || scripts.written("alpha", "out-of-sync") == "r0\n");
    assert!(alpha.adm(&["status", "--json", RESOURCE]).ok().stdout.contains("\"out-of-sync\": 16"));

    let before = bravo.peer().unwrap().received_bytes;
    bravo.adm(&["disconnect", RESOURCE]).ok();
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(bravo.peer().unwrap().received_bytes - before, 4 * BLOCK);
    pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_part_is_verified() {
    let pair = Pair::synced(setup());
    fill(&pair);
    damage(&pair.bravo, 100);
    damage(&pair.bravo, 2000);
    assert_eq!(verify(&pair, &pair.alpha, &["--start=4M", "--stop=12M"]), 4);
    assert_eq!(verify(&pair, &pair.bravo, &["--start=0", "--stop=4M"]), 8);
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn damage_is_repaired_at_once_from_the_primary_or_from_the_node_that_is_named() {
    let pair = Pair::synced(setup());
    let Pair { alpha, bravo, .. } = &pair;
    fill(&pair);
    damage(bravo, 77);
    alpha.adm(&["verify", "--repair", RESOURCE]).ok();
    let repaired = |node: &Node, what: &str| {
        wait::until("the repair is done", || node.log().matches("Resync done").count() > 1);
        pair.wait_healed();
        assert_ne!(&node.disk_bytes(16 << 20)[77 * 4096..][..6], b"rotten", "{what}");
        pair.assert_identical();
    };
    repaired(bravo, "the Primary's copy is right");
    alpha.adm(&["secondary", RESOURCE]).ok();
    damage(alpha, 77);
    alpha.adm(&["verify", "--repair", "--from", "bravo", RESOURCE]).ok();
    repaired(alpha, "bravo's copy is right");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_verify_needs_a_digest_and_a_connection() {
    let pair = Pair::synced(Setup::default());
    pair.alpha.adm(&["verify", RESOURCE]).refused(11, "(-14) Need a verify algorithm to start online verify");
    pair.bravo.adm(&["disconnect", RESOURCE]).ok();
    let state = pair.alpha.peer().unwrap().replication;
    assert_eq!(state, ReplicationState::Off);
    pair.alpha.adm(&["verify", RESOURCE]).refused(11, "(-1");
}
