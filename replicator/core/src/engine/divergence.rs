//! Two copies that both went on: before they part, each side tells the other what it has marked.
//!
//! Who has all of the other's marks says so with its refusal, and parts when it has the other's: nothing of a large
//! bitmap is lost when one side hangs up first.

use super::Engine;
use super::resync::merge_piece;
use crate::bitmap::Bitmap;
use crate::divergence::{CopyState, Divergence, MOST_RANGES, Meeting as Told};
use crate::seeded;
use crate::split_brain::SplitBrain;
use crate::state::ConnectionState;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};
use crate::wire::{Handshake, Message};

/// A meeting that found that both copies went on.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    at: Timestamp,
    split_brain: SplitBrain,
    theirs: Handshake,
    /// What the peer has marked, whose volume may have grown since they parted.
    marked: Bitmap,
    /// That is all of it.
    complete: bool,
}

/// How a meeting without consequences ends.
#[derive(Clone, Debug)]
pub(super) enum Farewell {
    /// They will not talk; why, for the operator.
    Refusal(String),
    /// The answer to the question what would happen.
    Answer(String),
}

impl Engine {
    /// Ends a meeting without consequences; of a split brain both sides learn first what either has written.
    pub(super) fn part(
        &mut self,
        id: NodeId,
        split_brain: Option<SplitBrain>,
        theirs: Handshake,
        farewell: Farewell,
    ) {
        let Some(split_brain) = split_brain else { return self.bid_farewell(id, farewell) };
        let largest_bytes = self.size_bytes().max(theirs.agreed_bytes.min(self.larger_room_bytes()));
        let marked = Bitmap::new(largest_bytes);
        let at = self.now;
        if let Some(peer) = self.peer_mut(id) {
            peer.meeting = Some(Meeting { at, split_brain, theirs, marked, complete: false });
            peer.farewell = Some(farewell);
        }
        self.send_bitmap(id, false);
    }

    fn bid_farewell(&mut self, id: NodeId, farewell: Farewell) {
        match farewell {
            Farewell::Refusal(reason) => self.refuse(id, reason),
            Farewell::Answer(text) => self.end_tentative(id, &text),
        }
    }

    pub(super) fn is_parting(&self, id: NodeId) -> bool {
        self.peer(id).is_some_and(|p| p.farewell.is_some())
    }

    pub(super) fn marks_received(&mut self, id: NodeId, chunk: u64, words: &[u8]) -> Result<(), String> {
        let now = self.now;
        let forget = seeded!(self, ForgetsWhatPeerMarked);
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        // It is alive, however much it has to tell.
        peer.round_since = now;
        match peer.meeting.as_mut().filter(|m| !m.complete && !forget) {
            Some(meeting) => merge_piece(&mut meeting.marked, chunk, words),
            None => Ok(()),
        }
    }

    pub(super) fn all_marks_received(&mut self, id: NodeId) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if let Some(meeting) = peer.meeting.as_mut() {
            meeting.complete = true;
        }
        match peer.farewell.take() {
            Some(Farewell::Refusal(reason)) => {
                peer.farewell = Some(Farewell::Refusal(reason.clone()));
                self.send(id, Message::Refuse { reason });
            }
            Some(farewell @ Farewell::Answer(_)) => self.bid_farewell(id, farewell),
            None => {}
        }
        Ok(())
    }

    /// Stands alone if the end of the connection is the end of a meeting that was refused here.
    pub(super) fn take_refusal(&mut self, id: NodeId) -> bool {
        let farewell = self.peer_mut(id).and_then(|p| p.farewell.take());
        let Some(Farewell::Refusal(reason)) = farewell else { return false };
        self.stand_alone(id, ConnectionState::Disconnecting, Some(reason));
        true
    }

    /// What is known of this copy and each peer's, with the marked ranges from byte `from` on.
    pub fn divergences(&self, now: Timestamp, from_bytes: u64) -> Vec<Divergence> {
        self.peer_ids().into_iter().filter_map(|id| self.divergence(id, now, from_bytes)).collect()
    }

    fn divergence(&self, id: NodeId, now: Timestamp, from_bytes: u64) -> Option<Divergence> {
        let peer = self.peer(id)?;
        let volume_bytes = self.size_bytes();
        let list = |bitmap: &Bitmap| bitmap.ranges(from_bytes, MOST_RANGES, volume_bytes);
        let own = self.disk.metadata.as_ref().map(|m| &m.bitmaps[peer.slot]);
        let (ranges, own_to) = own.map_or((Vec::new(), volume_bytes), list);
        let (their_ranges, theirs_to) =
            peer.meeting.as_ref().map_or((Vec::new(), volume_bytes), |m| list(&m.marked));
        let listed_to_bytes = own_to.min(theirs_to);
        let cut = |ranges: Vec<ByteRange>| -> Vec<ByteRange> {
            let listed = ranges.into_iter().filter(|range| range.offset < listed_to_bytes);
            listed.map(|r| ByteRange::new(r.offset, r.end().min(listed_to_bytes) - r.offset)).collect()
        };
        Some(Divergence {
            volume_bytes,
            listed_to_bytes,
            here: copy_state(&self.handshake(id), cut(ranges)),
            meeting: peer.meeting.as_ref().map(|m| Told {
                age_ms: now.ms_since(m.at),
                common: m.split_brain.common,
                bitmaps_tell: m.split_brain.bitmaps_tell,
                outcome: m.split_brain.outcome,
                there: copy_state(&m.theirs, cut(their_ranges)),
                complete: m.complete,
            }),
            peer: id,
            peer_name: peer.config.name.clone(),
        })
    }
}

fn copy_state(h: &Handshake, ranges: Vec<ByteRange>) -> CopyState {
    CopyState {
        role: h.role,
        disk: h.disk,
        current: h.generations.current,
        parted_at: h.bitmap_id,
        history: h.generations.history.into_iter().take_while(|id| *id != 0).collect(),
        stayed_primary: h.stayed_primary(),
        overcounted: h.overcounted,
        changed_bytes: h.dirty_blocks.saturating_mul(BLOCK_BYTES),
        ranges,
    }
}
