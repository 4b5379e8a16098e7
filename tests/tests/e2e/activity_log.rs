//! The activity log with real daemons: what a kill -9 of the primary marks.

use crate::node::RESOURCE;
use crate::pair::{Pair, Setup};
use crate::wait;

const EXTENT_BYTES: u64 = 4 << 20;

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn a_killed_primary_resyncs_its_hot_extents() {
    let pair = Pair::synced(Setup { disk_bytes: [64 << 20; 2], ..Setup::default() });
    let Pair { alpha, bravo, .. } = &pair;
    let mut client = alpha.client().unwrap();
    for extent in [0, 5] {
        client.write(extent * EXTENT_BYTES, &[0x5a; 4096], false).unwrap();
    }
    let proc_drbd = alpha.run.path().join("proc/drbd");
    wait::until("the status file counts transactions", || {
        !std::fs::read_to_string(&proc_drbd).unwrap().contains(" al:0 ")
    });
    alpha.kill();
    bravo.kill();
    alpha.adm(&["up", RESOURCE]).ok();
    assert!(alpha.log().contains("Marked additional 8192 KB as out-of-sync based on AL."), "{}", alpha.log());
    assert_eq!(alpha.peer().map(|p| p.out_of_sync_bytes), Some(2 * EXTENT_BYTES));
    bravo.adm(&["up", RESOURCE]).ok();
    pair.wait_healed();
    pair.assert_identical();
}

#[test]
#[ignore = "needs the release daemons: cargo xtask test"]
fn few_extents_and_long_zeroes() {
    let pair = Pair::synced(Setup {
        disk_bytes: [512 << 20; 2],
        statements: "disk { al-extents 67; }".into(),
        ..Setup::default()
    });
    let mut client = pair.alpha.client().unwrap();
    for extent in 0..100 {
        client.write(extent * EXTENT_BYTES, &[0x5a; 4096], false).unwrap();
    }
    client.zero(EXTENT_BYTES, 400 << 20).unwrap();
    client.flush().unwrap();
    drop(client);
    let status = pair.alpha.status().unwrap();
    assert!(status.activity_log_writes >= 100 - 67, "{status:?}");
    assert_eq!(pair.alpha.disk_bytes(EXTENT_BYTES * 2)[EXTENT_BYTES as usize..][..4096], [0; 4096]);
    pair.assert_identical();
}
