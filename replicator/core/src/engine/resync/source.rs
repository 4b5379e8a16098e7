//! The source: it reads what the target asks for, and forgets a block when the target has written it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::REQUEST_BYTES;
use super::compare::{Digests, Purpose, ResyncRead};
use super::controller::{MAX_WINDOW_BYTES, Pace, source_limit};
use crate::engine::Engine;
use crate::engine::passed_on::RETRY_MS;
use crate::engine::ranges::Locked;
use crate::io::Payload;
use crate::seeded;
use crate::state::{DiskState, ReplicationState};
use crate::units::{ByteRange, NodeId, Timestamp};
use crate::wire::Message;

/// This node as the source of a resync.
#[derive(Clone, Default, Debug)]
pub(in crate::engine) struct SourceState {
    /// Tells it from former ones; 0 while there is none.
    id: u64,
    /// Asked for and not written by the target.
    asked_bytes: u64,
    /// Sent, and not written by the target: where each begins, and how long it is.
    sent: BTreeMap<u64, u64>,
    /// Those that wait for their turn beside the clients.
    waiting: VecDeque<Asked>,
    /// Those that could not be read: when each is tried again.
    unreadable: VecDeque<(Timestamp, Asked)>,
    pace: Pace,
}

/// What a target asks for; with digests, only as far as it differs.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) range: ByteRange,
    pub(super) digests: Option<Digests>,
}

impl SourceState {
    pub(super) fn new(id: u64) -> Self {
        SourceState { id, ..SourceState::default() }
    }

    /// Bytes sent and not written by the target.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Pieces sent and not written by the target.
    pub(super) fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Requests that have their turn still before them.
    pub(super) fn waiting(&self) -> u64 {
        (self.waiting.len() + self.unreadable.len()) as u64
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// When the next read may start, if one waits.
    pub(super) fn next_read_at(&self) -> Option<Timestamp> {
        let turn = self.waiting.front().map(|_| self.pace.free_at());
        turn.into_iter().chain(self.unreadable.front().map(|(at, _)| *at)).min()
    }
}

impl Engine {
    /// The target's disk says that it is one, whether or not it may ask for anything yet.
    pub(in crate::engine) fn resync_ready_received(&mut self, id: NodeId) -> Result<(), String> {
        if let Some(peer) = self.peer_mut(id).filter(|p| p.replication.is_source()) {
            peer.target_is_marked = true;
        }
        Ok(())
    }

    pub(in crate::engine) fn resync_requested(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        self.resync_asked(id, Asked { range, digests: None })
    }

    pub(super) fn resync_asked(&mut self, id: NodeId, asked: Asked) -> Result<(), String> {
        if !self.is_addressable(asked.range) || asked.range.length > REQUEST_BYTES {
            return Err(format!("the target asked for {}", asked.range));
        }
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if !peer.replication.is_source() {
            // Our disk failed meanwhile; the target will hear of it.
            return Ok(());
        }
        if peer.source.asked_bytes + asked.range.length > MAX_WINDOW_BYTES {
            return Err("the target asks for more than its window allows".into());
        }
        peer.source.asked_bytes += asked.range.length;
        peer.source.waiting.push_back(asked);
        Ok(())
    }

    /// Reads for the target, unless clients come first; true if there may be more to read.
    pub(super) fn serve_next_request(&mut self, id: NodeId) -> bool {
        let now = self.now;
        let limit = source_limit(&self.config.options.resync, self.clients_are_active());
        let Some(peer) = self.peer_mut(id) else { return false };
        if peer.source.next_read_at().is_none_or(|at| at > now) {
            return false;
        }
        let again = peer.source.unreadable.front().is_some_and(|(at, _)| *at <= now);
        let again = if again { peer.source.unreadable.pop_front() } else { None };
        again.into_iter().for_each(|(_, asked)| peer.source.waiting.push_front(asked));
        if peer.source.pace.free_at() > now {
            return false;
        }
        let Some(Asked { range, digests }) = peer.source.waiting.pop_front() else { return false };
        peer.source.pace.spend(now, range.length, limit);
        let resync = peer.source.id;
        let token = self.key();
        let read = ResyncRead { peer: id, resync, range, token, purpose: Purpose::Answer(digests) };
        if seeded!(self, ResyncIgnoresWrites) {
            self.start_resync_read(read);
        } else {
            self.acquire(token, range, Locked::ResyncRead(read));
        }
        true
    }

    /// It could not be read, and nobody has it: the target waits.
    pub(super) fn read_again_later(&mut self, id: NodeId, asked: Asked) {
        let at = self.now.plus_ms(RETRY_MS);
        if let Some(peer) = self.peer_mut(id).filter(|p| p.replication.is_source()) {
            peer.source.unreadable.push_back((at, asked));
        }
    }

    /// What the target asked for was read.
    pub(super) fn answer(&mut self, id: NodeId, range: ByteRange, data: Bytes, digests: Option<Digests>) {
        if self.peer(id).is_none_or(|p| !p.replication.is_source()) {
            return;
        }
        match digests {
            None => self.answer_with_data(id, range, data),
            Some(digests) => self.answer_what_differs(id, range, &data, &digests),
        }
        if seeded!(self, ClearsOnSend) {
            self.clear_bits(id, range);
        }
    }

    /// Zeroes travel as such, and leave a hole where the target's disk can have one.
    pub(super) fn answer_with_data(&mut self, id: NodeId, range: ByteRange, data: Bytes) {
        self.note_sent(id, range);
        if data.iter().all(|byte| *byte == 0) {
            self.send(id, Message::ResyncZeroes { range });
        } else {
            self.send(id, Message::ResyncData { offset: range.offset, payload: Payload::new(data) });
        }
    }

    /// The target's word that it has this range will be believed, once.
    pub(super) fn note_sent(&mut self, id: NodeId, range: ByteRange) {
        if let Some(peer) = self.peer_mut(id) {
            peer.source.sent.insert(range.offset, range.length);
        }
    }

    /// The proof that both copies are equal there: this range was sent, and is on the target's disk.
    pub(in crate::engine) fn resync_written(
        &mut self,
        id: NodeId,
        range: ByteRange,
        written: bool,
    ) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id).filter(|p| p.replication.is_source()) else { return Ok(()) };
        if peer.source.sent.remove(&range.offset) != Some(range.length) {
            return Err(format!("the target says it wrote {range}, which it was not sent"));
        }
        peer.source.asked_bytes = peer.source.asked_bytes.saturating_sub(range.length);
        if written {
            self.clear_bits(id, range);
        }
        Ok(())
    }

    pub(in crate::engine) fn resync_done_received(&mut self, id: NodeId) -> Result<(), String> {
        if self.is_of_the_past(id) {
            return Ok(());
        }
        if self.peer(id).is_none_or(|p| !p.replication.is_source()) {
            return Err("the end of a resync that is not under way".into());
        }
        let left = self.dirty_blocks(id);
        if left > 0 {
            return Err(format!("the target says it is complete, {left} blocks are not"));
        }
        if let Some(slot) = self.slot_mut(id) {
            let ended = std::mem::take(&mut slot.bitmap_id);
            (slot.resync_id, slot.overcounted) = (0, false);
            if let Some(metadata) = self.disk.metadata.as_mut() {
                metadata.superblock.generations.remember(ended);
                metadata.superblock.flags.crashed_primary = false;
            }
        }
        self.disk.persist.request(true);
        self.note_done(id, "Resync");
        self.abort_resync(id);
        self.set_peer_disk(id, DiskState::UpToDate);
        self.set_replication(id, ReplicationState::Established);
        Ok(())
    }
}
