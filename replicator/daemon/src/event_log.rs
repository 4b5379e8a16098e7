//! The engine's events as log lines in DRBD's grammar: `conn( Connected -> NetworkFailure )`.

use tandem_control::ResourceSpec;
use tandem_core::handler::HandlerOutcome;
use tandem_core::io::{Event, Level};
use tandem_core::layout::{Layout, Part};
use tandem_core::units::{NodeId, SECTOR_BYTES};
use tracing::{error, info, warn};

/// Writes the event to the log.
pub(crate) fn write(spec: &ResourceSpec, layout: &Layout, event: &Event) {
    let resource = spec.name.as_str();
    let peer = peer_of(event).map(|id| peer_name(spec, id));
    let (level, text) = describe(layout, event);
    match (level, peer) {
        (Level::Info, None) => info!(resource, "{text}"),
        (Level::Info, Some(peer)) => info!(resource, peer, "{text}"),
        (Level::Warn, None) => warn!(resource, "{text}"),
        (Level::Warn, Some(peer)) => warn!(resource, peer, "{text}"),
        (Level::Error, None) => error!(resource, "{text}"),
        (Level::Error, Some(peer)) => error!(resource, peer, "{text}"),
    }
}

fn peer_of(event: &Event) -> Option<NodeId> {
    match event {
        Event::Role { .. } | Event::Disk { .. } | Event::DiskFailed { .. } => None,
        Event::Connection { peer, .. }
        | Event::Replication { peer, .. }
        | Event::PeerRole { peer, .. }
        | Event::PeerDisk { peer, .. }
        | Event::OutOfSync { peer, .. }
        | Event::Verified { peer, .. } => Some(*peer),
        Event::HandlerCalled { peer, .. } | Event::HandlerDone { peer, .. } | Event::Note { peer, .. } => {
            *peer
        }
    }
}

fn peer_name(spec: &ResourceSpec, id: NodeId) -> &str {
    spec.peers.iter().find(|peer| peer.id == id).map_or("?", |peer| &peer.name)
}

fn describe(layout: &Layout, event: &Event) -> (Level, String) {
    let text = match event {
        Event::Role { old, new } => format!("role( {old} -> {new} )"),
        Event::Disk { old, new } => format!("disk( {old} -> {new} )"),
        Event::DiskFailed { why } => return (Level::Error, format!("local disk: {why}; detaching")),
        Event::Connection { old, new, .. } => format!("conn( {old} -> {new} )"),
        Event::Replication { old, new, .. } => format!("repl( {old} -> {new} )"),
        Event::PeerRole { old, new, .. } => format!("peer( {old} -> {new} )"),
        Event::PeerDisk { old, new, .. } => format!("pdsk( {old} -> {new} )"),
        Event::OutOfSync { range, .. } => {
            let out_of_sync = |Part { index, range, .. }: Part| {
                let (start, size) = (range.offset / SECTOR_BYTES, range.length / SECTOR_BYTES);
                let number = layout.volumes().get(index).map(|volume| format!("volume {}: ", volume.number));
                format!("{}Out of sync: start={start}, size={size} (sectors)", number.unwrap_or_default())
            };
            let lines: Vec<String> = layout.parts(*range).into_iter().map(out_of_sync).collect();
            return (Level::Error, lines.join("; "));
        }
        Event::Verified { blocks: 0, .. } => "Online verify found no difference".into(),
        Event::Verified { blocks, .. } => {
            return (Level::Error, format!("Online verify found {blocks} 4k block out of sync!"));
        }
        Event::HandlerCalled { handler, .. } => format!("helper command: {handler}"),
        Event::HandlerDone { handler, outcome, .. } => {
            let level = if *outcome == HandlerOutcome::Exited(0) { Level::Info } else { Level::Warn };
            return (level, format!("helper command: {handler} {outcome}"));
        }
        Event::Note { level, text, .. } => return (*level, text.clone()),
    };
    (Level::Info, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::state::{ConnectionState, DiskState};

    #[test]
    fn events_read_as_drbd_logs_them() {
        let peer = NodeId(1);
        let lost =
            Event::Connection { peer, old: ConnectionState::Connected, new: ConnectionState::NetworkFailure };
        let describe = |event| describe(&Layout::default(), event);
        assert_eq!(describe(&lost).1, "conn( Connected -> NetworkFailure )");
        let unknown = Event::PeerDisk { peer, old: DiskState::UpToDate, new: DiskState::DUnknown };
        assert_eq!(describe(&unknown).1, "pdsk( UpToDate -> DUnknown )");
    }
}
