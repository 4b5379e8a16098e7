//! The status file in the format of DRBD 8.4's /proc/drbd, which a generation of monitoring scripts parses.
//!
//! A device is a volume; of those of one resource the states are the same. The metadata's writes count with the first,
//! whose disk holds it.
//!
//! It has room for one peer per device; of several, the one in the worst state is shown, so that a check that reads
//! the file raises an alarm when there is a reason.

use std::fmt::Write;

use tandem_control::{ResourceStatus, VolumeSpec};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::status::{
    PeerStatus, PeerVolumeStatus, ResyncProgress, ResyncSuspended, Status, VolumeStatus,
};

/// The release whose format this is; scripts choose their parser by it.
const FORMAT_VERSION: &str = "version: 8.4.11 (api:1/proto:86-101)";
/// Width of the progress bar in steps of five percent.
const BAR_STEPS: u64 = 20;
/// From this size on, progress is counted in MiB.
const MIB_FROM_BYTES: u64 = 4 << 30;

/// The file's content.
pub(crate) fn render(resources: &[ResourceStatus]) -> String {
    let mut text = format!("{FORMAT_VERSION}\nsrcversion: Tandem-{}\n", env!("CARGO_PKG_VERSION"));
    let mut by_minor: Vec<Device<'_>> = resources.iter().flat_map(devices).collect();
    by_minor.sort_by_key(|device| device.minor);
    let mut next_minor = 0;
    for device in by_minor {
        if device.minor != next_minor {
            text.push('\n');
        }
        next_minor = device.minor.saturating_add(1);
        // Writing to a String cannot fail.
        let _ = put_device(&mut text, &device);
    }
    text
}

/// A volume of a resource, with the peer that is shown.
struct Device<'a> {
    status: &'a Status,
    minor: u32,
    volume: VolumeStatus,
    peer: Option<(&'a PeerStatus, PeerVolumeStatus)>,
    /// Its disk holds the metadata.
    is_first: bool,
}

fn devices(resource: &ResourceStatus) -> Vec<Device<'_>> {
    let status = &resource.engine;
    let peer = status.peers.iter().min_by_key(|peer| (peer.connection, peer.disk));
    let mut of_peer = peer.map_or(Vec::new(), |peer| resource.peer_volumes(peer)).into_iter();
    let device = |(index, (spec, volume)): (usize, (&VolumeSpec, VolumeStatus))| Device {
        status,
        minor: spec.minor,
        volume,
        peer: peer.zip(of_peer.next().map(|(_, of_peer)| of_peer)),
        is_first: index == 0,
    };
    resource.volumes().into_iter().enumerate().map(device).collect()
}

fn put_device(text: &mut String, device: &Device<'_>) -> std::fmt::Result {
    let Device { status, minor, volume, .. } = device;
    let peer = device.peer.map(|(peer, _)| peer);
    let connection = peer.map_or(ConnectionState::StandAlone, |peer| peer.connection);
    let replication = peer.map_or(ReplicationState::Off, |peer| peer.replication);
    if connection == ConnectionState::StandAlone
        && status.disk == DiskState::Diskless
        && status.role == Role::Secondary
    {
        return writeln!(text, "{minor:2}: cs:Unconfigured");
    }
    // The protocol belongs to the network configuration, which a StandAlone device has dropped.
    let protocol = if connection == ConnectionState::StandAlone { ' ' } else { status.protocol.letter() };
    writeln!(
        text,
        "{minor:2}: cs:{} ro:{}/{} ds:{}/{} {protocol} {}{}-{}",
        connection_name(connection, replication),
        status.role,
        peer.map_or(Role::Unknown, |peer| peer.role),
        status.disk,
        peer.map_or(DiskState::DUnknown, |peer| peer.disk),
        if status.suspended.any() { 's' } else { 'r' },
        pause_flags(peer.map(|peer| peer.resync_suspended).unwrap_or_default()),
        if status.activity_log_suspended { 's' } else { '-' },
    )?;
    let of_peer = device.peer.map_or(PeerVolumeStatus::default(), |(_, of_peer)| of_peer);
    let of_metadata = |writes: u64| if device.is_first { writes as u32 } else { 0 };
    writeln!(
        text,
        "    ns:{} nr:{} dw:{} dr:{} al:{} bm:{} lo:{} pe:{} ua:{} ap:{} ep:{} wo:{} oos:{}",
        kib(of_peer.sent_bytes),
        kib(of_peer.received_bytes),
        kib(volume.disk_written_bytes),
        kib(volume.disk_read_bytes),
        of_metadata(status.activity_log_writes),
        of_metadata(status.bitmap_writes),
        volume.local_pending,
        of_peer.pending,
        of_peer.unacked,
        volume.client_pending,
        // The epoch that is being filled counts.
        status.epochs.max(1),
        status.write_ordering,
        of_peer.out_of_sync_bytes / 1024,
    )?;
    let paused = matches!(replication, ReplicationState::PausedSyncS | ReplicationState::PausedSyncT);
    match of_peer.resync.filter(|_| !paused) {
        Some(progress) => put_progress(text, &progress, replication),
        None => Ok(()),
    }
}

/// Why a resync is paused: by a dependency, by the peer, by the administrator.
fn pause_flags(suspended: ResyncSuspended) -> String {
    let flags = [(suspended.dependency, 'a'), (suspended.peer, 'p'), (suspended.user, 'u')];
    flags.into_iter().map(|(set, letter)| if set { letter } else { '-' }).collect()
}

/// 8.4 has one word for what later became two.
fn connection_name(connection: ConnectionState, replication: ReplicationState) -> &'static str {
    match (connection, replication) {
        (ConnectionState::Connecting, _) => "WFConnection",
        (ConnectionState::Connected, ReplicationState::Off | ReplicationState::Established) => "Connected",
        (ConnectionState::Connected, syncing) => syncing.as_str(),
        (other, _) => other.as_str(),
    }
}

fn put_progress(text: &mut String, progress: &ResyncProgress, state: ReplicationState) -> std::fmt::Result {
    let total = progress.total_bytes.max(1);
    let left = progress.left_bytes.min(total);
    // What is left is rounded down, as the module does: 0 only as long as everything is left.
    let permille = 1000 - (u128::from(left) * 1000 / u128::from(total)) as u64;
    let steps = permille * BAR_STEPS / 1000;
    let done = "=".repeat(steps.saturating_sub(1) as usize);
    let ahead = ".".repeat((BAR_STEPS - steps) as usize);
    let (unit_bytes, unit) = if total > MIB_FROM_BYTES { (1 << 20, 'M') } else { (1 << 10, 'K') };
    writeln!(
        text,
        "\t[{done}>{ahead}] {}{:3}.{}% ({}/{}){unit}",
        if state.is_verify() { "verified:" } else { "sync'ed:" },
        permille / 10,
        permille % 10,
        left / unit_bytes,
        progress.total_bytes / unit_bytes,
    )?;
    let rate = [progress.recent_bytes_per_s, progress.average_bytes_per_s].into_iter().find(|rate| *rate > 0);
    let seconds = left / rate.unwrap_or(1);
    let asks = matches!(state, ReplicationState::SyncTarget | ReplicationState::VerifyS);
    let want = format!(" want: {}", with_commas(progress.want_bytes_per_s / 1024));
    writeln!(
        text,
        "\tfinish: {}:{:02}:{:02} speed: {} ({}){} K/sec{}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        with_commas(progress.recent_bytes_per_s / 1024),
        with_commas(progress.average_bytes_per_s / 1024),
        if asks { &want } else { "" },
        if progress.stalled { " (stalled)" } else { "" },
    )
}

/// Counters of the kernel module wrap at 32 bits; what reads the file expects no more.
fn kib(bytes: u64) -> u32 {
    (bytes / 1024) as u32
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
