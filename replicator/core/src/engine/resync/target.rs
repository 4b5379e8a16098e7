//! The target: it notes on disk that it is one, asks for what its bitmap says, and writes what comes.

use super::controller::{Controller, Turn};
use crate::bitmap::bytes_of;
use crate::digest::DigestAlgorithm;
use crate::engine::Engine;
use crate::engine::passed_on::RETRY_MS;
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::engine::primary_disk::HeldRanges;
use crate::engine::receiver::What;
use crate::generation::Generations;
use crate::handler::Handler;
use crate::io::Payload;
use crate::seeded;
use crate::state::{DiskState, ReplicationState};
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};
use crate::wire::Message;

/// This node as the target of a resync.
#[derive(Clone, Debug)]
pub(in crate::engine) struct TargetState {
    /// The source's generations, ours when the resync is complete.
    source: Generations,
    /// The disk says that it is Inconsistent: blocks may be changed.
    ready: bool,
    finishing: bool,
    /// It asks by digest.
    csums: Option<DigestAlgorithm>,
    next_block: u64,
    controller: Controller,
    /// Blocks that could not be written are tried again, not before this time.
    failed: bool,
    rests_until: Option<Timestamp>,
    /// Tells it from former ones.
    id: u64,
    /// As Primary: what was asked for and has not come. Clients' writes wait for it.
    pub(in crate::engine) held: HeldRanges,
}

impl TargetState {
    /// How fast it asks.
    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    pub(super) fn new(id: u64, source: Generations, csums: Option<DigestAlgorithm>, now: Timestamp) -> Self {
        TargetState {
            source,
            ready: false,
            finishing: false,
            csums,
            next_block: 0,
            controller: Controller::new(now),
            failed: false,
            rests_until: None,
            id,
            held: HeldRanges::default(),
        }
    }

    pub(in crate::engine) fn id(&self) -> u64 {
        self.id
    }

    /// The disk says that it is a mixture.
    pub(in crate::engine) fn is_ready(&self) -> bool {
        self.ready
    }

    /// It asks by digest.
    pub(super) fn compares(&self) -> bool {
        self.csums.is_some()
    }
}

impl Engine {
    /// Nothing may change on the disk before it says what it is. Without a difference it stays what it is.
    pub(super) fn prepare_target(&mut self, id: NodeId, blocks: u64) {
        let session = self.peer(id).map_or(0, |p| p.session);
        if blocks == 0 {
            self.set_replication(id, ReplicationState::SyncTarget);
            return self.finish_target(id);
        }
        let to = self.peer(id).and_then(|p| p.target.as_ref()).map_or(0, |t| t.source.current);
        self.begin_undo_log(to);
        if !seeded!(self, TargetStaysUpToDate)
            && let Some(metadata) = self.disk.metadata.as_mut()
        {
            metadata.superblock.flags.consistent = false;
            metadata.superblock.flags.up_to_date = false;
        }
        self.set_disk(DiskState::Inconsistent);
        let version = self.disk.persist.request_then(true, Then::TargetReady(id, session));
        if let Some(peer) = self.peer_mut(id) {
            peer.stalled_until = Some(version);
        }
    }

    pub(in crate::engine) fn target_ready(&mut self, id: NodeId, session: u32) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.session == session && p.link_up) else { return };
        let Some(target) = peer.target.as_mut() else { return };
        target.ready = true;
        self.send(id, Message::ResyncReady);
        self.set_replication(id, ReplicationState::SyncTarget);
    }

    /// Asks for more blocks, or ends the resync; true if it may go on.
    pub(super) fn request_next_run(&mut self, id: NodeId) -> bool {
        let (now, volume_bytes, active) = (self.now, self.size_bytes(), self.clients_are_active());
        let options = &self.config.options.resync;
        let paused = self.peer(id).is_some_and(|p| self.is_paused(p));
        let Some(peer) = self.peers.iter_mut().find(|p| p.id() == id) else { return false };
        let slot = peer.slot;
        let Some(target) = peer.target.as_mut().filter(|t| t.ready && !t.finishing) else { return false };
        let Some(metadata) = self.disk.metadata.as_ref() else { return false };
        let (bitmap, layout) = (&metadata.bitmaps[slot], &metadata.superblock.layout);
        let outstanding = target.controller.outstanding_bytes() > 0;
        if bitmap.set_count() == 0 && !outstanding {
            // A source that leaves has asked that this copy stays old.
            if !self.disk.persist.is_outdating_for(id) {
                self.finish_target(id);
            }
            return false;
        }
        if paused {
            if seeded!(self, PauseEndsResync) && !outstanding {
                self.finish_target(id);
            }
            return false;
        }
        if target.rests_until.is_some_and(|at| at > now) {
            return false;
        }
        let Turn::Now(most_bytes) = target.controller.turn(options, now, active) else { return false };
        match bitmap.next_run(target.next_block, most_bytes / BLOCK_BYTES) {
            Some(mut run) => {
                run.end = run.end.min(layout.slot_end(run.start * BLOCK_BYTES) / BLOCK_BYTES);
                let range = bytes_of(&run, volume_bytes);
                target.next_block = run.end;
                target.controller.asked(options, now, active, range.length);
                match target.csums {
                    Some(algorithm) => self.read_to_compare(id, range, algorithm),
                    None => self.ask_for(id, range),
                }
                true
            }
            None if outstanding => false,
            None => {
                let failed = std::mem::take(&mut target.failed);
                target.rests_until = failed.then(|| now.plus_ms(RETRY_MS));
                target.next_block = 0;
                true
            }
        }
    }

    /// When this node, as the target, may ask again.
    pub(super) fn next_request_at(&self, peer: &Peer) -> Option<Timestamp> {
        let target =
            peer.target.as_ref().filter(|t| t.ready && !t.finishing).filter(|_| !self.is_paused(peer))?;
        if let Some(at) = target.rests_until.filter(|at| *at > self.now) {
            return Some(at);
        }
        match target.controller.turn(&self.config.options.resync, self.now, self.clients_are_active()) {
            Turn::At(at) => Some(at),
            Turn::Now(_) | Turn::WhenAnswered => None,
        }
    }

    pub(in crate::engine) fn resync_data_received(
        &mut self,
        id: NodeId,
        offset: u64,
        payload: Payload,
    ) -> Result<(), String> {
        let range = ByteRange::new(offset, payload.len());
        self.resync_answer(id, range, What::Resync { payload })
    }

    pub(in crate::engine) fn resync_zeroes_received(
        &mut self,
        id: NodeId,
        range: ByteRange,
    ) -> Result<(), String> {
        self.resync_answer(id, range, What::ResyncZeroes)
    }

    pub(super) fn resync_answer(&mut self, id: NodeId, range: ByteRange, what: What) -> Result<(), String> {
        if !self.is_addressable(range) {
            return Err(format!("resync data for {range} lies outside the volume"));
        }
        let (token, volume) = (self.key(), self.layout().index_at(range.offset));
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        let Some(target) = peer.target.as_ref() else { return Ok(()) };
        if target.controller.outstanding_bytes() < range.length {
            return Err(format!("resync data for {range} was not asked for"));
        }
        peer.received.add(volume, if let What::Resync { payload } = &what { payload.len() } else { 0 });
        let session = peer.session;
        self.enqueue(id, session, range, token, what)
    }

    pub(in crate::engine) fn resync_block_written(
        &mut self,
        id: NodeId,
        session: u32,
        range: ByteRange,
        ok: bool,
    ) {
        let (now, volume_bytes) = (self.now, self.size_bytes());
        let options = &self.config.options.resync;
        let live = |p: &&mut Peer| p.id() == id && p.session == session && p.link_up;
        let Some(peer) = self.peers.iter_mut().find(live) else { return };
        let slot = peer.slot;
        let Some(target) = peer.target.as_mut() else { return };
        target.controller.answered(options, now, range.length);
        if !ok {
            target.failed = true;
            return self.send(id, Message::ResyncWritten { range, written: false });
        }
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.bitmaps[slot].clear_range(range, volume_bytes);
        }
        self.send(id, Message::ResyncWritten { range, written: true });
    }

    /// Every block is here: it becomes durable, then the disk says that it holds the source's generation.
    fn finish_target(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let session = peer.session;
        let Some(target) = peer.target.as_mut() else { return };
        target.finishing = true;
        let source = target.source;
        let Some(slot) = self.slot_mut(id) else { return };
        let own_bitmap_id = std::mem::take(&mut slot.bitmap_id);
        (slot.resync_id, slot.gave_up, slot.overcounted) = (0, false, false);
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let superblock = &mut metadata.superblock;
            superblock.generations = source;
            superblock.generations.remember(own_bitmap_id);
            superblock.flags.consistent = true;
            superblock.flags.set_up_to_date();
            superblock.flags.crashed_primary = false;
        }
        let version = self.disk.persist.request_then(true, Then::TargetFinished(id, session));
        self.end_undo_log(version);
    }

    /// Whether or not the source still listens: the disk is as good as it was when the last block arrived.
    pub(in crate::engine) fn target_finished(&mut self, id: NodeId, session: u32) {
        self.set_disk(DiskState::UpToDate);
        if self.peer(id).is_some_and(|p| self.is_at_large(p)) {
            // A Primary that lost it before had nothing to go on with.
            self.fence_as_primary(id);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.discard_my_data = false;
        }
        // Its source's disk may have failed just before.
        self.serve_diskless_primary(id);
        self.tell_handler(Handler::AfterResyncTarget, Some(id));
        if self.peer(id).is_some_and(|p| p.session == session && p.link_up && p.target.is_some()) {
            self.send(id, Message::ResyncDone);
            self.note_done(id, "Resync");
            self.abort_resync(id);
            self.set_replication(id, ReplicationState::Established);
        }
    }
}
