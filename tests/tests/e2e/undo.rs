//! A source that dies for good in the middle of a resync: its target goes back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tandem_core::state::{DiskState, ReplicationState};

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;

const BYTES: usize = 16 << 20;

/// bravo was in sync, then alone, and is being resynced, slowly; what it held before.
fn interrupted() -> (Pair, Vec<u8>) {
    let statement = "resync-undo \"UNDO\";";
    let mut pair = Pair::new(Setup {
        statements: format!("disk {{ {statement} c-plan-ahead 0; resync-rate 4M; c-min-rate 4M; }}"),
        ..Setup::default()
    });
    // Each node has a file of its own, as if they were on two machines.
    let text = fs::read_to_string(&pair.alpha.config).unwrap();
    for node in [&mut pair.alpha, &mut pair.bravo] {
        let own = node.disk.with_extension("undo");
        node.config = node.disk.with_extension("res");
        fs::write(&node.config, text.replace("UNDO", &own.display().to_string())).unwrap();
    }
    pair.create_md();
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    wait::until("both are connected", || {
        pair.bravo.peer().is_some_and(|p| p.disk == DiskState::Inconsistent)
    });
    pair.alpha.adm(&["new-current-uuid", "--clear-bitmap", RESOURCE]).ok();
    pair.wait_healed();
    pair.alpha.adm(&["primary", RESOURCE]).ok();
    let Pair { alpha, bravo, .. } = &pair;
    let mut client = alpha.client().unwrap();
    let mut random = Random::new(31);
    client.write(0, &random.bytes(BYTES), true).unwrap();
    bravo.adm(&["disconnect", RESOURCE]).ok();
    let before = bravo.disk_bytes(BYTES as u64);
    client.write(0, &random.bytes(BYTES), true).unwrap();
    bravo.adm(&["connect", RESOURCE]).ok();
    wait::until("the resync is under way", || {
        bravo.peer().is_some_and(|p| {
            p.replication == ReplicationState::SyncTarget && p.out_of_sync_bytes < (BYTES - (2 << 20)) as u64
        })
    });
    client.write(8 << 20, &random.bytes(64 << 10), true).unwrap();
    (pair, before)
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_target_goes_back_when_its_source_is_lost() {
    let (pair, before) = interrupted();
    let Pair { alpha, bravo, .. } = &pair;
    bravo.kill();
    alpha.kill();
    bravo.adm(&["up", RESOURCE]).ok();
    assert_eq!(bravo.disk_state(), DiskState::Inconsistent);
    bravo.adm(&["resync-undo", "--force", RESOURCE]).refused(11, "is up");
    bravo.adm(&["down", RESOURCE]).ok();
    bravo.adm(&["resync-undo", "--force", RESOURCE]).ok();
    assert!(bravo.disk_bytes(BYTES as u64) == before, "the image of before the resync");
    bravo.adm(&["resync-undo", "--force", RESOURCE]).refused(11, "nothing to undo");
    bravo.adm(&["up", RESOURCE]).ok();
    assert_eq!(bravo.disk_state(), DiskState::Outdated);
    bravo.adm(&["primary", RESOURCE]).refused(17, "(-2) Need access to UpToDate data");
    // The source is back after all.
    alpha.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    wait::until("the log is empty", || {
        fs::metadata(bravo.disk.with_extension("undo")).is_ok_and(|m| m.blocks() == 0)
    });
}
