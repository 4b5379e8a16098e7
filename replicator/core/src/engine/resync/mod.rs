//! Resync: the target walks its bitmap and asks, the source reads and answers.
//!
//! Both send their bitmaps and work on the union. The target records on disk that it is Inconsistent, and what is
//! missing, before it changes a block. A block's bit is cleared by the target when it is written, by the source when
//! the target says so; on disk only behind a flush of the data. Writes of the Primary are replicated from the moment
//! its bitmap was sent, and take turns with resync reads and writes of the same range.
//!
//! Rooms: [`target`], [`source`], [`compare`] (by checksums), [`controller`] (how fast), [`pause`], [`progress`] (for the
//! operator). Here: how it begins and ends.

mod compare;
mod controller;
mod pause;
mod progress;
mod source;
mod target;

use bytes::Bytes;

use super::Engine;
use super::disk::DiskWork;
use super::peer::Peer;
use crate::bitmap::{Bitmap, PAGE_BYTES};
use crate::generation::same;
use crate::handler::{Handler, HandlerOutcome};
use crate::io::{Level, Payload};
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{BLOCK_BYTES, ByteRange, HandlerId, NodeId, Timestamp};
use crate::wire::{Handshake, Message};

pub(super) use compare::ResyncRead;
pub(super) use controller::{Controller, Turn};
pub(super) use pause::{OwnPause, PeerPause};
pub(super) use progress::{Progress, VolumeBlocks};
pub(super) use source::SourceState;
pub(super) use target::TargetState;

/// Longest request of a target.
const REQUEST_BYTES: u64 = 1 << 20;
/// Clients count as at work for this time after a request.
const CLIENTS_ACTIVE_MS: u64 = 20;

impl Engine {
    // The bitmaps meet.

    pub(super) fn become_source(&mut self, id: NodeId, full: bool, theirs: &Handshake) {
        self.count_from_missed_finish(id, theirs.generations.current);
        self.send_bitmap(id, full);
        let (now, source) = (self.now, SourceState::new(self.key()));
        if let Some(peer) = self.peer_mut(id) {
            peer.source = source;
            peer.target_is_marked = false;
            peer.target_since = now;
        }
        let current = self.disk.metadata.as_ref().map_or(0, |m| m.superblock.generations.current);
        if let Some(slot) = self.slot_mut(id) {
            (slot.resync_id, slot.gave_up) = (current, false);
        }
        // Whatever this node thought of its data: nobody has newer.
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.flags.set_up_to_date();
        }
        self.disk.persist.request(false);
        self.set_disk(DiskState::UpToDate);
        self.set_replication(id, ReplicationState::WFBitMapS);
    }

    /// The peer tells that it saw the end of a resync that we missed, and we have begun another generation since: that
    /// end is what the bitmap counts from now, for the next resync may be missed as well.
    fn count_from_missed_finish(&mut self, id: NodeId, has: u64) {
        let forget = seeded!(self, ForgetsMissedFinish);
        let current = self.disk.metadata.as_ref().map_or(0, |m| m.superblock.generations.current);
        let Some(slot) = self.slot_mut(id) else { return };
        if !same(slot.resync_id, has) || same(current, has) || forget {
            return;
        }
        let ended = std::mem::replace(&mut slot.bitmap_id, slot.resync_id);
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.generations.remember(ended);
        }
    }

    pub(super) fn become_target(&mut self, id: NodeId, full: bool, mine: &Handshake, theirs: &Handshake) {
        self.send_bitmap(id, full);
        let now = self.now;
        let options = &self.config.options.resync;
        let wanted = !options.csums_after_crash_only || mine.crashed_primary || theirs.crashed_primary;
        // Clients of a Primary would wait while both read and compare.
        let csums = options.csums_algorithm.filter(|_| wanted && self.role != Role::Primary);
        let mut source = theirs.generations;
        source.remember(theirs.bitmap_id);
        let target = TargetState::new(self.key(), source, csums, now);
        if let Some(peer) = self.peer_mut(id) {
            peer.target = Some(target);
        }
        self.set_replication(id, ReplicationState::WFBitMapT);
        // The peer's data is newer: ours may not be promoted, whatever becomes of the connection.
        if let Some(metadata) = self.disk.metadata.as_mut().filter(|m| m.superblock.flags.up_to_date) {
            metadata.superblock.flags.up_to_date = false;
            self.disk.persist.request(false);
        }
        self.set_disk(self.disk.state.min(DiskState::Outdated));
    }

    pub(super) fn send_bitmap(&mut self, id: NodeId, full: bool) {
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return };
        let Some(bitmap) = self.disk.metadata.as_mut().map(|m| &mut m.bitmaps[slot]) else { return };
        if full {
            bitmap.set_all();
        }
        let chunks: Vec<(u64, Bytes)> = (0..bitmap.pages())
            .filter(|page| bitmap.page_has_bits(*page))
            .map(|page| {
                (page, if bitmap.page_is_full(page) { Bytes::new() } else { bitmap.page(page).into() })
            })
            .collect();
        for (chunk, words) in chunks {
            self.send(id, Message::BitmapChunk { chunk, words: Payload::new(words) });
        }
        self.send(id, Message::BitmapEnd);
    }

    pub(super) fn bitmap_chunk_received(
        &mut self,
        id: NodeId,
        chunk: u64,
        words: &[u8],
    ) -> Result<(), String> {
        if self.is_parting(id) {
            return self.marks_received(id, chunk, words);
        }
        if self.is_of_the_past(id) {
            return Ok(());
        }
        self.expect_bitmap(id)?;
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return Ok(()) };
        let Some(bitmap) = self.disk.metadata.as_mut().map(|m| &mut m.bitmaps[slot]) else { return Ok(()) };
        merge_piece(bitmap, chunk, words)
    }

    pub(super) fn bitmap_end_received(&mut self, id: NodeId) -> Result<(), String> {
        if self.is_parting(id) {
            return self.all_marks_received(id);
        }
        if self.is_of_the_past(id) {
            return Ok(());
        }
        if !self.expect_bitmap(id)? {
            self.announce_resync(id, Handler::BeforeResyncSource);
        } else if let Some(peer) = self.peer_mut(id) {
            peer.draining = true;
        }
        Ok(())
    }

    /// A target that was written to until now: its data stands still before anything is made of it.
    pub(super) fn begin_drained_resyncs(&mut self) {
        for id in self.peer_ids() {
            let drained = |p: &&mut Peer| p.draining && p.receiver.is_drained();
            if let Some(peer) = self.peer_mut(id).filter(drained) {
                peer.draining = false;
                self.announce_resync(id, Handler::BeforeResyncTarget);
            }
        }
    }

    fn announce_resync(&mut self, id: NodeId, handler: Handler) {
        let run = self.run_handler(handler, Some(id));
        let ignored = seeded!(self, ResyncIgnoresHandler);
        match self.peer_mut(id) {
            Some(peer) if run.is_some() && !ignored => peer.before_resync = run,
            _ => self.begin_resync(id, handler == Handler::BeforeResyncTarget),
        }
    }

    /// The handler before a resync has ended; if it does not want the resync, the connection is given up.
    pub(super) fn before_resync_done(
        &mut self,
        id: NodeId,
        run: HandlerId,
        handler: Handler,
        outcome: HandlerOutcome,
    ) {
        let as_target = handler == Handler::BeforeResyncTarget;
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.before_resync.take_if(|waiting| *waiting == run).is_none() {
            return;
        }
        match outcome {
            HandlerOutcome::Exited(0) => self.begin_resync(id, as_target),
            // What tools older than the handler answer.
            HandlerOutcome::Exited(3) if !as_target => self.begin_resync(id, as_target),
            HandlerOutcome::Exited(code) => {
                let text = format!("{handler} handler returned {code}, dropping connection.");
                self.leave_because(id, text);
            }
            HandlerOutcome::NotStarted | HandlerOutcome::TimedOut => {
                self.leave_because(id, format!("{handler} handler {outcome}, dropping connection."));
            }
        }
    }

    fn begin_resync(&mut self, id: NodeId, as_target: bool) {
        let by_volume = self.dirty_by_volume(id);
        let (now, blocks) = (self.now, by_volume.total());
        if let Some(peer) = self.peer_mut(id) {
            peer.progress = Some(Progress::new(now, by_volume));
        }
        let (role, kib) = (if as_target { "SyncTarget" } else { "SyncSource" }, blocks * BLOCK_BYTES / 1024);
        let text = format!("Began resync as {role} (will sync {kib} KB [{blocks} bits set]).");
        self.note(Some(id), Level::Info, text);
        if as_target {
            self.prepare_target(id, blocks);
        } else {
            self.set_replication(id, ReplicationState::SyncSource);
        }
    }

    /// The peer speaks of a resync that the end of our disk has ended; it had not heard of that.
    pub(super) fn is_of_the_past(&self, id: NodeId) -> bool {
        !self.disk.is_usable() || self.disk.leaving || self.peer(id).is_some_and(|p| p.in_round)
    }

    /// True as the target, false as the source.
    fn expect_bitmap(&self, id: NodeId) -> Result<bool, String> {
        match self.peer(id).map(|p| p.replication) {
            Some(ReplicationState::WFBitMapT) => Ok(true),
            Some(ReplicationState::WFBitMapS) => Ok(false),
            other => Err(format!("a bitmap arrived in replication state {other:?}")),
        }
    }

    // How fast.

    /// Asks for more blocks, and serves those that peers ask for, as far as both are due.
    pub(super) fn progress_resyncs(&mut self) {
        for id in self.peer_ids() {
            self.progress_pause(id);
            self.note_progress(id);
            while self.request_next_run(id) {}
            while self.serve_next_request(id) {}
        }
    }

    /// When a resync or a verify may go on that has to wait for nothing but time.
    pub(super) fn resync_deadline(&self) -> Option<Timestamp> {
        let of_peer = |p| {
            [self.next_request_at(p), p.source.next_read_at(), self.next_piece_at(p)].into_iter().flatten()
        };
        self.peers.iter().flat_map(of_peer).min()
    }

    /// What the target of a resync asks for per second, or the node that walks in a verify.
    fn wanted_bytes_per_s(&self, peer: &Peer) -> u64 {
        controller(peer)
            .map_or(0, |c| c.wanted_bytes_per_s(&self.config.options.resync, self.clients_are_active()))
    }

    /// Bytes of a resync or a verify that are under way with a peer.
    pub(super) fn resync_in_flight_bytes(&self, peer: &Peer) -> u64 {
        controller(peer).map_or(0, Controller::outstanding_bytes) + peer.source.sent_bytes()
    }

    /// What was asked of the peer for a resync or a verify, and pieces sent to it, that are not done.
    pub(super) fn resync_pending(&self, peer: &Peer) -> u64 {
        controller(peer).map_or(0, Controller::outstanding) + peer.source.sent()
    }

    /// What the peer has asked for of a resync and was not sent.
    pub(super) fn resync_unacked(&self, peer: &Peer) -> u64 {
        if !peer.replication.is_source() {
            return 0;
        }
        let is_read = |work: &DiskWork| matches!(work, DiskWork::ResyncRead(read) if read.peer == peer.id());
        let reads = self.disk.operations.values().filter(|operation| is_read(&operation.work));
        peer.source.waiting() + reads.count() as u64
    }

    /// A client's request has come, here or on the Primary that sends it on.
    pub(super) fn note_client_request(&mut self) {
        self.client_request_at = Some(self.now);
    }

    pub(super) fn clients_are_active(&self) -> bool {
        let recent = |at: Timestamp| self.now.ms_since(at) < CLIENTS_ACTIVE_MS;
        self.clients_pending() > 0 || self.client_request_at.is_some_and(recent)
    }

    // Ends.

    /// Forgets the resync with a peer, complete or not; the bits say what is missing.
    pub(super) fn abort_resync(&mut self, id: NodeId) {
        self.abort_verify(id);
        let held = self.peer_mut(id).and_then(|p| p.target.take()).map(|target| target.held);
        held.into_iter().for_each(|held| self.release_all(held));
        if let Some(peer) = self.peer_mut(id) {
            peer.progress = None;
            peer.source = SourceState::default();
            peer.before_resync = None;
            peer.draining = false;
        }
    }

    /// Our disk is gone.
    pub(super) fn abort_resyncs_without_disk(&mut self) {
        self.part_from_peers_behind();
        for id in self.peer_ids() {
            self.abort_resync(id);
            if self.peer(id).is_some_and(|p| p.is_connected()) {
                self.set_replication(id, ReplicationState::Established);
            }
        }
    }

    fn clear_bits(&mut self, id: NodeId, range: ByteRange) {
        let volume_bytes = self.size_bytes();
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return };
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.bitmaps[slot].clear_range(range, volume_bytes);
        }
    }
}

/// What decides how fast this node asks, as a target or in a verify that it walks.
fn controller(peer: &Peer) -> Option<&Controller> {
    peer.target.as_ref().map(TargetState::controller).or_else(|| peer.verify.as_ref()?.controller())
}

/// Takes a peer's piece of a bitmap over.
pub(super) fn merge_piece(bitmap: &mut Bitmap, chunk: u64, words: &[u8]) -> Result<(), String> {
    if chunk >= bitmap.pages() || !(words.is_empty() || words.len() == PAGE_BYTES) {
        return Err(format!("piece {chunk} of the bitmap has {} bytes", words.len()));
    }
    bitmap.merge_page(chunk, words);
    Ok(())
}
