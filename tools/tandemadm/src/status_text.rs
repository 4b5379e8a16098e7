//! `status`, byte for byte as DRBD 9 prints it (reference/drbd.md, C3), with comment lines where a script needs none.

use std::fmt::Write;

use tandem_control::{ResourceStatus, VolumeSpec};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::status::{PeerStatus, ResyncProgress, ResyncSuspended, Status, VolumeStatus};

/// What `status` says if there is no resource.
pub const NONE_CONFIGURED: &str = "# No currently configured DRBD found.\n";

/// One resource, its empty line at the end included.
pub fn resource(status: &ResourceStatus) -> String {
    let engine = &status.engine;
    let mut text = format!("{} role:{}", engine.resource, engine.role);
    if engine.suspended.any() {
        let _ = write!(text, " suspended:{}", engine.suspended);
    }
    text.push('\n');
    // Writing to a string does not fail.
    for (volume, of_volume) in status.volumes() {
        let _ = device(&mut text, engine, &volume_field(status, volume), &of_volume);
    }
    for peer in &engine.peers {
        let _ = connection(&mut text, peer, status);
    }
    for peer in &engine.peers {
        if let Some(reason) = standalone_reason(peer) {
            let _ = writeln!(text, "  # {}: {reason}", peer.name);
        }
    }
    text.push('\n');
    text
}

/// Why the peer is StandAlone, if it is and there is something to say, in one line.
pub fn standalone_reason(peer: &PeerStatus) -> Option<String> {
    let reason = peer.standalone_reason.as_ref()?;
    (peer.connection == ConnectionState::StandAlone).then(|| reason.replace('\n', " "))
}

/// How much of a resync is done, in per cent.
pub fn percent_done(resync: &ResyncProgress) -> f64 {
    match resync.total_bytes {
        0 => 100.0,
        total => total.saturating_sub(resync.left_bytes) as f64 * 100.0 / total as f64,
    }
}

fn device(text: &mut String, engine: &Status, field: &str, volume: &VolumeStatus) -> std::fmt::Result {
    write!(text, "  {field}disk:{}", engine.disk)?;
    if engine.disk == DiskState::Diskless {
        text.push_str(" client:no");
    }
    if !engine.quorum {
        text.push_str(" quorum:no");
    }
    writeln!(text, " open:{}", if volume.openers.is_empty() { "no" } else { "yes" })
}

fn connection(text: &mut String, peer: &PeerStatus, status: &ResourceStatus) -> std::fmt::Result {
    match peer.connection {
        ConnectionState::Connected => writeln!(text, "  {} role:{}", peer.name, peer.role)?,
        state => writeln!(text, "  {} connection:{state}", peer.name)?,
    }
    let replicating = !matches!(peer.replication, ReplicationState::Off | ReplicationState::Established);
    if peer.connection != ConnectionState::Connected && !replicating && peer.disk == DiskState::DUnknown {
        return Ok(());
    }
    for volume in status.spec.volumes() {
        peer_device(text, peer, &volume_field(status, volume), replicating)?;
    }
    Ok(())
}

/// The states are the same for all volumes, and so is how much of a resync is done.
fn peer_device(text: &mut String, peer: &PeerStatus, field: &str, replicating: bool) -> std::fmt::Result {
    write!(text, "    {field}")?;
    if replicating {
        write!(text, "replication:{} ", peer.replication)?;
    }
    write!(text, "peer-disk:{}", peer.disk)?;
    if peer.disk == DiskState::Diskless {
        text.push_str(" peer-client:no");
    }
    if let Some(resync) = peer.resync.as_ref().filter(|_| replicating) {
        // Cut, not rounded: 100.00 is for what is done.
        write!(text, " done:{:.2}", (percent_done(resync) * 100.0).floor() / 100.0)?;
    }
    if peer.resync_suspended != ResyncSuspended::default() {
        write!(text, " resync-suspended:{}", peer.resync_suspended)?;
    }
    text.push('\n');
    Ok(())
}

/// Left out for a resource's only volume if it is number 0.
fn volume_field(status: &ResourceStatus, volume: &VolumeSpec) -> String {
    match (volume.number, status.spec.more_volumes.is_empty()) {
        (0, true) => String::new(),
        (number, _) => format!("volume:{number} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_healthy_primary() {
        let mut status = fixture::connected();
        status.engine.openers.push("nbd client".into());
        let golden =
            "r0 role:Primary\n  disk:UpToDate open:yes\n  bravo role:Secondary\n    peer-disk:UpToDate\n\n";
        assert_eq!(resource(&status), golden);
    }

    #[test]
    fn a_resync_shows_how_far_it_is() {
        let mut status = fixture::connected();
        let peer = &mut status.engine.peers[0];
        peer.replication = ReplicationState::SyncSource;
        peer.disk = DiskState::Inconsistent;
        peer.resync = Some(fixture::resync(1000, 625));
        assert!(
            resource(&status).ends_with("    replication:SyncSource peer-disk:Inconsistent done:37.50\n\n")
        );
        status.engine.peers[0].resync = Some(fixture::resync(1_000_000, 1));
        assert!(resource(&status).contains(" done:99.99\n"));
        status.engine.peers[0].resync = Some(fixture::resync(0, 0));
        assert!(resource(&status).contains(" done:100.00\n"));
        status.engine.peers[0].resync_suspended =
            ResyncSuspended { user: true, peer: true, dependency: false };
        assert!(resource(&status).contains(" done:100.00 resync-suspended:user,peer\n"));
    }

    #[test]
    fn a_lost_peer_shows_its_connection_only() {
        let mut status = fixture::connected();
        fixture::disconnect(&mut status, ConnectionState::Connecting);
        assert_eq!(
            resource(&status),
            "r0 role:Primary\n  disk:UpToDate open:no\n  bravo connection:Connecting\n\n"
        );
        status.engine.peers[0].disk = DiskState::Outdated;
        assert!(resource(&status).ends_with("  bravo connection:Connecting\n    peer-disk:Outdated\n\n"));
    }

    #[test]
    fn split_brain_is_explained_in_a_comment() {
        let mut status = fixture::connected();
        fixture::disconnect(&mut status, ConnectionState::StandAlone);
        status.engine.peers[0].standalone_reason = Some("Split-Brain detected\nbut unresolved".into());
        assert!(
            resource(&status).ends_with(
                "  bravo connection:StandAlone\n  # bravo: Split-Brain detected but unresolved\n\n"
            )
        );
        status.engine.peers[0].connection = ConnectionState::Connecting;
        assert!(!resource(&status).contains('#'));
    }

    #[test]
    fn several_volumes_have_a_line_each() {
        let mut status = fixture::two_volumes();
        status.engine.volumes[1].openers.push("nbd client".into());
        assert_eq!(
            resource(&status),
            "r0 role:Primary\n  volume:0 disk:UpToDate open:no\n  volume:1 disk:UpToDate open:yes\n  \
             bravo role:Secondary\n    volume:0 peer-disk:UpToDate\n    volume:1 peer-disk:UpToDate\n\n"
        );
        let peer = &mut status.engine.peers[0];
        peer.replication = ReplicationState::SyncSource;
        peer.disk = DiskState::Inconsistent;
        peer.resync = Some(fixture::resync(1000, 625));
        let text = resource(&status);
        for volume in 0..2 {
            let line =
                format!("\n    volume:{volume} replication:SyncSource peer-disk:Inconsistent done:37.50\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn diskless_nodes_and_other_volumes_are_named() {
        let mut status = fixture::connected();
        status.spec.volume.number = 3;
        status.engine.disk = DiskState::Diskless;
        status.engine.peers[0].disk = DiskState::Diskless;
        let text = resource(&status);
        assert!(text.contains("\n  volume:3 disk:Diskless client:no open:no\n"), "{text}");
        assert!(text.contains("\n    volume:3 peer-disk:Diskless peer-client:no\n"), "{text}");
    }
}
