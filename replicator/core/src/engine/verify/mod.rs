//! Online verify: both nodes digest every block at the same place in the order of writes, and compare.
//!
//! The node that was told to verify walks over the volume ([`walk`]). For each piece, one node locks the range, reads
//! it and sends its digests on the data stream, behind the writes that it has sent; the other reads the same range
//! behind the writes that it was sent, and compares ([`compare`]). The Primary is always the one that sends, so that
//! writes and digests travel the same way. A block that differs is marked in both bitmaps, and stays as it is until
//! the nodes connect anew, or one copy is repaired.

mod compare;
mod walk;

use super::Engine;
use crate::digest::DigestAlgorithm;
use crate::handler::Handler;
use crate::io::{Event, Level};
use crate::seeded;
use crate::state::ReplicationState;
use crate::status::VerifyPosition;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, SECTOR_BYTES};
use crate::wire::Message;

use super::resync::{Controller, Progress, VolumeBlocks};
pub(super) use compare::Step;
pub(super) use walk::Walk;

/// Blocks in a piece: enough for disks to be read in order, few enough that a client's write to one of them does not
/// wait long. A word has bits for all of them.
const PIECE_BLOCKS: u64 = 16;

/// A verify under way with a peer.
#[derive(Clone, Debug)]
pub(super) struct Verify {
    /// Its number, drawn by the node that was told to verify.
    id: u64,
    algorithm: DigestAlgorithm,
    /// What is verified, in ascending order, each from a block's start on.
    ranges: Vec<ByteRange>,
    left: VolumeBlocks,
    found_blocks: u64,
    /// Found blocks that lie side by side are reported together.
    run: Option<ByteRange>,
    /// This node is the one that was told to verify.
    walk: Option<Walk>,
}

impl Engine {
    /// Begins on the node that was told to verify, with a walk, or on its peer.
    pub(super) fn begin_verify(
        &mut self,
        peer: NodeId,
        id: u64,
        algorithm: DigestAlgorithm,
        ranges: Vec<ByteRange>,
        walk: Option<Walk>,
    ) {
        let now = self.now;
        let state = if walk.is_some() { ReplicationState::VerifyS } else { ReplicationState::VerifyT };
        let left = self.blocks_by_volume(&ranges);
        let start = ranges.first().map_or(0, |range| range.offset);
        let text = format!("Starting Online Verify from sector {}", start / SECTOR_BYTES);
        self.note(Some(peer), Level::Info, text);
        if let Some(p) = self.peer_mut(peer) {
            p.progress = Some(Progress::new(now, left.clone()));
            p.verify = Some(Verify { id, algorithm, ranges, left, found_blocks: 0, run: None, walk });
        }
        self.set_replication(peer, state);
    }

    /// The blocks of these ranges, by volume, without the pads.
    fn blocks_by_volume(&self, ranges: &[ByteRange]) -> VolumeBlocks {
        let layout = self.layout();
        let mut by_volume = vec![0; layout.count()];
        for part in ranges.iter().flat_map(|range| layout.parts(*range)) {
            let blocks = part.range.blocks_touched();
            by_volume[part.index] += blocks.end - blocks.start;
        }
        VolumeBlocks::new(by_volume)
    }

    /// The result for a piece; with bit `n` of `differing`, its block `n` differs.
    fn piece_compared(&mut self, id: NodeId, range: ByteRange, differing: u64) {
        let blocks = range.blocks_touched();
        let compared = self.blocks_by_volume(&[range]);
        let Some(verify) = self.verify_mut(id) else { return };
        verify.left.subtract(&compared);
        for (n, block) in blocks.enumerate() {
            if differing >> n & 1 == 1 {
                self.found_out_of_sync(id, block);
            }
        }
    }

    fn found_out_of_sync(&mut self, id: NodeId, block: u64) {
        let offset = block * BLOCK_BYTES;
        let found = ByteRange::new(offset, BLOCK_BYTES.min(self.size_bytes() - offset));
        self.mark_out_of_sync(id, found);
        let Some(verify) = self.verify_mut(id) else { return };
        verify.found_blocks += 1;
        match verify.run.as_mut() {
            Some(run) if run.end() == offset => run.length += found.length,
            _ => {
                let before = verify.run.replace(found);
                self.report_out_of_sync(id, before);
            }
        }
    }

    fn report_out_of_sync(&mut self, peer: NodeId, run: Option<ByteRange>) {
        if let Some(range) = run {
            self.event(Event::OutOfSync { peer, range });
        }
    }

    /// Every block was compared, and what was found is on disk.
    fn end_verify(&mut self, id: NodeId) -> Option<Verify> {
        let verify = self.peer_mut(id)?.verify.take()?;
        self.report_out_of_sync(id, verify.run);
        self.note_done(id, "Online verify");
        if let Some(peer) = self.peer_mut(id) {
            peer.progress = None;
            if verify.walk.as_ref().is_none_or(Walk::resumes) {
                peer.verify_from_bytes = 0;
            }
        }
        let found = verify.found_blocks;
        self.event(Event::Verified { peer: id, ranges: verify.ranges.clone(), blocks: found });
        if found > 0 {
            self.tell_handler(Handler::OutOfSync, Some(id));
        }
        self.set_replication(id, ReplicationState::Established);
        Some(verify)
    }

    /// Ends early; the position is remembered for the next. Blocks that were found stay marked.
    pub(super) fn abort_verify(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(verify) = peer.verify.take() else { return };
        peer.progress = None;
        self.report_out_of_sync(id, verify.run);
        if let Some(walk) = &verify.walk {
            let reached = walk.reached();
            let text = format!("Online Verify reached sector {}", reached / SECTOR_BYTES);
            self.note(Some(id), Level::Info, text);
            if let Some(peer) = self.peer_mut(id).filter(|_| walk.resumes()) {
                peer.verify_from_bytes = reached;
            }
            self.send(id, Message::VerifyEnd { id: verify.id, complete: false });
        }
        if verify.found_blocks > 0 && self.disk.is_usable() {
            self.disk.persist.request(true);
        }
        if self.peer(id).is_some_and(|p| p.replication.is_verify()) {
            self.set_replication(id, ReplicationState::Established);
        }
    }

    /// The peer that walks has come to the end, or gives up.
    pub(super) fn verify_ended(&mut self, id: NodeId, number: u64, complete: bool) -> Result<(), String> {
        if self.verify_mut(id).is_none_or(|v| v.id != number || v.walk.is_some()) {
            return Ok(());
        }
        if !complete {
            self.abort_verify(id);
        } else if self.end_verify(id).is_some_and(|v| v.found_blocks > 0)
            && !seeded!(self, VerifyForgetsFound)
        {
            self.disk.persist.request(true);
        }
        Ok(())
    }

    fn verify_mut(&mut self, id: NodeId) -> Option<&mut Verify> {
        self.peer_mut(id)?.verify.as_mut()
    }
}

impl Verify {
    /// This node, if it walks, waits for the piece.
    fn expects(&self, key: u64, range: ByteRange) -> bool {
        self.walk.as_ref().is_none_or(|w| w.awaits(key, range))
    }

    /// Blocks not yet compared.
    pub(super) fn left(&self) -> &VolumeBlocks {
        &self.left
    }

    /// How fast it goes, on the node that walks.
    pub(super) fn controller(&self) -> Option<&Controller> {
        self.walk.as_ref().map(Walk::controller)
    }

    pub(super) fn position(&self) -> VerifyPosition {
        VerifyPosition {
            start_bytes: self.ranges.first().map_or(0, |first| first.offset),
            stop_bytes: self.ranges.last().map_or(0, |last| last.end()),
            reached_bytes: self.walk.as_ref().map_or_else(|| self.seen(), Walk::reached),
        }
    }

    /// The node that does not walk sees no more than how much is done.
    fn seen(&self) -> u64 {
        let blocks = self.ranges.iter().map(|range| range.length.div_ceil(BLOCK_BYTES)).sum::<u64>();
        let mut seen = blocks.saturating_sub(self.left.total()) * BLOCK_BYTES;
        for range in &self.ranges {
            if seen < range.length {
                return range.offset + seen;
            }
            seen -= range.length;
        }
        self.ranges.last().map_or(0, |last| last.end())
    }
}
