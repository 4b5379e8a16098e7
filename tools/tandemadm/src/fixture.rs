//! Snapshots for the tests.

use std::collections::BTreeMap;

use tandem_control::{
    BlockDeviceSpec, DeviceDriver, HandlersSpec, NodeSpec, PathSpec, ResourceSpec, ResourceStatus, VolumeSpec,
};
use tandem_core::config::{Options, Protocol};
use tandem_core::generation::{Generations, HISTORY_SLOTS};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{
    PeerStatus, PeerVolumeStatus, ResyncProgress, ResyncSuspended, Status, Suspended, VolumeStatus,
};
use tandem_core::units::NodeId;

/// `r0`, Primary on alpha, connected to bravo, nothing to do.
pub(crate) fn connected() -> ResourceStatus {
    let spec = spec();
    ResourceStatus {
        used_paths: spec.paths.clone(),
        disk_failure: None,
        spec,
        engine: Status {
            resource: "r0".into(),
            node: NodeId(0),
            role: Role::Primary,
            disk: DiskState::UpToDate,
            protocol: Protocol::C,
            write_ordering: 'f',
            size_bytes: 1 << 20,
            volumes: Vec::new(),
            pieces: Vec::new(),
            disk_read_bytes: 0,
            disk_written_bytes: 0,
            bitmap_writes: 0,
            activity_log_writes: 0,
            activity_log_suspended: false,
            local_pending: 0,
            client_pending: 0,
            epochs: 0,
            suspended: Suspended::default(),
            quorum: true,
            openers: Vec::new(),
            generations: Generations { current: 0x4B0F, history: [0; HISTORY_SLOTS] },
            peers: vec![PeerStatus {
                id: NodeId(1),
                name: "bravo".into(),
                connection: ConnectionState::Connected,
                replication: ReplicationState::Established,
                role: Role::Secondary,
                disk: DiskState::UpToDate,
                standalone_reason: None,
                differing_options: Vec::new(),
                sent_bytes: 0,
                received_bytes: 0,
                pending: 0,
                unacked: 0,
                congested: false,
                in_flight_bytes: 0,
                resync_in_flight_bytes: 0,
                out_of_sync_bytes: 0,
                resync_suspended: ResyncSuspended::default(),
                resync: None,
                volumes: Vec::new(),
            }],
        },
    }
}

/// The same with a volume 1 of 512 KiB.
pub(crate) fn two_volumes() -> ResourceStatus {
    let mut status = connected();
    let first = &status.spec.volume;
    let second = VolumeSpec { number: 1, minor: 1, device: "/dev/drbd1".into(), ..first.clone() };
    status.spec.more_volumes.push(second);
    let volume = |size_bytes| VolumeStatus { size_bytes, ..VolumeStatus::default() };
    status.engine.size_bytes = 4608 << 10;
    status.engine.volumes = vec![volume(1 << 20), volume(512 << 10)];
    status.engine.peers[0].volumes = vec![PeerVolumeStatus::default(); 2];
    status
}

/// What bravo looks like once it is gone.
pub(crate) fn disconnect(status: &mut ResourceStatus, state: ConnectionState) {
    for peer in &mut status.engine.peers {
        peer.connection = state;
        peer.replication = ReplicationState::Off;
        peer.role = Role::Unknown;
        peer.disk = DiskState::DUnknown;
    }
}

/// A resync of `total` bytes of which `left` are left.
pub(crate) fn resync(total: u64, left: u64) -> ResyncProgress {
    ResyncProgress {
        total_bytes: total,
        left_bytes: left,
        elapsed_ms: 1000,
        recent_bytes_per_s: 100,
        average_bytes_per_s: 100,
        ..ResyncProgress::default()
    }
}

/// `r0` between alpha and bravo.
pub(crate) fn spec() -> ResourceSpec {
    let node = |id, name: &str| NodeSpec { id: NodeId(id), name: name.into() };
    let end = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    ResourceSpec {
        name: "r0".into(),
        node: node(0, "alpha"),
        peers: vec![node(1, "bravo")],
        paths: vec![PathSpec { peer: NodeId(1), local: end(7788), remote: end(7789) }],
        volume: VolumeSpec {
            number: 0,
            minor: 0,
            device: "/dev/drbd0".into(),
            disk: "/dev/null".into(),
            meta_disk: None,
            size_bytes: None,
        },
        more_volumes: Vec::new(),
        undo_log: None,
        options: Options::default(),
        handlers: HandlersSpec {
            commands: BTreeMap::new(),
            limit_ms: 60_000,
            config_file: "/etc/tandem.conf".into(),
        },
        resync_after: None,
        connect_interval_ms: 10_000,
        nbd_listen: None,
        block_device: BlockDeviceSpec { driver: DeviceDriver::None, away_limit_ms: 0 },
    }
}
