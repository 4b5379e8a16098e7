//! `status --json` with drbdsetup's keys (reference/drbd.md, C5), those that Tandem has values for. Sizes are in KiB.

use serde_json::{Value, json};
use tandem_control::ResourceStatus;
use tandem_core::status::PeerStatus;

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
        "suspended-quorum": false,
        "write-ordering": match engine.write_ordering {
            'f' => "flush",
            'd' => "drain",
            _ => "none",
        },
        "devices": [device(status)],
        "connections": engine.peers.iter().map(|peer| connection(status, peer)).collect::<Vec<_>>(),
    })
}

fn device(status: &ResourceStatus) -> Value {
    let engine = &status.engine;
    json!({
        "volume": status.spec.volume.number,
        "minor": status.spec.volume.minor,
        "disk-state": engine.disk,
        "client": false,
        "open": !engine.openers.is_empty(),
        "quorum": true,
        "size": engine.size_bytes / 1024,
        "read": engine.disk_read_bytes / 1024,
        "written": engine.disk_written_bytes / 1024,
        "al-writes": engine.activity_log_writes,
        "bm-writes": engine.bitmap_writes,
        "upper-pending": engine.client_pending,
        "lower-pending": engine.local_pending,
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
        "peer_devices": [peer_device(status, peer)],
    })
}

fn peer_device(status: &ResourceStatus, peer: &PeerStatus) -> Value {
    let size_bytes = status.engine.size_bytes;
    let in_sync = match size_bytes {
        0 => 100.0,
        _ => 100.0 - peer.out_of_sync_bytes.min(size_bytes) as f64 * 100.0 / size_bytes as f64,
    };
    let mut value = json!({
        "volume": status.spec.volume.number,
        "replication-state": peer.replication,
        "peer-disk-state": peer.disk,
        "peer-client": false,
        "resync-suspended": peer.resync_suspended.to_string(),
        "received": peer.received_bytes / 1024,
        "sent": peer.sent_bytes / 1024,
        "out-of-sync": peer.out_of_sync_bytes / 1024,
        "pending": peer.pending,
        "unacked": peer.unacked,
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
