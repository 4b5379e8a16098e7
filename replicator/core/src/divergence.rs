//! What a node knows of two copies that went on without each other: for `split-brain show`, and for saving what the
//! loser gives up.
//!
//! Where a split brain is found, both sides tell each other which blocks they have marked before they part, so that
//! each knows what either would lose. That is kept until the next meeting or the end of the daemon.

use serde::{Deserialize, Serialize};

use crate::split_brain::Outcome;
use crate::state::{DiskState, Role};
use crate::units::{ByteRange, NodeId};

/// Ranges of each side that are listed at a time.
pub const MOST_RANGES: usize = 10_000;

/// This node's copy and a peer's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Divergence {
    /// The size of this node's volume in bytes; what the peer has marked beyond that is not listed.
    pub volume_bytes: u64,
    /// All marked ranges before this byte are listed; from here on there may be more.
    pub listed_to_bytes: u64,
    /// This node's copy, now.
    pub here: CopyState,
    /// The last meeting, if it found that both copies went on.
    pub meeting: Option<Meeting>,
    /// The peer's number.
    pub peer: NodeId,
    /// The peer's name.
    pub peer_name: String,
}

/// A meeting of two copies that both went on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Meeting {
    /// How long ago.
    pub age_ms: u64,
    /// The last generation that both have been through.
    pub common: u64,
    /// Both bitmaps count from it. Otherwise everything may differ.
    pub bitmaps_tell: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// The peer's copy, as it was then.
    pub there: CopyState,
    /// The peer has told all of its ranges.
    pub complete: bool,
}

/// One node's copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyState {
    /// The node's role.
    pub role: Role,
    /// Its disk.
    pub disk: DiskState,
    /// The generation of its data; 0 without a disk.
    pub current: u64,
    /// The generation at which it parted from the other; 0 if it did not go on alone.
    pub parted_at: u64,
    /// Former generations, the latest first.
    pub history: Vec<u64>,
    /// It was Primary when they parted, and went on as such.
    pub stayed_primary: bool,
    /// After a crash it counts what its activity log names as changed: it has changed that much at most.
    pub overcounted: bool,
    /// Bytes that it has changed since they parted, at most.
    pub changed_bytes: u64,
    /// Where.
    pub ranges: Vec<ByteRange>,
}

impl Divergence {
    /// Adds what `more` lists beyond the ranges that are listed here.
    pub fn append(&mut self, more: Divergence) {
        let from = self.listed_to_bytes;
        join(&mut self.here.ranges, more.here.ranges, from);
        if let (Some(own), Some(more)) = (&mut self.meeting, more.meeting) {
            join(&mut own.there.ranges, more.there.ranges, from);
        }
        self.listed_to_bytes = from.max(more.listed_to_bytes);
    }

    /// Where the copies may differ: what either has marked. Nothing of it is known if the peer has not told all, or if the
    /// bitmaps do not count from a common generation.
    pub fn differing(&self) -> Option<Vec<ByteRange>> {
        let meeting = self.meeting.as_ref().filter(|m| m.complete && m.bitmaps_tell)?;
        let mut all = [&self.here.ranges[..], &meeting.there.ranges].concat();
        all.sort_unstable();
        let mut union: Vec<ByteRange> = Vec::new();
        join(&mut union, all, 0);
        Some(union)
    }

    /// Bytes that both have changed.
    pub fn changed_by_both_bytes(&self) -> Option<u64> {
        let bytes = |ranges: &[ByteRange]| ranges.iter().map(|r| r.length).sum::<u64>();
        let there = &self.meeting.as_ref()?.there.ranges;
        Some((bytes(&self.here.ranges) + bytes(there)).saturating_sub(bytes(&self.differing()?)))
    }
}

/// Adds ranges, as far as they lie beyond `from`, in ascending order; those that touch become one.
fn join(ranges: &mut Vec<ByteRange>, more: Vec<ByteRange>, from: u64) {
    for range in more.into_iter().filter(|range| range.end() > from) {
        let offset = range.offset.max(from);
        match ranges.last_mut() {
            Some(last) if last.end() >= offset => last.length = last.end().max(range.end()) - last.offset,
            _ => ranges.push(ByteRange::new(offset, range.end() - offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(ranges: &[(u64, u64)]) -> CopyState {
        CopyState {
            role: Role::Secondary,
            disk: DiskState::UpToDate,
            current: 1,
            parted_at: 2,
            history: Vec::new(),
            stayed_primary: false,
            overcounted: false,
            changed_bytes: 0,
            ranges: ranges.iter().map(|(offset, length)| ByteRange::new(*offset, *length)).collect(),
        }
    }

    fn divergence(listed_to_bytes: u64, here: &[(u64, u64)], there: &[(u64, u64)]) -> Divergence {
        let meeting = Meeting {
            age_ms: 0,
            common: 2,
            bitmaps_tell: true,
            outcome: Outcome::Unresolved,
            there: copy(there),
            complete: true,
        };
        Divergence {
            volume_bytes: 100,
            listed_to_bytes,
            here: copy(here),
            meeting: Some(meeting),
            peer: NodeId(1),
            peer_name: "bravo".into(),
        }
    }

    #[test]
    fn what_differs_is_what_either_has_changed() {
        let d = divergence(100, &[(0, 10), (30, 10)], &[(5, 15), (60, 1)]);
        let expected = [(0, 20), (30, 10), (60, 1)].map(|(offset, length)| ByteRange::new(offset, length));
        assert_eq!(d.differing().unwrap(), expected);
        assert_eq!(d.changed_by_both_bytes(), Some(5));
        let mut untold = d;
        untold.meeting.as_mut().unwrap().complete = false;
        assert_eq!(untold.differing(), None);
    }

    #[test]
    fn pieces_of_a_list_make_the_whole() {
        let mut d = divergence(15, &[(0, 15)], &[(2, 3)]);
        d.append(divergence(100, &[(10, 10), (50, 5)], &[(70, 5)]));
        assert_eq!(d, divergence(100, &[(0, 20), (50, 5)], &[(2, 3), (70, 5)]));
    }
}
