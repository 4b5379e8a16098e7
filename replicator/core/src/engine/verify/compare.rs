//! Two reads of the same piece at the same place in the order of writes.
//!
//! The one that sends its digests holds the range from before the read until they are sent: its own writes are before
//! them on the stream, or behind. The other takes its place among the writes that it was sent. What is left are writes
//! on their way in the other direction, where a role is changing: digests say how many of the receiver's writes they
//! include, and are not compared if it has sent more.

use bytes::Bytes;

use super::PIECE_BLOCKS;
use crate::digest::DigestAlgorithm;
use crate::engine::Engine;
use crate::engine::disk::DiskWork;
use crate::engine::receiver::{Applied, What};
use crate::io::{Device, DiskOpKind, Payload};
use crate::seeded;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId};
use crate::wire::Message;

/// What a node reads a piece for.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Step {
    /// To send its digests; how many of the peer's writes they include.
    Digest { id: u64, seen: u64 },
    /// To compare it with the peer's digests.
    Compare { id: u64, seen: u64, algorithm: DigestAlgorithm, digests: Bytes },
}

impl Engine {
    pub(in crate::engine) fn verify_requested(
        &mut self,
        id: NodeId,
        key: u64,
        range: ByteRange,
    ) -> Result<(), String> {
        self.check_piece(range)?;
        if self.verify_mut(id).is_none() {
            return Ok(());
        }
        self.read_for_peer(id, key, range)
    }

    pub(in crate::engine) fn digests_received(
        &mut self,
        id: NodeId,
        key: u64,
        range: ByteRange,
        seen: u64,
        algorithm: DigestAlgorithm,
        digests: Payload,
    ) -> Result<(), String> {
        self.check_piece(range)?;
        let blocks = range.length.div_ceil(BLOCK_BYTES) as usize;
        if digests.data.len() != blocks * algorithm.digest_bytes() {
            return Err(format!("{} bytes of digests for {blocks} blocks", digests.data.len()));
        }
        if self.verify_mut(id).is_none_or(|v| !v.expects(key, range)) {
            return Ok(());
        }
        let token = self.key();
        let Some(peer) = self.peer(id).filter(|p| !p.receiver_stale) else { return Ok(()) };
        let session = peer.session;
        let step = Step::Compare { id: key, seen, algorithm, digests: digests.data };
        self.enqueue(id, session, range, token, What::Verify(step))
    }

    fn check_piece(&self, range: ByteRange) -> Result<(), String> {
        let whole = range.offset.is_multiple_of(BLOCK_BYTES) && range.length <= PIECE_BLOCKS * BLOCK_BYTES;
        if whole && self.is_addressable(range) { Ok(()) } else { Err(format!("a verify of {range}")) }
    }

    /// A step has got its range: nothing that overlaps is being written, on this node, until it ends.
    pub(in crate::engine) fn start_verify_step(&mut self, applied: Applied) {
        let overtaken = match &applied.what {
            What::Verify(Step::Compare { seen, .. }) => {
                let sent = self.peer(applied.peer).map_or(0, |p| p.writes_sent);
                *seen != sent
            }
            _ => false,
        };
        if overtaken {
            return self.verify_step_done(applied, None);
        }
        if seeded!(self, VerifyIgnoresWrites) {
            self.release(applied.token, applied.range);
        }
        self.start_disk_op(Device::Data, DiskOpKind::Read(applied.range), DiskWork::Verify(applied));
    }

    /// A step has ended; without data, it was not carried out.
    pub(in crate::engine) fn verify_step_done(&mut self, applied: Applied, data: Option<Bytes>) {
        let Applied { peer, session, range, token, epoch, what, .. } = applied;
        let verifying = self.peer(peer).is_some_and(|p| p.session == session && p.link_up);
        if let (What::Verify(step), true) = (what, verifying) {
            match step {
                Step::Digest { id, seen } => self.send_digests(peer, id, range, seen, data),
                Step::Compare { id, algorithm, digests, .. } => {
                    let differing = data.map(|d| differing(&algorithm.of_blocks(&d), &digests, algorithm));
                    self.tell_result(peer, id, range, differing);
                }
            }
        }
        // Only now: what waits for the range is sent behind the digests.
        self.release(token, range);
        self.request_ended(peer, session, epoch, 0);
    }

    fn send_digests(&mut self, peer: NodeId, id: u64, range: ByteRange, seen: u64, data: Option<Bytes>) {
        let Some(algorithm) = self.verify_mut(peer).map(|v| v.algorithm) else { return };
        if let Some(data) = data {
            let digests = Payload::new(algorithm.of_blocks(&data).into());
            self.send(peer, Message::VerifyDigests { id, range, seen, algorithm, digests });
        }
    }

    fn tell_result(&mut self, peer: NodeId, id: u64, range: ByteRange, differing: Option<u64>) {
        if self.verify_mut(peer).is_none() {
            return;
        }
        let (compared, differing) = (differing.is_some(), differing.unwrap_or(0));
        self.send(peer, Message::VerifyResult { id, range, compared, differing });
        self.result_is_known(peer, id, range, compared, differing);
    }

    pub(in crate::engine) fn verify_result_received(
        &mut self,
        peer: NodeId,
        id: u64,
        range: ByteRange,
        compared: bool,
        differing: u64,
    ) -> Result<(), String> {
        self.check_piece(range)?;
        self.result_is_known(peer, id, range, compared, differing);
        Ok(())
    }

    fn result_is_known(&mut self, peer: NodeId, id: u64, range: ByteRange, compared: bool, differing: u64) {
        if self.verify_mut(peer).is_none_or(|v| !v.expects(id, range)) {
            return;
        }
        if compared {
            self.piece_compared(peer, range, differing);
        }
        self.piece_ended(peer, id, compared);
    }
}

/// A bit for each block whose digests differ.
fn differing(ours: &[u8], theirs: &[u8], algorithm: DigestAlgorithm) -> u64 {
    let length = algorithm.digest_bytes();
    let pairs = ours.chunks(length).zip(theirs.chunks(length));
    pairs.enumerate().fold(0, |mask, (n, (a, b))| mask | u64::from(a != b) << n)
}
