//! Resync by checksums: the target sends digests of what it has, the source sends only the blocks that differ.
//!
//! Equal digests stand for equal blocks, so only strong ones are offered. The source's word that a block is equal is
//! true at its place in the stream: the target clears the bit when it has applied every write that came before it.

use bytes::Bytes;

use super::source::Asked;
use super::target::TargetState;
use crate::bitmap::PAGE_BITS;
use crate::digest::DigestAlgorithm;
use crate::engine::Engine;
use crate::engine::disk::DiskWork;
use crate::engine::ranges::Locked;
use crate::engine::receiver::What;
use crate::io::{Device, DiskOpKind, Payload};
use crate::seeded;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId};
use crate::wire::Message;

/// Digests of the blocks of a range, one after the other.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Digests {
    algorithm: DigestAlgorithm,
    bytes: Bytes,
}

/// A range that is read for a resync.
#[derive(Clone, Debug)]
pub(in crate::engine) struct ResyncRead {
    pub(in crate::engine) peer: NodeId,
    /// Of which resync: another may have begun on the same connection, with another disk, before the range is free.
    pub(super) resync: u64,
    pub(in crate::engine) range: ByteRange,
    pub(in crate::engine) token: u64,
    pub(super) purpose: Purpose,
}

#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// The source answers, with what differs if it got digests.
    Answer(Option<Digests>),
    /// The target asks with digests of what it has.
    Ask(DigestAlgorithm),
}

impl Engine {
    // Both sides.

    pub(in crate::engine) fn start_resync_read(&mut self, read: ResyncRead) {
        if self.disk.is_usable() {
            let kind = DiskOpKind::Read(read.range);
            self.start_disk_op(Device::Data, kind, DiskWork::ResyncRead(read));
        } else {
            self.resync_read_done(read, None);
        }
    }

    pub(in crate::engine) fn resync_read_done(&mut self, read: ResyncRead, data: Option<Bytes>) {
        let ResyncRead { peer, resync, range, token, purpose } = read;
        let live = self.peer(peer).filter(|p| p.link_up).is_some_and(|p| match purpose {
            Purpose::Answer(_) => p.source.id() == resync,
            Purpose::Ask(_) => p.target.as_ref().is_some_and(|target| target.id() == resync),
        });
        match (purpose, data) {
            _ if !live => {}
            (Purpose::Answer(digests), Some(data)) => self.answer(peer, range, data, digests),
            (Purpose::Ask(algorithm), Some(data)) => self.ask_with_digests(peer, range, algorithm, &data),
            _ if !self.disk.is_usable() => {}
            (Purpose::Answer(digests), None) => self.read_again_later(peer, Asked { range, digests }),
            (Purpose::Ask(_), None) => self.send(peer, Message::ResyncRequest { range }),
        }
        self.release(token, range);
    }

    // The target.

    /// Reads what the target has, to ask by digest.
    pub(super) fn read_to_compare(&mut self, id: NodeId, range: ByteRange, algorithm: DigestAlgorithm) {
        let Some(resync) = self.peer(id).and_then(|p| p.target.as_ref()).map(TargetState::id) else { return };
        let token = self.key();
        let read = ResyncRead { peer: id, resync, range, token, purpose: Purpose::Ask(algorithm) };
        self.acquire(token, range, Locked::ResyncRead(read));
    }

    fn ask_with_digests(&mut self, id: NodeId, range: ByteRange, algorithm: DigestAlgorithm, data: &[u8]) {
        let digests = Payload::new(algorithm.of_blocks(data).into());
        self.send(id, Message::ResyncCompare { range, algorithm, digests });
    }

    pub(in crate::engine) fn resync_in_sync_received(
        &mut self,
        id: NodeId,
        range: ByteRange,
    ) -> Result<(), String> {
        let Some(peer) = self.peer(id) else { return Ok(()) };
        if peer.target.as_ref().is_some_and(|target| !target.compares()) {
            return Err(format!("{range} is said to be equal, and was not to be compared"));
        }
        self.note_equal(id, range);
        self.resync_answer(id, range, What::ResyncInSync)
    }

    // The source.

    pub(in crate::engine) fn resync_compare_received(
        &mut self,
        id: NodeId,
        range: ByteRange,
        algorithm: DigestAlgorithm,
        digests: Payload,
    ) -> Result<(), String> {
        let blocks = range.length.div_ceil(BLOCK_BYTES);
        let whole = range.offset.is_multiple_of(BLOCK_BYTES) && blocks <= PAGE_BITS;
        if !whole || digests.len() != blocks * algorithm.digest_bytes() as u64 {
            return Err(format!("{} bytes of digests for {range}", digests.len()));
        }
        self.resync_asked(id, Asked { range, digests: Some(Digests { algorithm, bytes: digests.data }) })
    }

    /// Runs of blocks that are equal need no data, the others do.
    pub(super) fn answer_what_differs(
        &mut self,
        id: NodeId,
        range: ByteRange,
        data: &Bytes,
        theirs: &Digests,
    ) {
        let ours = theirs.algorithm.of_blocks(data);
        let trusting = seeded!(self, ComparesDigestLengths) && ours.len() == theirs.bytes.len();
        let size = theirs.algorithm.digest_bytes();
        let equal: Vec<bool> =
            ours.chunks(size).zip(theirs.bytes.chunks(size)).map(|(a, b)| a == b || trusting).collect();
        let mut offset = 0;
        for run in equal.chunk_by(|a, b| a == b) {
            let end = (offset + run.len() * BLOCK_BYTES as usize).min(data.len());
            let part = ByteRange::new(range.offset + offset as u64, (end - offset) as u64);
            if run[0] {
                self.note_equal(id, part);
                self.note_sent(id, part);
                self.send(id, Message::ResyncInSync { range: part });
            } else {
                self.answer_with_data(id, part, data.slice(offset..end));
            }
            offset = end;
        }
    }
}
