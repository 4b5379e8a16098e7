//! A snapshot of the engine, for `status`, the status file and monitoring.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Protocol;
use crate::layout::VolumeSize;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{ByteRange, NodeId};

/// The whole resource on this node. Byte and operation counts are since the engine began.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The resource's name.
    pub resource: String,
    /// This node's number.
    pub node: NodeId,
    /// This node's role.
    pub role: Role,
    /// This node's disk.
    pub disk: DiskState,
    /// Replication protocol.
    pub protocol: Protocol,
    /// `f` flush, `d` drain or `n` none.
    pub write_ordering: char,
    /// The volumes' size in bytes, with the pads between them; 0 while it is not known.
    pub size_bytes: u64,
    /// What is known of each volume, by ascending number; nothing if there is one.
    #[serde(default)]
    pub volumes: Vec<VolumeStatus>,
    /// The pieces that they consist of.
    #[serde(default)]
    pub pieces: Vec<VolumeSize>,
    /// Bytes read from the local disk for clients and peers.
    pub disk_read_bytes: u64,
    /// Bytes written to the local data disk.
    pub disk_written_bytes: u64,
    /// Bitmap writes to the metadata.
    pub bitmap_writes: u64,
    /// Activity-log writes to the metadata.
    pub activity_log_writes: u64,
    /// No activity log is kept.
    #[serde(default)]
    pub activity_log_suspended: bool,
    /// Local disk operations in flight.
    pub local_pending: u64,
    /// Client requests not yet completed.
    pub client_pending: u64,
    /// Epochs not yet acknowledged.
    pub epochs: u64,
    /// Why clients' requests wait.
    pub suspended: Suspended,
    /// Enough nodes can be reached; always, if none are required.
    pub quorum: bool,
    /// Clients that hold the device open.
    pub openers: Vec<String>,
    /// The generation identifiers.
    pub generations: crate::generation::Generations,
    /// One entry per peer, in the order of the configuration.
    pub peers: Vec<PeerStatus>,
}

/// One volume on this node. The states of the disk and of the connections are the resource's.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its size in bytes; 0 while it is not known.
    pub size_bytes: u64,
    /// Bytes read from its disk for clients and peers.
    pub disk_read_bytes: u64,
    /// Bytes written to its disk.
    pub disk_written_bytes: u64,
    /// Local disk operations in flight.
    pub local_pending: u64,
    /// Client requests not yet completed; a flush counts with the first volume.
    pub client_pending: u64,
    /// Clients that hold its device open; the driver knows.
    pub openers: Vec<String>,
}

/// Why clients' requests wait; they do not if nothing is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Suspended {
    /// The administrator has said suspend-io.
    pub user: bool,
    /// No copy of the data can be reached.
    #[serde(default)]
    pub no_data: bool,
    /// A lost peer has to be fenced.
    pub fencing: bool,
    /// Quorum is lost.
    pub quorum: bool,
}

impl Suspended {
    /// They wait.
    pub fn any(self) -> bool {
        self.user || self.no_data || self.fencing || self.quorum
    }
}

impl fmt::Display for Suspended {
    /// As DRBD lists it: `no`, or the reasons with commas between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.user, "user"),
            (self.no_data, "no-data"),
            (self.fencing, "fencing"),
            (self.quorum, "quorum"),
        ];
        let reasons: Vec<&str> = reasons.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        if reasons.is_empty() { f.write_str("no") } else { f.write_str(&reasons.join(",")) }
    }
}

/// One peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The connection.
    pub connection: ConnectionState,
    /// What flows.
    pub replication: ReplicationState,
    /// Its role.
    pub role: Role,
    /// Its disk.
    pub disk: DiskState,
    /// Why the connection is StandAlone, if it is and the operator should know; or why it was given up, until the next attempt.
    pub standalone_reason: Option<String>,
    /// Options that it has chosen otherwise than this node, a sentence each, as of the last meeting.
    #[serde(default)]
    pub differing_options: Vec<String>,
    /// Bytes of data sent to it.
    pub sent_bytes: u64,
    /// Bytes of data received from it.
    pub received_bytes: u64,
    /// Requests sent to it and not answered.
    pub pending: u64,
    /// Requests received from it and not answered.
    pub unacked: u64,
    /// It has been sent as much as it may be sent before it answers: writes wait for it.
    #[serde(default)]
    pub congested: bool,
    /// Bytes of clients' writes sent to it and not answered.
    #[serde(default)]
    pub in_flight_bytes: u64,
    /// Bytes of a resync or a verify that are under way.
    #[serde(default)]
    pub resync_in_flight_bytes: u64,
    /// Bytes that differ, or may.
    pub out_of_sync_bytes: u64,
    /// Why resyncs with it are paused.
    pub resync_suspended: ResyncSuspended,
    /// The resync under way.
    pub resync: Option<ResyncProgress>,
    /// What is known of each volume, by ascending number; nothing if there is one.
    #[serde(default)]
    pub volumes: Vec<PeerVolumeStatus>,
}

/// One volume as this node sees it on a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerVolumeStatus {
    /// Bytes of data sent.
    pub sent_bytes: u64,
    /// Bytes of data received.
    pub received_bytes: u64,
    /// Writes sent and not answered.
    pub pending: u64,
    /// Requests received and not answered; those for all volumes count with the first.
    pub unacked: u64,
    /// Bytes that differ, or may.
    pub out_of_sync_bytes: u64,
    /// The resync under way, as far as it concerns this volume.
    #[serde(default)]
    pub resync: Option<ResyncProgress>,
}

/// Why resyncs are paused; by default they are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResyncSuspended {
    /// `pause-sync` here.
    pub user: bool,
    /// The peer wants it.
    pub peer: bool,
    /// `resync-after`: another resource's comes first.
    pub dependency: bool,
}

impl fmt::Display for ResyncSuspended {
    /// As DRBD lists them: `no`, or `user,peer,dependency`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [(self.user, "user"), (self.peer, "peer"), (self.dependency, "dependency")];
        let set: Vec<&str> = reasons.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        if set.is_empty() { f.write_str("no") } else { f.write_str(&set.join(",")) }
    }
}

/// A resync or a verify under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResyncProgress {
    /// Bytes that were out of sync when it began.
    pub total_bytes: u64,
    /// Bytes still out of sync.
    pub left_bytes: u64,
    /// Bytes that had equal checksums: they did not travel.
    pub equal_bytes: u64,
    /// Milliseconds since it began, pauses included.
    pub elapsed_ms: u64,
    /// Milliseconds of pauses.
    #[serde(default)]
    pub paused_ms: u64,
    /// Bytes per second over the last seconds.
    pub recent_bytes_per_s: u64,
    /// Bytes per second since it began.
    pub average_bytes_per_s: u64,
    /// What was done over the last seconds.
    #[serde(default)]
    pub recent: Stretch,
    /// What was done since the last mark or the one before.
    #[serde(default)]
    pub latest: Stretch,
    /// Bytes per second that it is meant to reach; 0 on the side that does not ask, and while nothing is known.
    #[serde(default)]
    pub want_bytes_per_s: u64,
    /// No progress for more than 180 s.
    pub stalled: bool,
    /// Where a verify is.
    #[serde(default)]
    pub verify: Option<VerifyPosition>,
}

/// What was done in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stretch {
    /// Milliseconds.
    pub ms: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Stretch {
    /// Bytes per second.
    pub const fn bytes_per_s(self) -> u64 {
        let ms = if self.ms == 0 { 1 } else { self.ms };
        self.bytes.saturating_mul(1000) / ms
    }
}

/// Where a verify is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifyPosition {
    /// It began here.
    pub start_bytes: u64,
    /// It ends before this.
    pub stop_bytes: u64,
    /// Everything before this was compared.
    pub reached_bytes: u64,
}

impl VerifyPosition {
    /// Its part in a volume that consists of these pieces, counted from the volume's first byte.
    pub fn within(self, pieces: &[ByteRange]) -> VerifyPosition {
        let inside =
            |at: u64| pieces.iter().map(|piece| at.clamp(piece.offset, piece.end()) - piece.offset).sum();
        VerifyPosition {
            start_bytes: inside(self.start_bytes),
            stop_bytes: inside(self.stop_bytes),
            reached_bytes: inside(self.reached_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verify_of_several_volumes_has_a_part_in_each() {
        let verify = VerifyPosition { start_bytes: 10, stop_bytes: 60, reached_bytes: 35 };
        let part = |offset| {
            let part = verify.within(&[ByteRange::new(offset, 20)]);
            (part.start_bytes, part.stop_bytes, part.reached_bytes)
        };
        assert_eq!([part(0), part(20), part(40)], [(10, 20, 20), (0, 20, 15), (0, 20, 0)]);
        let grown = verify.within(&[ByteRange::new(0, 20), ByteRange::new(30, 20)]);
        assert_eq!((grown.start_bytes, grown.stop_bytes, grown.reached_bytes), (10, 40, 25));
    }

    #[test]
    fn a_stretch_of_no_time_has_a_speed() {
        assert_eq!(Stretch { ms: 0, bytes: 5 }.bytes_per_s(), 5000);
        assert_eq!(Stretch { ms: 2000, bytes: 5000 }.bytes_per_s(), 2500);
    }
}
