//! What the engine says of itself.

use super::Engine;
use super::peer::Peer;
use crate::bitmap::Bitmap;
use crate::config::WriteOrdering;
use crate::io::Level;
use crate::status::{PeerStatus, PeerVolumeStatus, Status, Suspended, VolumeStatus};
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};

impl Engine {
    /// A snapshot for the operator.
    pub fn status(&self, now: Timestamp) -> Status {
        Status {
            resource: self.config.resource.clone(),
            node: self.config.node,
            role: self.role,
            disk: self.announced_disk(),
            protocol: self.config.options.protocol,
            write_ordering: match self.config.options.write_ordering {
                WriteOrdering::Flush => 'f',
                WriteOrdering::Drain => 'd',
                WriteOrdering::None => 'n',
            },
            size_bytes: self.shown_bytes(),
            volumes: self.volumes_status(),
            pieces: self.shown_layout().pieces(),
            disk_read_bytes: self.counters.disk_read.total(),
            disk_written_bytes: self.counters.disk_written.total(),
            bitmap_writes: self.counters.bitmap_writes,
            activity_log_writes: self.counters.activity_log_writes,
            activity_log_suspended: !self.config.options.al_updates,
            local_pending: (self.disk.operations.len() + self.disk.abandoned.len()) as u64,
            client_pending: self.clients_pending(),
            epochs: self.peers.iter().map(|p| p.barriers.len() as u64 + p.receiver.epochs()).sum(),
            suspended: self.suspended(),
            quorum: self.has_quorum(),
            openers: self.openers.clone(),
            generations: self
                .disk
                .metadata
                .as_ref()
                .map_or(self.last_generations, |m| m.superblock.generations),
            peers: self
                .peers
                .iter()
                .map(|p| self.peer_status(p.id(), now))
                .collect::<Option<_>>()
                .unwrap_or_default(),
        }
    }

    /// This node was Primary when its disk was last attached, and had gone on without any of its peers: each lacks what
    /// was written here, or is known to be outdated.
    pub fn had_gone_on_alone(&self) -> bool {
        let lacks = |id| self.slot(id).is_some_and(|slot| slot.bitmap_id != 0 || slot.outdated);
        self.disk.metadata.as_ref().is_some_and(|m| m.superblock.flags.crashed_primary)
            && self.peers.iter().all(|p| lacks(p.id()))
    }

    /// Says that clients' requests wait now, or a resync, or no longer: nothing else tells who watches.
    pub(super) fn tell_of_suspension(&mut self) {
        let now = self.suspended();
        let before = std::mem::replace(&mut self.told_of_suspension, now);
        if now != before {
            let level = if now.any() { Level::Warn } else { Level::Info };
            self.note(None, level, format!("susp-io( {before} -> {now} )"));
        }
        for id in self.peer_ids() {
            let Some(now) = self.peer(id).map(|peer| self.resync_suspended(peer)) else { continue };
            let before = self.peer_mut(id).map(|peer| std::mem::replace(&mut peer.told_of_pause, now));
            if let Some(before) = before.filter(|before| *before != now) {
                self.note(Some(id), Level::Info, format!("resync-susp( {before} -> {now} )"));
            }
        }
    }

    fn suspended(&self) -> Suspended {
        Suspended {
            user: self.user_suspends,
            no_data: self.waits_for_data(),
            fencing: self.waits_for_fencing(),
            quorum: self.waits_for_quorum(),
        }
    }

    fn peer_status(&self, id: NodeId, now: Timestamp) -> Option<PeerStatus> {
        let peer = self.peer(id)?;
        Some(PeerStatus {
            id,
            name: peer.config.name.clone(),
            connection: peer.connection,
            replication: peer.replication,
            role: peer.role,
            disk: peer.disk,
            standalone_reason: peer.standalone_reason.clone(),
            differing_options: peer.differing_options.clone(),
            sent_bytes: peer.sent.total(),
            received_bytes: peer.received.total(),
            pending: peer.transfer_log.iter().filter(|w| !w.acked).count() as u64 + self.resync_pending(peer),
            unacked: peer.receiver.unacked() + self.resync_unacked(peer),
            congested: peer.is_full_for(BLOCK_BYTES, self.config.options.congestion.send_buffer_bytes),
            in_flight_bytes: peer.transfer_log.iter().filter(|w| !w.acked).map(|w| w.range.length).sum(),
            resync_in_flight_bytes: self.resync_in_flight_bytes(peer),
            out_of_sync_bytes: self.dirty_blocks(id) * BLOCK_BYTES,
            resync_suspended: self.resync_suspended(peer),
            resync: self.resync_progress(id, None, now),
            volumes: self.peer_volumes(peer, now),
        })
    }

    fn volumes_status(&self) -> Vec<VolumeStatus> {
        let (layout, shown) = (self.layout(), self.shown_layout());
        let mut volumes: Vec<VolumeStatus> = shown
            .volumes()
            .iter()
            .enumerate()
            .map(|(i, volume)| VolumeStatus {
                size_bytes: volume.bytes,
                disk_read_bytes: self.counters.disk_read.of(i),
                disk_written_bytes: self.counters.disk_written.of(i),
                ..VolumeStatus::default()
            })
            .collect();
        if volumes.is_empty() {
            return volumes;
        }
        self.request_offsets().for_each(|offset| volumes[layout.index_at(offset)].client_pending += 1);
        self.disk.operations.values().for_each(|o| volumes[o.volume].local_pending += 1);
        volumes[0].local_pending += self.disk.abandoned.len() as u64;
        volumes
    }

    fn peer_volumes(&self, peer: &Peer, now: Timestamp) -> Vec<PeerVolumeStatus> {
        let layout = self.layout();
        if layout.is_single() {
            return Vec::new();
        }
        let bitmap = self.disk.metadata.as_ref().and_then(|m| m.bitmaps.get(peer.slot));
        let ranges = layout.ranges(self.size_bytes());
        let count = |b: &Bitmap, pieces: &[ByteRange]| pieces.iter().map(|p| b.count_range(*p)).sum::<u64>();
        let mut volumes: Vec<PeerVolumeStatus> = ranges
            .iter()
            .enumerate()
            .map(|(i, pieces)| PeerVolumeStatus {
                sent_bytes: peer.sent.of(i),
                received_bytes: peer.received.of(i),
                out_of_sync_bytes: bitmap.map_or(0, |b| count(b, pieces)) * BLOCK_BYTES,
                resync: self.resync_progress(peer.id(), Some(i), now),
                ..PeerVolumeStatus::default()
            })
            .collect();
        let unanswered = peer.transfer_log.iter().filter(|w| !w.acked);
        unanswered.for_each(|w| volumes[layout.index_at(w.range.offset)].pending += 1);
        volumes[0].pending += self.resync_pending(peer);
        volumes[0].unacked = peer.receiver.unacked() + self.resync_unacked(peer);
        volumes
    }

    /// For checkers: shows every range that may differ from the peer's copy right now: bits set and writes in flight.
    pub fn may_differ(&self, peer: NodeId, mut show: impl FnMut(ByteRange)) {
        let Some(p) = self.peer(peer) else { return };
        p.transfer_log.iter().for_each(|w| show(w.range));
        self.ranges_being_written().for_each(&mut show);
        let Some(bitmap) = self.disk.metadata.as_ref().map(|m| &m.bitmaps[p.slot]) else { return };
        let mut from = 0;
        while let Some(run) = bitmap.next_run(from, u64::MAX) {
            show(ByteRange::new(run.start * BLOCK_BYTES, (run.end - run.start) * BLOCK_BYTES));
            from = run.end;
        }
    }
}
