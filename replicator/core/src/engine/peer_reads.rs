//! Reads for a Primary that works through this node: as many at a time as memory allows, the others in their order.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Engine;
use super::disk::DiskWork;
use super::receiver::{MAX_HELD_REQUESTS, What};
use crate::io::{Device, DiskOpKind, Payload};
use crate::state::DiskState;
use crate::units::{ByteRange, NodeId};
use crate::wire::{MAX_PAYLOAD_BYTES, Message};

/// Bytes that are read for a peer at a time: two of the largest requests. One is always let through.
const MAX_READ_BYTES: u64 = 2 * MAX_PAYLOAD_BYTES as u64;

/// What a peer wants to read.
#[derive(Clone, Default, Debug)]
pub(super) struct PeerReads {
    under_way_bytes: u64,
    waiting: VecDeque<(u64, ByteRange)>,
}

impl Engine {
    pub(super) fn read_requested(&mut self, peer: NodeId, id: u64, range: ByteRange) -> Result<(), String> {
        if range.length > u64::from(MAX_PAYLOAD_BYTES) {
            return Err(format!("a read of {} bytes was asked for", range.length));
        }
        if self.peer(peer).is_some_and(|p| p.reads.waiting.len() >= MAX_HELD_REQUESTS) {
            return Err("more reads are asked for than a Primary can have clients".into());
        }
        if self.disk.state != DiskState::UpToDate {
            self.send(peer, Message::ReadReply { id, payload: None });
            return Ok(());
        }
        self.receive(peer, range, What::Read { id }, None)
    }

    /// Its turn among the peer's writes has come.
    pub(super) fn serve_read(&mut self, peer: NodeId, session: u32, id: u64, range: ByteRange) {
        if let Some(p) = self.peer_mut(peer).filter(|p| p.session == session) {
            p.reads.waiting.push_back((id, range));
            self.start_peer_reads(peer, session);
        }
    }

    fn start_peer_reads(&mut self, peer: NodeId, session: u32) {
        while let Some(p) = self.peer_mut(peer) {
            let Some((id, range)) = p.reads.waiting.front().copied() else { return };
            let bytes = p.reads.under_way_bytes;
            if bytes > 0 && bytes + range.length > MAX_READ_BYTES {
                return;
            }
            p.reads.waiting.pop_front();
            p.reads.under_way_bytes += range.length;
            let work = DiskWork::PeerRead { peer, session, id, bytes: range.length };
            self.start_disk_op(Device::Data, DiskOpKind::Read(range), work);
        }
    }

    pub(super) fn peer_read_done(
        &mut self,
        peer: NodeId,
        session: u32,
        id: u64,
        bytes: u64,
        data: Option<Bytes>,
    ) {
        let Some(p) = self.peer_mut(peer).filter(|p| p.session == session) else { return };
        p.reads.under_way_bytes = p.reads.under_way_bytes.saturating_sub(bytes);
        self.send(peer, Message::ReadReply { id, payload: data.map(Payload::new) });
        if self.disk.is_usable() {
            self.start_peer_reads(peer, session);
        } else {
            self.refuse_peer_reads(peer);
        }
    }

    fn refuse_peer_reads(&mut self, peer: NodeId) {
        let Some(waiting) = self.peer_mut(peer).map(|p| std::mem::take(&mut p.reads.waiting)) else { return };
        for (id, _) in waiting {
            self.send(peer, Message::ReadReply { id, payload: None });
        }
    }
}
