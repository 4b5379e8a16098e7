//! The sending side: epochs, the transfer log, acknowledgements, and new generations.
//!
//! A write stays in a peer's transfer log until the barrier behind it is acknowledged, in every protocol and whatever
//! the client was told: until then a power cut may take it from the peer's disk. What is in the log when the peer is
//! lost is marked out of sync.

use super::Engine;
use super::client::WriteOp;
use super::peer::{Peer, SentBarrier, SentWrite};
use crate::config::Protocol;
use crate::generation::parting_identifier;
use crate::io::Level;
use crate::metadata::PeerSlot;
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{ByteRange, Epoch, NodeId, WriteSeq};
use crate::wire::Message;

impl Engine {
    // Epochs.

    /// A write joins the current epoch.
    pub(super) fn join_epoch(&mut self) -> Epoch {
        self.epoch_writes += 1;
        self.epoch
    }

    /// Ends the current epoch, so that what comes later may not be applied before what came until now.
    pub(super) fn close_epoch(&mut self, flush: bool) {
        let epoch = self.epoch;
        for id in self.peer_ids() {
            if self.peer(id).is_some_and(|p| p.replicates() && p.epoch_writes > 0) {
                self.send_barrier(id, epoch, flush);
            }
        }
        self.epoch = epoch + 1;
        self.epoch_writes = 0;
    }

    pub(super) fn close_epoch_if_begun(&mut self, flush: bool) {
        if self.epoch_writes > 0 {
            self.close_epoch(flush);
        }
    }

    fn send_barrier(&mut self, id: NodeId, epoch: Epoch, flush: bool) {
        let now = self.now;
        let Some(peer) = self.peer_mut(id) else { return };
        let writes = std::mem::take(&mut peer.epoch_writes);
        peer.barriers.push_back(SentBarrier { epoch, writes, flush, sent_at: now });
        self.send(id, Message::Barrier { epoch, writes, flush });
    }

    /// The epoch whose barrier ack proves that all the peer was sent so far is durable; `None` if that is known or
    /// the peer gets no writes. The caller has closed the current epoch.
    pub(super) fn barrier_to_await(&mut self, id: NodeId) -> Option<Epoch> {
        let peer = self.peer(id)?;
        if !peer.replicates() || peer.all_durable {
            return None;
        }
        if let Some(last) = peer.barriers.back().filter(|b| b.flush) {
            return Some(last.epoch);
        }
        let epoch = self.epoch;
        self.send_barrier(id, epoch, true);
        self.epoch = epoch + 1;
        Some(epoch)
    }

    // The transfer log.

    /// Notes a write that is about to be sent and gives it its number.
    pub(super) fn log_transfer(
        &mut self,
        id: NodeId,
        key: u64,
        op: &WriteOp,
        epoch: Epoch,
        wants: Protocol,
        logged: bool,
    ) -> Option<WriteSeq> {
        let (now, range, held_bytes) = (self.now, op.range(), op.payload_bytes());
        if logged {
            self.hold_for_peer(range);
        }
        let peer = self.peer_mut(id)?;
        let seq = peer.next_seq;
        peer.next_seq = WriteSeq(seq.0 + 1);
        peer.epoch_writes += 1;
        peer.writes_sent += 1;
        peer.all_durable = false;
        peer.unconfirmed_bytes += held_bytes;
        peer.transfer_log.push_back(SentWrite {
            key,
            range,
            held_bytes,
            epoch,
            sent_at: now,
            wants,
            acked: false,
            logged,
        });
        peer.note_answers();
        Some(seq)
    }

    /// The peer says what became of a write. Acks of a log that was abandoned are late, not wrong.
    pub(super) fn write_acked(
        &mut self,
        id: NodeId,
        seq: WriteSeq,
        kind: Protocol,
        ok: bool,
    ) -> Result<(), String> {
        let hasty = seeded!(self, DropsReferenceAtReceiveAck) && kind == Protocol::B
            || seeded!(self, DropsReferenceAtWriteAck) && kind == Protocol::C;
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if seq >= peer.next_seq {
            return Err(format!("write {} was acknowledged but never sent", seq.0));
        }
        let Some(sent) = peer.logged(seq) else { return Ok(()) };
        let enough = kind == Protocol::C || kind == sent.wants;
        sent.acked |= enough || !ok;
        let SentWrite { key, range, .. } = *sent;
        let let_go = if kind == Protocol::C || !ok { std::mem::take(&mut sent.held_bytes) } else { 0 };
        let drop_reference = hasty && std::mem::take(&mut sent.logged);
        peer.unconfirmed_bytes -= let_go;
        peer.note_answers();
        if drop_reference {
            self.release_for_peer(range);
        }
        if !ok {
            // Its disk has failed, and its word on that is on the way.
            self.peer_disk_failed(id);
        } else if enough {
            self.write_leg_ended(key, id, true);
        }
        Ok(())
    }

    /// The peer could not do a write. If its disk stays, it is the only copy, and the client is told.
    pub(super) fn negative_ack_received(
        &mut self,
        id: NodeId,
        seq: WriteSeq,
        disk_stays: bool,
    ) -> Result<(), String> {
        if !disk_stays {
            return self.write_acked(id, seq, Protocol::C, false);
        }
        let takes_writes = self.takes_writes();
        let Some(sent) = self.peer_mut(id).and_then(|p| p.logged(seq)) else { return Ok(()) };
        sent.acked = true;
        let SentWrite { key, range, .. } = *sent;
        self.mark_out_of_sync(id, range);
        if takes_writes {
            return Err(format!("write {} failed on a disk that is not the only one, and stays", seq.0));
        }
        self.write_leg_ended(key, id, false);
        Ok(())
    }

    /// The peer has every write of an epoch, behind its barrier.
    pub(super) fn barrier_acked(&mut self, id: NodeId, epoch: Epoch, writes: u32) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        let Some(barrier) = peer.barriers.front().copied() else { return Ok(()) };
        if epoch < barrier.epoch {
            return Ok(());
        }
        if epoch != barrier.epoch || writes != barrier.writes {
            return Err(format!(
                "BAD! BarrierAck #{} received with n_writes={writes}, expected #{} with n_writes={}!",
                epoch.0, barrier.epoch.0, barrier.writes
            ));
        }
        peer.barriers.pop_front();
        // The writes whose own acknowledgement this stands for.
        let (mut log, mut held_bytes, mut written) = (std::mem::take(&mut peer.transfer_log), 0, Vec::new());
        let has_disk = self.has_good_disk();
        while let Some(sent) = log.front().copied().filter(|w| w.epoch <= epoch) {
            log.pop_front();
            held_bytes += sent.held_bytes;
            if sent.logged {
                self.release_for_peer(sent.range);
            }
            if !sent.acked || !has_disk {
                written.push(sent.key);
            }
        }
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        peer.transfer_log = log;
        peer.unconfirmed_bytes -= held_bytes;
        if barrier.flush {
            peer.all_durable =
                peer.transfer_log.is_empty() && peer.barriers.is_empty() && peer.epoch_writes == 0;
        }
        self.rely_on_peers_disk(id);
        for key in written {
            self.write_leg_ended(key, id, true);
        }
        if barrier.flush {
            self.durable_leg_ended(id, Some(epoch), true);
        }
        Ok(())
    }

    /// The peer gets no more writes: all that it may lack is marked, all that waits for it goes on without it.
    pub(super) fn abandon_transfer_log(&mut self, id: NodeId) {
        let only_copy = self.role == Role::Primary && !self.has_good_disk();
        let may_lose = only_copy && self.peer(id).is_some_and(|p| !p.all_durable);
        if may_lose {
            self.rely_on_what_peer_has(id);
        }
        let Some(peer) = self.peer_mut(id) else { return };
        let log = std::mem::take(&mut peer.transfer_log);
        peer.unconfirmed_bytes = 0;
        peer.pulling_ahead = None;
        peer.barriers.clear();
        peer.epoch_writes = 0;
        peer.all_durable = !may_lose;
        let disk_failed = self.peer(id).is_some_and(|p| p.disk == DiskState::Failed);
        for sent in &log {
            let forgotten = seeded!(self, ForgetsInFlight)
                || seeded!(self, ForgetsAtWriteAck) && sent.acked
                || seeded!(self, DiskFailureForgetsBits) && disk_failed;
            if !forgotten {
                self.mark_out_of_sync(id, sent.range);
            }
            if sent.logged {
                self.release_for_peer(sent.range);
            }
        }
        let undecided = !log.is_empty() || !self.writes.is_empty();
        if self.is_frozen() || self.lacks_quorum() {
            self.generation_deferred |= undecided;
        } else if undecided || self.role != Role::Primary {
            self.begin_generation_if_alone();
        }
        for sent in &log {
            self.write_leg_ended(sent.key, id, false);
        }
        self.durable_leg_ended(id, None, false);
        self.retry_reads_of(id);
    }

    /// A peer whose data has become old without being renewed confirms nothing any more.
    pub(super) fn abandon_useless_logs(&mut self) {
        for id in self.peer_ids() {
            let useless = self.peer(id).is_some_and(|p| {
                let unconfirmed = !p.transfer_log.is_empty() || !p.barriers.is_empty();
                unconfirmed && !p.replicates() && p.replication != ReplicationState::Ahead
            });
            if useless {
                self.abandon_transfer_log(id);
            }
        }
    }

    // What a peer lacks.

    /// Marks a range that the peer lacks, or may lack.
    pub(super) fn mark_out_of_sync(&mut self, id: NodeId, range: ByteRange) {
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return };
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.bitmaps[slot].set_range(range);
        }
    }

    /// Blocks marked in the bitmap for the peer.
    pub(super) fn dirty_blocks(&self, id: NodeId) -> u64 {
        match (self.peer(id), self.disk.metadata.as_ref()) {
            (Some(peer), Some(metadata)) => metadata.bitmaps[peer.slot].set_count(),
            _ => 0,
        }
    }

    /// The peer's slot in the superblock, while a disk is attached.
    pub(super) fn slot(&self, id: NodeId) -> Option<&PeerSlot> {
        let slot = self.peer(id)?.slot;
        self.disk.metadata.as_ref()?.superblock.peers.get(slot)
    }

    pub(super) fn slot_mut(&mut self, id: NodeId) -> Option<&mut PeerSlot> {
        let slot = self.peer(id)?.slot;
        self.disk.metadata.as_mut()?.superblock.peers.get_mut(slot)
    }

    // Generations.

    /// Where data goes on without a peer, a new generation begins: with a write of the Primary, or as the one good
    /// copy behind a Primary that has lost its disk. It is on disk before a write of it completes.
    pub(super) fn begin_generation_if_alone(&mut self) {
        let primary_has_no_disk =
            self.peers.iter().any(|p| p.is_connected() && p.role == Role::Primary && p.lost_disk());
        if self.role != Role::Primary && !primary_has_no_disk || self.announced_disk() != DiskState::UpToDate
        {
            return;
        }
        if seeded!(self, KeepsGeneration) {
            return;
        }
        if self.is_alone_in_generation() {
            self.begin_generation();
        }
    }

    /// A peer that gets no writes may have the current generation: it must not go on under that name.
    pub(super) fn is_alone_in_generation(&self) -> bool {
        let current = self.disk.metadata.as_ref().map_or(0, |m| m.superblock.generations.current);
        let may_have_current =
            |p: &Peer| self.slot(p.id()).is_some_and(|s| s.bitmap_id == 0 || s.resync_id == current);
        self.peers.iter().any(|p| !p.replicates() && may_have_current(p))
    }

    /// Draws a new current identifier; peers that get no writes have stayed with the old one, or with an older one.
    pub(super) fn begin_generation(&mut self) {
        let id = self.new_generation_id();
        let fresh_counts = seeded!(self, FreshDisksAreRelated);

        let left_behind: Vec<(usize, bool)> =
            self.peers.iter().filter(|p| !p.replicates()).map(|p| (p.slot, p.parted_as_primary)).collect();
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let superblock = &mut metadata.superblock;
        let was_fresh = superblock.generations.is_fresh() && !fresh_counts;
        let old = std::mem::replace(&mut superblock.generations.current, id);
        // Two fresh disks have no data in common: what never held data is nobody's ancestor.
        for (slot, stayed_primary) in left_behind.into_iter().filter(|_| !was_fresh) {
            let slot = &mut superblock.peers[slot];
            if slot.bitmap_id == 0 {
                slot.bitmap_id = parting_identifier(old, stayed_primary);
            } else {
                superblock.generations.remember(old);
            }
        }
        self.disk.generation_version = self.disk.persist.request(false);
        self.disk.generation_before = old;
        self.note(None, Level::Info, format!("new current generation {id:016X}, was {old:016X}"));
    }

    pub(super) fn generation_is_durable(&self) -> bool {
        !self.disk.is_usable() || self.disk.persist.is_durable(self.disk.generation_version)
    }
}
