//! What the service knew at one moment: of its plans, and of the replicas.

use serde::{Deserialize, Serialize};
use tandem_control::ResourceStatus;
use tandem_core::state::{ConnectionState, DiskState, Role};

use crate::service::Wish;

/// One moment of one machine.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Every service of the configuration.
    pub services: Vec<ServiceView>,
    /// Every resource that is up, or why tandemd could not be asked.
    pub resources: Result<Vec<ResourceStatus>, String>,
}

impl Snapshot {
    /// The resource of this name, if it is up.
    pub fn resource(&self, name: &str) -> Option<&ResourceStatus> {
        self.resources.as_ref().ok()?.iter().find(|s| s.engine.resource == name)
    }
}

/// How far a service has come on this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Not looked at yet.
    #[default]
    Unknown,
    /// Nothing of it is here.
    Down,
    /// A promotion is under way.
    Promoting,
    /// All of it is here.
    Up,
    /// A demotion is under way.
    Demoting,
}

/// One service on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// The replicated resource under it.
    pub resource: String,
    /// How far it has come.
    pub phase: Phase,
    /// The newest wish.
    pub wish: Option<Wish>,
    /// The server answered the last time it was asked.
    pub server_answers: bool,
    /// A demotion was impossible, and why: until that is cleared, the peer must fence this node before it serves.
    pub must_fence: Option<String>,
    /// What keeps it from being promoted, or made it step down.
    pub trouble: Option<String>,
    /// After a setback: for a while nothing is promoted, unless by hand.
    #[serde(default)]
    pub held: bool,
}

/// What a replica is worth, in a few words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// This node's role.
    pub role: Role,
    /// This node's disk.
    pub disk: DiskState,
    /// Clients' requests wait.
    pub suspended: bool,
    /// The worst of the connections.
    pub connection: Option<ConnectionState>,
    /// The worst of the peers' disks.
    pub peer_disk: Option<DiskState>,
    /// What is marked as different, at the most of all peers.
    pub out_of_sync_bytes: u64,
}

impl Replica {
    /// In short.
    pub fn of(status: &ResourceStatus) -> Replica {
        let engine = &status.engine;
        Replica {
            role: engine.role,
            disk: engine.disk,
            suspended: engine.suspended.any(),
            connection: engine.peers.iter().map(|p| p.connection).min(),
            peer_disk: engine.peers.iter().map(|p| p.disk).min(),
            out_of_sync_bytes: engine.peers.iter().map(|p| p.out_of_sync_bytes).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Statuses for tests.

    use serde_json::json;

    use super::*;

    /// A Secondary that lacks nothing, of resource r0 with one peer.
    pub(crate) fn secondary() -> ResourceStatus {
        let node = |id: u8, name: &str| json!({ "id": id, "name": name });
        let status = json!({
            "spec": {
                "name": "r0", "node": node(0, "alpha"), "peers": [node(1, "bravo")],
                "volume": { "number": 0, "minor": 0, "device": "/dev/drbd0", "disk": "/dev/sda", "meta_disk": null, "size_bytes": null },
                "undo_log": null,
                "options": tandem_core::config::Options::default(),
                "handlers": { "commands": {}, "limit_ms": 0, "config_file": "/etc/tandem.conf" },
                "resync_after": null, "connect_interval_ms": 10_000, "nbd_listen": null,
                "block_device": { "driver": "auto", "away_limit_ms": 600_000 },
            },
            "engine": {
                "resource": "r0", "node": 0, "role": "Secondary", "disk": "UpToDate", "protocol": "C",
                "write_ordering": "f", "size_bytes": 1 << 20, "disk_read_bytes": 1, "disk_written_bytes": 2,
                "bitmap_writes": 3, "activity_log_writes": 4, "local_pending": 5, "client_pending": 6, "epochs": 0,
                "suspended": { "user": false, "fencing": false, "quorum": false }, "quorum": true, "openers": [],
                "generations": tandem_core::generation::Generations::NONE,
                "peers": [{
                    "id": 1, "name": "bravo", "connection": "Connected", "replication": "Established",
                    "role": "Secondary", "disk": "UpToDate", "standalone_reason": null, "sent_bytes": 7,
                    "received_bytes": 8, "pending": 0, "unacked": 0, "out_of_sync_bytes": 0,
                    "resync_suspended": { "user": false, "peer": false, "dependency": false }, "resync": null,
                }],
            },
        });
        serde_json::from_value(status).unwrap()
    }

    pub(crate) fn primary() -> ResourceStatus {
        let mut status = secondary();
        status.engine.role = Role::Primary;
        status
    }

    /// Service nfs on resource r0.
    pub(crate) fn snapshot(phase: Phase, status: ResourceStatus) -> Snapshot {
        let view = ServiceView {
            name: "nfs".into(),
            resource: "r0".into(),
            phase,
            server_answers: phase == Phase::Up,
            ..ServiceView::default()
        };
        Snapshot { services: vec![view], resources: Ok(vec![status]) }
    }
}
