//! `status --json` with drbdsetup's keys (reference/drbd.md, C5), those that Tandem has values for. Sizes are in KiB.

use serde_json::{Value, json};
use tandem_control::{ResourceStatus, VolumeSpec};
use tandem_core::status::{PeerStatus, PeerVolumeStatus, VolumeStatus};

use crate::status_text::percent_done;

/// All resources, with a newline at the end.
pub fn resources(all: &[ResourceStatus]) -> String {
    if all.is_empty() {
        return "[\n]\n".to_owned();
    }
    format!("{:#}\n", Value::Array(all.iter().map(resource).collect()))
}

fn resource(status: &ResourceStatus) -> Value {
    let engine = &status.engine;
    json!({
        "name": engine.resource,
        "node-id": engine.node,
        "role": engine.role,
        "suspended": engine.suspended.any(),
        "suspended-user": engine.suspended.user,
        "suspended-no-data": false,
        "suspended-fencing": engine.suspended.fencing,
        "suspended-quorum": engine.suspended.quorum,
        "write-ordering": match engine.write_ordering {
            'f' => "flush",
            'd' => "drain",
            _ => "none",
        },
        "devices": status.volumes().into_iter().enumerate()
            .map(|(i, (volume, of_volume))| device(status, volume, &of_volume, i == 0)).collect::<Vec<_>>(),
        "connections": engine.peers.iter().map(|peer| connection(status, peer)).collect::<Vec<_>>(),
    })
}

/// The metadata's writes count with the first volume, whose disk holds it.
fn device(status: &ResourceStatus, spec: &VolumeSpec, volume: &VolumeStatus, is_first: bool) -> Value {
    let engine = &status.engine;
    json!({
        "volume": spec.number,
        "minor": spec.minor,
        "disk-state": engine.disk,
        "client": false,
        "open": !volume.openers.is_empty(),
        "quorum": engine.quorum,
        "size": volume.size_bytes / 1024,
        "read": volume.disk_read_bytes / 1024,
        "written": volume.disk_written_bytes / 1024,
        "al-writes": if is_first { engine.activity_log_writes } else { 0 },
        "bm-writes": if is_first { engine.bitmap_writes } else { 0 },
        "upper-pending": volume.client_pending,
        "lower-pending": volume.local_pending,
    })
}

fn connection(status: &ResourceStatus, peer: &PeerStatus) -> Value {
    json!({
        "peer-node-id": peer.id,
        "name": peer.name,
        "connection-state": peer.connection,
        "congested": false,
        "peer-role": peer.role,
        "standalone-reason": peer.standalone_reason,
        "peer_devices": status.volumes().iter().zip(status.peer_volumes(peer))
            .map(|((_, volume), (spec, of_peer))| peer_device(spec, volume.size_bytes, peer, of_peer))
            .collect::<Vec<_>>(),
    })
}

/// The states are the same for all volumes, and so is how much of a resync is done.
fn peer_device(spec: &VolumeSpec, size_bytes: u64, peer: &PeerStatus, volume: PeerVolumeStatus) -> Value {
    let in_sync = match size_bytes {
        0 => 100.0,
        _ => 100.0 - volume.out_of_sync_bytes.min(size_bytes) as f64 * 100.0 / size_bytes as f64,
    };
    let mut value = json!({
        "volume": spec.number,
        "replication-state": peer.replication,
        "peer-disk-state": peer.disk,
        "peer-client": false,
        "resync-suspended": peer.resync_suspended.to_string(),
        "received": volume.received_bytes / 1024,
        "sent": volume.sent_bytes / 1024,
        "out-of-sync": volume.out_of_sync_bytes / 1024,
        "pending": volume.pending,
        "unacked": volume.unacked,
        "has-sync-details": peer.resync.is_some() && !peer.replication.is_verify(),
        "has-online-verify-details": peer.resync.is_some() && peer.replication.is_verify(),
        "percent-in-sync": in_sync,
    });
    if let Some(resync) = &peer.resync {
        value["percent-resync-done"] = json!(percent_done(resync));
        value["estimated-seconds-to-finish"] =
            json!(resync.left_bytes.checked_div(resync.recent_bytes_per_s));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

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

    #[test]
    fn nothing_is_two_brackets() {
        assert_eq!(resources(&[]), "[\n]\n");
    }

    #[test]
    fn monitors_find_drbdsetups_keys() {
        let mut status = fixture::connected();
        let peer = &mut status.engine.peers[0];
        peer.out_of_sync_bytes = 256 << 10;
        peer.resync = Some(fixture::resync(1000, 250));
        let value: Value = serde_json::from_str(&resources(&[status])).unwrap();
        let resource = &value[0];
        assert_eq!(resource["role"], "Primary");
        assert_eq!(resource["devices"][0]["disk-state"], "UpToDate");
        assert_eq!(resource["devices"][0]["size"], 1024);
        let peer_device = &resource["connections"][0]["peer_devices"][0];
        assert_eq!(peer_device["replication-state"], "Established");
        assert_eq!(peer_device["percent-in-sync"], 75.0);
        assert_eq!(peer_device["percent-resync-done"], 75.0);
        assert_eq!(peer_device["estimated-seconds-to-finish"], 2);
    }
}
