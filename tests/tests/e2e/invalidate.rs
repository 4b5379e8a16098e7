//! `invalidate` and `invalidate-remote` between real daemons: one copy is given up and had anew.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tandem_core::state::DiskState;

use crate::node::{Node, RESOURCE};
use crate::pair::{Pair, Setup};
use crate::random::Random;

/// A copy that differs, and nobody knows.
fn damaged() -> Pair {
    let pair = Pair::synced(Setup::default());
    pair.alpha.client().unwrap().write(0, &Random::new(9).bytes(8 << 20), true).unwrap();
    let disk = File::options().write(true).open(&pair.bravo.disk).unwrap();
    disk.write_all_at(&[0xee; 4096], 3 << 20).unwrap();
    disk.sync_all().unwrap();
    pair
}

fn received(node: &Node) -> u64 {
    node.peer().map_or(0, |peer| peer.received_bytes)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_secondary_has_its_copy_anew() {
    let pair = damaged();
    pair.alpha.adm(&["invalidate", RESOURCE]).refused(11, "(-18)");
    let before = received(&pair.bravo);
    pair.bravo.adm(&["invalidate", RESOURCE]).ok();
    pair.wait_healed();
    assert!(received(&pair.bravo) - before >= 8 << 20);
    pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_primary_replaces_the_peers_copy() {
    let pair = damaged();
    pair.alpha.adm(&["invalidate-remote", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    pair.bravo.adm(&["disconnect", RESOURCE]).ok();
    pair.alpha.adm(&["invalidate-remote", RESOURCE]).refused(11, "(-15) State change requires a connection");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn without_a_connection_it_takes_effect_at_the_next() {
    let pair = damaged();
    let Pair { alpha, bravo, .. } = &pair;
    bravo.adm(&["disconnect", RESOURCE]).ok();
    bravo.adm(&["invalidate", RESOURCE]).ok();
    assert_eq!(bravo.disk_state(), DiskState::Inconsistent);
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2) Need access to UpToDate data");
    bravo.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    // What is not marked is not sent.
    let before = received(bravo);
    bravo.adm(&["invalidate", "--reset-bitmap=no", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(received(bravo), before);
    alpha.adm(&["status", RESOURCE]).ok();
}
