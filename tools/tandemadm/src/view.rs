//! What DRBD's tools show of a resource, part by part, in their words and units: KiB, and sectors in flight.
//!
//! Serialized, it is `status --json`; the text of `status` and the events are made of the same
//! parts. States are the resource's, so those of its volumes are equal.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use tandem_control::{Promotion, ResourceStatus, VolumeSpec};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{
    PeerStatus, PeerVolumeStatus, ResyncProgress, Stretch, Suspended, VerifyPosition, VolumeStatus,
};
use tandem_core::units::{NodeId, SECTOR_BYTES};

const KIB: u64 = 1 << 10;
const MIB: f64 = (1 << 20) as f64;
/// What is said to be left of a resync that does not move.
const NEVER_S: u64 = 987_654_321;

/// A resource on this node.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ResourceView {
    pub(crate) name: String,
    pub(crate) node_id: NodeId,
    pub(crate) role: Role,
    pub(crate) suspended: bool,
    #[serde(flatten)]
    pub(crate) why_suspended: SuspendedView,
    pub(crate) force_io_failures: bool,
    pub(crate) write_ordering: &'static str,
    pub(crate) devices: Vec<DeviceView>,
    pub(crate) connections: Vec<ConnectionView>,
    #[serde(skip)]
    pub(crate) promotion: Promotion,
}

/// Why clients' requests wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SuspendedView {
    suspended_user: bool,
    suspended_no_data: bool,
    suspended_fencing: bool,
    suspended_quorum: bool,
}

/// A volume on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DeviceView {
    pub(crate) volume: u16,
    pub(crate) minor: u32,
    /// Its disk, while that is in use.
    #[serde(skip)]
    pub(crate) backing_dev: Option<String>,
    pub(crate) disk_state: DiskState,
    pub(crate) client: bool,
    pub(crate) open: bool,
    pub(crate) quorum: bool,
    pub(crate) size: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) al_writes: u64,
    pub(crate) bm_writes: u64,
    pub(crate) upper_pending: u64,
    pub(crate) lower_pending: u64,
    #[serde(skip)]
    pub(crate) al_suspended: bool,
    /// Requests have to wait before they are begun. What the lower device cannot take is not read from its client.
    #[serde(skip)]
    pub(crate) blocked: bool,
}

/// A peer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ConnectionView {
    pub(crate) peer_node_id: NodeId,
    pub(crate) name: String,
    pub(crate) connection_state: ConnectionState,
    pub(crate) congested: bool,
    pub(crate) peer_role: Role,
    pub(crate) tls: bool,
    pub(crate) ap_in_flight: u64,
    pub(crate) rs_in_flight: u64,
    pub(crate) paths: Vec<PathView>,
    #[serde(rename = "peer_devices")]
    pub(crate) peer_devices: Vec<PeerDeviceView>,
    /// Not DRBD's.
    standalone_reason: Option<String>,
}

/// A way to a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PathView {
    pub(crate) this_host: Address,
    pub(crate) remote_host: Address,
    pub(crate) established: bool,
}

/// One end of a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Address {
    address: String,
    port: u16,
    family: &'static str,
}

/// A volume on a peer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PeerDeviceView {
    pub(crate) volume: u16,
    pub(crate) replication_state: ReplicationState,
    pub(crate) peer_disk_state: DiskState,
    pub(crate) peer_client: bool,
    pub(crate) resync_suspended: String,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) out_of_sync: u64,
    pub(crate) pending: u64,
    pub(crate) unacked: u64,
    has_sync_details: bool,
    has_online_verify_details: bool,
    percent_in_sync: f64,
    #[serde(flatten)]
    pub(crate) details: Option<SyncDetails>,
}

/// A resync or a verify under way. Two stretches of the last seconds tell how fast it goes: 0 is the longer one.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SyncDetails {
    pub(crate) rs_total: u64,
    pub(crate) rs_dt_start_ms: u64,
    pub(crate) rs_paused_ms: u64,
    pub(crate) rs_dt0_ms: u64,
    pub(crate) rs_db0_sectors: u64,
    pub(crate) rs_dt1_ms: u64,
    pub(crate) rs_db1_sectors: u64,
    #[serde(flatten)]
    pub(crate) kind: SyncKind,
    pub(crate) want: f64,
    #[serde(rename = "db0/dt0 [MiB/s]")]
    pub(crate) dbdt0: f64,
    #[serde(rename = "db1/dt1 [MiB/s]")]
    pub(crate) dbdt1: f64,
    pub(crate) estimated_seconds_to_finish: u64,
    #[serde(rename = "db/dt [MiB/s]")]
    pub(crate) dbdt: f64,
    pub(crate) percent_resync_done: f64,
}

/// What only a verify or only a resync has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
pub(crate) enum SyncKind {
    Verify { ov_start_sector: u64, ov_stop_sector: u64, ov_position: u64, ov_left: u64, ov_skipped: u64 },
    Resync { rs_failed: u64, rs_same_csum: u64 },
}

impl ResourceView {
    pub(crate) fn new(status: &ResourceStatus) -> ResourceView {
        let engine = &status.engine;
        let mut connections: Vec<_> =
            engine.peers.iter().map(|peer| ConnectionView::new(status, peer)).collect();
        connections.sort_by(|a, b| a.name.cmp(&b.name));
        let devices = status.volumes().into_iter().enumerate();
        ResourceView {
            name: engine.resource.clone(),
            node_id: engine.node,
            role: engine.role,
            suspended: engine.suspended.any(),
            why_suspended: SuspendedView::new(engine.suspended),
            force_io_failures: false,
            write_ordering: match engine.write_ordering {
                'f' => "flush",
                'd' => "drain",
                _ => "none",
            },
            devices: devices
                .map(|(i, (spec, volume))| DeviceView::new(status, spec, &volume, i == 0))
                .collect(),
            connections,
            promotion: status.promotion(),
        }
    }
}

impl SuspendedView {
    fn new(suspended: Suspended) -> SuspendedView {
        SuspendedView {
            suspended_user: suspended.user,
            suspended_no_data: suspended.no_data,
            suspended_fencing: suspended.fencing,
            suspended_quorum: suspended.quorum,
        }
    }
}

impl fmt::Display for SuspendedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.suspended_user, "user"),
            (self.suspended_no_data, "no-data"),
            (self.suspended_fencing, "fencing"),
            (self.suspended_quorum, "quorum"),
        ];
        let set: Vec<&str> = reasons.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        f.write_str(if set.is_empty() { "no" } else { "" })?;
        f.write_str(&set.join(","))
    }
}

impl DeviceView {
    /// The metadata's writes count with the first volume, whose disk holds it.
    fn new(status: &ResourceStatus, spec: &VolumeSpec, volume: &VolumeStatus, is_first: bool) -> DeviceView {
        let engine = &status.engine;
        let of_metadata = |writes: u64| if is_first { writes } else { 0 };
        let has_disk = engine.disk != DiskState::Diskless;
        DeviceView {
            volume: spec.number,
            minor: spec.minor,
            backing_dev: has_disk.then(|| spec.disk.display().to_string()),
            disk_state: engine.disk,
            client: false,
            open: !volume.openers.is_empty(),
            quorum: engine.quorum,
            size: volume.size_bytes / KIB,
            read: volume.disk_read_bytes / KIB,
            written: volume.disk_written_bytes / KIB,
            al_writes: of_metadata(engine.activity_log_writes),
            bm_writes: of_metadata(engine.bitmap_writes),
            upper_pending: volume.client_pending,
            lower_pending: volume.local_pending,
            al_suspended: engine.activity_log_suspended,
            blocked: engine.suspended.any(),
        }
    }
}

impl ConnectionView {
    fn new(status: &ResourceStatus, peer: &PeerStatus) -> ConnectionView {
        let is_connected = peer.connection == ConnectionState::Connected;
        let paths = status.spec.paths_to(peer.id).map(|path| PathView {
            this_host: Address::new(path.local),
            remote_host: Address::new(path.remote),
            established: is_connected && status.used_paths.contains(path),
        });
        let volumes = status.volumes().into_iter().zip(status.peer_volumes(peer));
        ConnectionView {
            peer_node_id: peer.id,
            name: peer.name.clone(),
            connection_state: peer.connection,
            congested: peer.congested,
            peer_role: peer.role,
            tls: false,
            ap_in_flight: peer.in_flight_bytes / SECTOR_BYTES,
            rs_in_flight: peer.resync_in_flight_bytes / SECTOR_BYTES,
            paths: paths.collect(),
            peer_devices: volumes
                .map(|((_, volume), (spec, of_peer))| {
                    PeerDeviceView::new(spec, volume.size_bytes, peer, &of_peer)
                })
                .collect(),
            standalone_reason: peer.standalone_reason.clone(),
        }
    }
}

impl Address {
    fn new(address: SocketAddr) -> Address {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        Address { address: address.ip().to_string(), port: address.port(), family }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family {
            "ipv6" => write!(f, "ipv6:[{}]:{}", self.address, self.port),
            family => write!(f, "{family}:{}:{}", self.address, self.port),
        }
    }
}

impl PeerDeviceView {
    fn new(
        spec: &VolumeSpec,
        size_bytes: u64,
        peer: &PeerStatus,
        volume: &PeerVolumeStatus,
    ) -> PeerDeviceView {
        let in_sync =
            100.0 - volume.out_of_sync_bytes.min(size_bytes) as f64 * 100.0 / size_bytes.max(1) as f64;
        PeerDeviceView {
            volume: spec.number,
            replication_state: peer.replication,
            peer_disk_state: peer.disk,
            peer_client: false,
            resync_suspended: peer.resync_suspended.to_string(),
            received: volume.received_bytes / KIB,
            sent: volume.sent_bytes / KIB,
            out_of_sync: volume.out_of_sync_bytes / KIB,
            pending: volume.pending,
            unacked: volume.unacked,
            has_sync_details: volume.resync.is_some(),
            has_online_verify_details: volume.resync.is_some_and(|resync| resync.verify.is_some()),
            percent_in_sync: if size_bytes == 0 { 0.0 } else { cut(in_sync) },
            details: volume.resync.as_ref().map(SyncDetails::new),
        }
    }
}

impl SyncDetails {
    fn new(resync: &ResyncProgress) -> SyncDetails {
        let ResyncProgress { recent, latest, .. } = resync;
        let done = Stretch {
            ms: resync.elapsed_ms.saturating_sub(resync.paused_ms),
            bytes: resync.total_bytes.saturating_sub(resync.left_bytes),
        };
        SyncDetails {
            rs_total: resync.total_bytes / SECTOR_BYTES,
            rs_dt_start_ms: resync.elapsed_ms,
            rs_paused_ms: resync.paused_ms,
            rs_dt0_ms: recent.ms,
            rs_db0_sectors: recent.bytes / SECTOR_BYTES,
            rs_dt1_ms: latest.ms,
            rs_db1_sectors: latest.bytes / SECTOR_BYTES,
            kind: SyncKind::new(resync),
            want: round(resync.want_bytes_per_s as f64 / MIB),
            dbdt0: mib_per_s(*recent),
            dbdt1: mib_per_s(*latest),
            estimated_seconds_to_finish: match latest.bytes {
                0 => NEVER_S,
                bytes => (latest.ms as f64 / 1000.0 * resync.left_bytes as f64 / bytes as f64).round() as u64,
            },
            dbdt: mib_per_s(done),
            percent_resync_done: cut(percent_done(resync.total_bytes, resync.left_bytes)),
        }
    }

    /// Seconds until it ends, if it moves.
    pub(crate) fn eta_s(&self) -> Option<u64> {
        Some(self.estimated_seconds_to_finish).filter(|_| self.rs_db1_sectors > 0)
    }
}

impl SyncKind {
    fn new(resync: &ResyncProgress) -> SyncKind {
        match resync.verify {
            Some(VerifyPosition { start_bytes, stop_bytes, reached_bytes }) => SyncKind::Verify {
                ov_start_sector: start_bytes / SECTOR_BYTES,
                ov_stop_sector: stop_bytes / SECTOR_BYTES,
                ov_position: reached_bytes / SECTOR_BYTES,
                ov_left: resync.left_bytes / SECTOR_BYTES,
                ov_skipped: 0,
            },
            // A block that could not be read is tried again.
            None => SyncKind::Resync { rs_failed: 0, rs_same_csum: resync.equal_bytes / SECTOR_BYTES },
        }
    }
}

/// How much of a resync is done, in per cent.
pub(crate) fn percent_done(total_bytes: u64, left_bytes: u64) -> f64 {
    match total_bytes {
        0 => 100.0,
        total => total.saturating_sub(left_bytes) as f64 * 100.0 / total as f64,
    }
}

/// To two digits, not rounded: 100.00 is for what is done.
fn cut(percent: f64) -> f64 {
    (percent * 100.0).floor() / 100.0
}

fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn mib_per_s(stretch: Stretch) -> f64 {
    round(stretch.bytes as f64 / MIB * 1000.0 / stretch.ms.max(1) as f64)
}
