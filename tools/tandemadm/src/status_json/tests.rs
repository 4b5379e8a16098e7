//! Golden texts of `status --json`.

use insta::assert_snapshot;
use serde_json::Value;
use tandem_core::state::ReplicationState;
use tandem_core::status::{ResyncProgress, Stretch, VerifyPosition};

use super::*;
use crate::fixture;

#[test]
fn nothing_is_two_brackets() {
    assert_eq!(resources(&[]), "[\n]\n");
}

/// The keys and their types are those of a sample that a user of drbdsetup has sent to the makers of
/// ha_cluster_exporter, and of drbdsetup's newer releases.
#[test]
fn every_key_of_drbdsetup_is_there() {
    assert_snapshot!(resources(&[fixture::connected()]), @r#"
    [
      {
        "name": "r0",
        "node-id": 0,
        "role": "Primary",
        "suspended": false,
        "suspended-user": false,
        "suspended-no-data": false,
        "suspended-fencing": false,
        "suspended-quorum": false,
        "force-io-failures": false,
        "write-ordering": "flush",
        "devices": [
          {
            "volume": 0,
            "minor": 0,
            "disk-state": "UpToDate",
            "client": false,
            "open": false,
            "quorum": true,
            "size": 1024,
            "read": 0,
            "written": 0,
            "al-writes": 0,
            "bm-writes": 0,
            "upper-pending": 0,
            "lower-pending": 0
          }
        ],
        "connections": [
          {
            "peer-node-id": 1,
            "name": "bravo",
            "connection-state": "Connected",
            "congested": false,
            "peer-role": "Secondary",
            "tls": false,
            "ap-in-flight": 0,
            "rs-in-flight": 0,
            "paths": [
              {
                "this_host": {
                  "address": "127.0.0.1",
                  "port": 7788,
                  "family": "ipv4"
                },
                "remote_host": {
                  "address": "127.0.0.1",
                  "port": 7789,
                  "family": "ipv4"
                },
                "established": true
              }
            ],
            "peer_devices": [
              {
                "volume": 0,
                "replication-state": "Established",
                "peer-disk-state": "UpToDate",
                "peer-client": false,
                "resync-suspended": "no",
                "received": 0,
                "sent": 0,
                "out-of-sync": 0,
                "pending": 0,
                "unacked": 0,
                "has-sync-details": false,
                "has-online-verify-details": false,
                "percent-in-sync": 100.0
              }
            ],
            "standalone-reason": null
          }
        ]
      }
    ]
    "#);
}

fn peer_device(status: &ResourceStatus) -> Value {
    let value: Value = serde_json::from_str(&resources(std::slice::from_ref(status))).unwrap();
    let mut of_peer = value[0]["connections"][0]["peer_devices"][0].clone();
    for usual in ["volume", "peer-client", "received", "sent", "pending", "unacked", "resync-suspended"] {
        of_peer.as_object_mut().unwrap().remove(usual);
    }
    of_peer
}

#[test]
fn a_resync_and_a_verify_have_their_details() {
    let mut status = fixture::connected();
    let peer = &mut status.engine.peers[0];
    peer.replication = ReplicationState::SyncSource;
    peer.out_of_sync_bytes = 256 << 10;
    let resync = ResyncProgress {
        total_bytes: 1 << 20,
        left_bytes: 256 << 10,
        equal_bytes: 8 << 10,
        elapsed_ms: 4000,
        paused_ms: 1000,
        recent: Stretch { ms: 3000, bytes: 768 << 10 },
        latest: Stretch { ms: 1000, bytes: 128 << 10 },
        want_bytes_per_s: 5 << 20,
        ..ResyncProgress::default()
    };
    peer.resync = Some(resync);
    assert_snapshot!(format!("{:#}", peer_device(&status)), @r#"
    {
      "db/dt [MiB/s]": 0.25,
      "db0/dt0 [MiB/s]": 0.25,
      "db1/dt1 [MiB/s]": 0.13,
      "estimated-seconds-to-finish": 2,
      "has-online-verify-details": false,
      "has-sync-details": true,
      "out-of-sync": 256,
      "peer-disk-state": "UpToDate",
      "percent-in-sync": 75.0,
      "percent-resync-done": 75.0,
      "replication-state": "SyncSource",
      "rs-db0-sectors": 1536,
      "rs-db1-sectors": 256,
      "rs-dt-start-ms": 4000,
      "rs-dt0-ms": 3000,
      "rs-dt1-ms": 1000,
      "rs-failed": 0,
      "rs-paused-ms": 1000,
      "rs-same-csum": 16,
      "rs-total": 2048,
      "want": 5.0
    }
    "#);
    let position = VerifyPosition { start_bytes: 4096, stop_bytes: 1 << 20, reached_bytes: 8192 };
    let latest = Stretch { ms: 1000, bytes: 0 };
    status.engine.peers[0].replication = ReplicationState::VerifyT;
    status.engine.peers[0].resync = Some(ResyncProgress { verify: Some(position), latest, ..resync });
    let of_peer = peer_device(&status);
    assert_eq!(of_peer["has-online-verify-details"], true);
    assert_eq!(of_peer["estimated-seconds-to-finish"], 987_654_321);
    let verify = ["ov-start-sector", "ov-stop-sector", "ov-position", "ov-left", "ov-skipped"];
    assert_eq!(verify.map(|key| of_peer[key].as_u64().unwrap()), [8, 2048, 16, 512, 0]);
    assert_eq!(of_peer["rs-failed"], Value::Null);
}

#[test]
fn every_volume_has_its_numbers() {
    let mut status = fixture::two_volumes();
    status.engine.activity_log_writes = 9;
    status.engine.volumes[1].disk_written_bytes = 3 << 10;
    status.engine.peers[0].volumes[1].out_of_sync_bytes = 128 << 10;
    let value: Value = serde_json::from_str(&resources(&[status])).unwrap();
    let devices = value[0]["devices"].as_array().unwrap();
    let of = |key: &str| devices.iter().map(|d| d[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!((of("volume"), of("minor")), (vec![0, 1], vec![0, 1]));
    assert_eq!((of("size"), of("written"), of("al-writes")), (vec![1024, 512], vec![0, 3], vec![9, 0]));
    let peer_devices = value[0]["connections"][0]["peer_devices"].as_array().unwrap();
    let in_sync: Vec<f64> = peer_devices.iter().map(|d| d["percent-in-sync"].as_f64().unwrap()).collect();
    assert_eq!(in_sync, [100.0, 75.0]);
}
