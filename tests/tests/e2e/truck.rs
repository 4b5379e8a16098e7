//! `new-current-uuid` between real daemons, by the steps of docs/truck.md.

use std::fs;

use tandem_core::state::DiskState;

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_copy_travels_by_truck() {
    const BLOCK: usize = 4096;
    let pair = Pair::new(Setup::default());
    let Pair { alpha, bravo, .. } = &pair;
    pair.create_md();
    alpha.adm(&["up", RESOURCE]).ok();
    alpha.adm(&["primary", "--force", RESOURCE]).ok();
    let mut client = alpha.client().unwrap();
    let mut random = Random::new(11);
    client.write(0, &random.bytes(8 << 20), true).unwrap();
    alpha.adm(&["new-current-uuid", RESOURCE]).refused(10, "(151) Need to be StandAlone");
    alpha.adm(&["disconnect", RESOURCE]).ok();
    alpha.adm(&["new-current-uuid", "--clear-bitmap", RESOURCE]).ok();
    assert_eq!(alpha.peer().unwrap().out_of_sync_bytes, 0);
    client.write(3 << 20, &random.bytes(BLOCK), true).unwrap();
    fs::copy(&alpha.disk, &bravo.disk).unwrap();
    client.write(20 << 20, &random.bytes(2 * BLOCK), true).unwrap();
    alpha.adm(&["new-current-uuid", RESOURCE]).ok();
    client.write(5 << 20, &random.bytes(BLOCK), true).unwrap();

    bravo.adm(&["up", RESOURCE]).refused(10, "take");
    bravo.adm(&["down", RESOURCE]).ok();
    bravo.adm(&["adopt-md", "--force", RESOURCE]).ok();
    bravo.adm(&["up", RESOURCE]).ok();
    assert_eq!(bravo.disk_state(), DiskState::Inconsistent);
    alpha.adm(&["connect", RESOURCE]).ok();
    pair.wait_healed();
    let received = bravo.peer().unwrap().received_bytes;
    assert_eq!(received, 4 * BLOCK as u64, "only what was written since the first new-current-uuid travels");
    drop(client);
    pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn the_initial_sync_is_skipped() {
    let pair = Pair::new(Setup::default());
    pair.create_md();
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    wait::until("both are connected", || {
        pair.bravo.peer().is_some_and(|p| p.disk == DiskState::Inconsistent)
    });
    pair.bravo.adm(&["new-current-uuid", "--clear-bitmap", RESOURCE]).ok();
    pair.wait_healed();
    assert_eq!(pair.bravo.peer().unwrap().received_bytes, 0);
    pair.alpha.adm(&["primary", RESOURCE]).ok();
    pair.alpha.client().unwrap().write(4096, &[7; 4096], true).unwrap();
    pair.wait_healed();
    pair.assert_identical();
    for node in pair.nodes() {
        node.adm(&["down", RESOURCE]).ok();
    }
    // Without the daemon, on the disk.
    pair.bravo.adm(&["invalidate", RESOURCE]).ok();
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    pair.wait_healed();
    let received = pair.bravo.peer().unwrap();
    assert!(received.received_bytes > 0, "all of the disk is had anew");
    pair.assert_identical();
}
