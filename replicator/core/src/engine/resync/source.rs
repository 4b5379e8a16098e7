//! The source: it reads what the target asks for, and forgets a block when the target has written it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::REQUEST_BYTES;
use super::controller::{MAX_WINDOW_BYTES, Pace, source_limit};
use crate::engine::disk::DiskWork;
use crate::engine::{Engine, Locked};
use crate::io::{Device, DiskOpKind, Payload};
use crate::seeded;
use crate::state::{DiskState, ReplicationState};
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};
use crate::wire::Message;

/// Requests a source has at a time; a target that asks for more breaks the protocol.
const MAX_REQUESTS: u32 = (MAX_WINDOW_BYTES / BLOCK_BYTES) as u32;

/// This node as the source of a resync.
#[derive(Clone, Default, Debug)]
pub(in crate::engine) struct SourceState {
    /// Asked for and not written by the target.
    requests: u32,
    /// Sent, and not written by the target: where each begins, and how long it is.
    sent: BTreeMap<u64, u64>,
    /// Those that wait for their turn beside the clients.
    waiting: VecDeque<ByteRange>,
    pace: Pace,
}

impl SourceState {
    /// When the next read may start, if one waits.
    pub(super) fn next_read_at(&self) -> Option<Timestamp> {
        self.waiting.front().map(|_| self.pace.free_at())
    }
}

impl Engine {
    pub(in crate::engine) fn resync_requested(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        if !self.is_addressable(range) || range.length > REQUEST_BYTES {
            return Err(format!("the target asked for {range}"));
        }
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if !peer.replication.is_source() {
            // Our disk failed meanwhile; the target will hear of it.
            return Ok(());
        }
        if peer.source.requests >= MAX_REQUESTS {
            return Err("the target asks for more than its window allows".into());
        }
        peer.target_is_marked = true;
        peer.source.requests += 1;
        peer.source.waiting.push_back(range);
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
        let Some(range) = peer.source.waiting.pop_front() else { return false };
        peer.source.pace.spend(now, range.length, limit);
        let (session, token) = (peer.session, self.key());
        if seeded!(self, ResyncIgnoresWrites) {
            self.start_resync_read(id, session, range, token);
        } else {
            self.acquire(token, range, Locked::ResyncRead { peer: id, session, range, token });
        }
        true
    }

    pub(in crate::engine) fn start_resync_read(
        &mut self,
        peer: NodeId,
        session: u32,
        range: ByteRange,
        token: u64,
    ) {
        if self.disk.is_usable() {
            let work = DiskWork::ResyncRead { peer, session, range, token };
            self.start_disk_op(Device::Data, DiskOpKind::Read(range), work);
        } else {
            self.resync_read_done(peer, session, range, token, None);
        }
    }

    pub(in crate::engine) fn resync_read_done(
        &mut self,
        id: NodeId,
        session: u32,
        range: ByteRange,
        token: u64,
        data: Option<Bytes>,
    ) {
        let live =
            self.peer(id).is_some_and(|p| p.session == session && p.link_up && p.replication.is_source());
        if let (true, Some(data)) = (live, data) {
            if let Some(peer) = self.peer_mut(id) {
                peer.source.sent.insert(range.offset, range.length);
            }
            if data.iter().all(|byte| *byte == 0) {
                self.send(id, Message::ResyncZeroes { range });
            } else {
                self.send(id, Message::ResyncData { offset: range.offset, payload: Payload::new(data) });
            }
            if seeded!(self, ClearsOnSend) {
                self.clear_bits(id, range);
            }
        }
        self.release(token, range);
    }

    /// The proof that both copies are equal there: this range was sent, and is on the target's disk.
    pub(in crate::engine) fn resync_written(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id).filter(|p| p.replication.is_source()) else { return Ok(()) };
        if peer.source.sent.remove(&range.offset) != Some(range.length) {
            return Err(format!("the target says it wrote {range}, which it was not sent"));
        }
        peer.source.requests = peer.source.requests.saturating_sub(1);
        self.clear_bits(id, range);
        Ok(())
    }

    pub(in crate::engine) fn resync_done_received(&mut self, id: NodeId) -> Result<(), String> {
        if self.peer(id).is_none_or(|p| !p.replication.is_source()) {
            return Err("the end of a resync that is not under way".into());
        }
        let left = self.dirty_blocks(id);
        if left > 0 {
            return Err(format!("the target says it is complete, {left} blocks are not"));
        }
        if let Some(slot) = self.slot_mut(id) {
            let ended = std::mem::take(&mut slot.bitmap_id);
            slot.resync_id = 0;
            if let Some(metadata) = self.disk.metadata.as_mut() {
                metadata.superblock.generations.remember(ended);
                metadata.superblock.flags.crashed_primary = false;
            }
        }
        self.disk.persist.request(true);
        self.note_resync_done(id);
        self.abort_resync(id);
        self.set_peer_disk(id, DiskState::UpToDate);
        self.set_replication(id, ReplicationState::Established);
        Ok(())
    }
}
