//! Resync between real daemons: holes stay holes, equal blocks stay at home, a pause is a pause.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use tandem_core::state::ReplicationState;

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::random::Random;
use crate::wait;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_sparse_disk_is_resynced_to_a_sparse_disk() {
    const ISLAND_BYTES: usize = 64 << 10;
    let pair = Pair::new(Setup { disk_bytes: [256 << 20; 2], ..Setup::default() });
    pair.create_md();
    let disk = File::options().write(true).open(&pair.alpha.disk).unwrap();
    let mut random = Random::new(7);
    for island in 0..8 {
        disk.write_all_at(&random.bytes(ISLAND_BYTES), island * (30 << 20)).unwrap();
    }
    for node in pair.nodes() {
        node.adm(&["up", RESOURCE]).ok();
    }
    pair.alpha.adm(&["primary", "--force", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    // The islands come in requests of a megabyte, besides the metadata.
    let allocated_bytes = fs::metadata(&pair.bravo.disk).unwrap().blocks() * 512;
    assert!(allocated_bytes < 10 << 20, "{allocated_bytes} bytes of a sparse file are allocated");
    let received_bytes = pair.bravo.peer().unwrap().received_bytes;
    assert!(received_bytes <= 9 << 20, "{received_bytes} bytes travelled");
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_paused_resync_by_checksums() {
    const BYTES: usize = 1 << 20;
    let pair = Pair::synced(Setup { net: "csums-alg sha256;", ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    let mut data = Random::new(3).bytes(BYTES);
    let mut client = alpha.client().unwrap();
    client.write(0, &data, true).unwrap();
    bravo.adm(&["pause-sync", RESOURCE]).ok();
    bravo.adm(&["pause-sync", RESOURCE]).refused(10, "(134) Sync-pause flag is already set");
    bravo.adm(&["disconnect", RESOURCE]).ok();
    data[5 * 4096] ^= 1;
    client.write(0, &data, true).unwrap();
    let before = bravo.peer().unwrap().received_bytes;
    bravo.adm(&["connect", RESOURCE]).ok();
    wait::until("the resync is paused", || {
        bravo.peer().is_some_and(|peer| peer.replication == ReplicationState::PausedSyncT)
    });
    let status = bravo.adm(&["status", RESOURCE]).ok().stdout;
    assert!(
        status.contains("replication:PausedSyncT") && status.contains("resync-suspended:user\n"),
        "{status}"
    );
    wait::until("the status file agrees", || {
        fs::read_to_string(alpha.run.proc_drbd())
            .is_ok_and(|file| file.contains("cs:PausedSyncS ") && file.contains(" r-p---\n"))
    });
    bravo.adm(&["resume-sync", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
    let received_bytes = bravo.peer().unwrap().received_bytes - before;
    assert_eq!(received_bytes, 4096, "one block differs");
    assert!(bravo.log().contains("had equal checksums, eliminated: 1020K"), "{}", bravo.log());
    bravo.adm(&["resume-sync", RESOURCE]).refused(10, "(135) Sync-pause flag is already cleared");
}
