//! The source: it reads what the target asks for, and forgets a block when the target has written it.

use bytes::Bytes;

use super::{REQUEST_BYTES, WINDOW_BYTES};
use crate::engine::disk::DiskWork;
use crate::engine::{Engine, Locked};
use crate::io::{Device, DiskOpKind, Payload};
use crate::seeded;
use crate::state::{DiskState, ReplicationState};
use crate::units::{BLOCK_BYTES, ByteRange, NodeId};
use crate::wire::Message;

/// Requests a source serves at a time; a target that asks for more breaks the protocol.
const MAX_READS: u32 = (WINDOW_BYTES / BLOCK_BYTES) as u32;

impl Engine {
    pub(in crate::engine) fn resync_requested(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        if !self.is_addressable(range) || range.length > REQUEST_BYTES {
            return Err(format!("the target asked for {range}"));
        }
        let token = self.key();
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if peer.replication != ReplicationState::SyncSource {
            // Our disk failed meanwhile; the target will hear of it.
            return Ok(());
        }
        if peer.resync_reads >= MAX_READS {
            return Err("the target asks for more than its window allows".into());
        }
        peer.target_is_marked = true;
        peer.resync_reads += 1;
        let session = peer.session;
        if seeded!(self, ResyncIgnoresWrites) {
            self.start_resync_read(id, session, range, token);
        } else {
            self.acquire(token, range, Locked::ResyncRead { peer: id, session, range });
        }
        Ok(())
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
        let live = self.peer(id).is_some_and(|p| {
            p.session == session && p.link_up && p.replication == ReplicationState::SyncSource
        });
        if let (true, Some(data)) = (live, data) {
            if let Some(peer) = self.peer_mut(id) {
                peer.resync_reads = peer.resync_reads.saturating_sub(1);
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

    pub(in crate::engine) fn resync_written(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        if !self.is_addressable(range) {
            return Err(format!("the target says it wrote {range}"));
        }
        if self.peer(id).is_some_and(|p| p.replication == ReplicationState::SyncSource) {
            self.clear_bits(id, range);
        }
        Ok(())
    }

    pub(in crate::engine) fn resync_done_received(&mut self, id: NodeId) -> Result<(), String> {
        if self.peer(id).is_none_or(|p| p.replication != ReplicationState::SyncSource) {
            return Err("the end of a resync that is not under way".into());
        }
        let left = self.dirty_blocks(id);
        if left > 0 {
            return Err(format!("the target says it is complete, {left} blocks are not"));
        }
        if let Some(slot) = self.slot_mut(id) {
            let ended = std::mem::take(&mut slot.bitmap_id);
            slot.resync_id = 0;
            slot.bits_volatile = false;
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
