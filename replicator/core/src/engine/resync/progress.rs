//! How far a resync has come, for the operator.

use std::collections::VecDeque;

use crate::engine::verify::Verify;
use crate::engine::{Engine, VolumeBytes};
use crate::io::Level;
use crate::status::{ResyncProgress, Stretch, VerifyPosition};
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};

/// Resync speed is shown over about this time.
const MARK_INTERVAL_MS: u64 = 3000;
const MARKS: usize = 8;
/// No progress for longer than this is shown as stalled.
const STALLED_MS: u64 = 180_000;

/// For the operator.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Progress {
    began: Timestamp,
    total: VolumeBlocks,
    /// What was left at some times, the latest last.
    marks: VecDeque<(Timestamp, VolumeBlocks)>,
    paused_since: Option<Timestamp>,
    paused_ms: u64,
    /// Compared and found equal.
    equal: VolumeBytes,
}

/// Blocks counted by volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::engine) struct VolumeBlocks(Vec<u64>);

/// One volume, counted from 0, or all of them.
type Which = Option<usize>;

impl VolumeBlocks {
    pub(in crate::engine) fn new(by_volume: Vec<u64>) -> Self {
        VolumeBlocks(by_volume)
    }

    pub(in crate::engine) fn subtract(&mut self, other: &VolumeBlocks) {
        self.0.iter_mut().zip(&other.0).for_each(|(left, done)| *left = left.saturating_sub(*done));
    }

    pub(in crate::engine) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn of(&self, which: Which) -> u64 {
        which.map_or_else(|| self.total(), |volume| self.0.get(volume).copied().unwrap_or(0))
    }
}

impl Progress {
    pub(in crate::engine) fn new(began: Timestamp, total: VolumeBlocks) -> Self {
        let marks = VecDeque::from([(began, total.clone())]);
        Progress { began, total, marks, paused_since: None, paused_ms: 0, equal: VolumeBytes::default() }
    }

    fn paused_ms(&self, now: Timestamp) -> u64 {
        self.paused_ms + self.paused_since.map_or(0, |since| now.ms_since(since))
    }

    /// Whether the resync is paused at this time.
    pub(super) fn note_pause(&mut self, now: Timestamp, paused: bool) {
        match (self.paused_since, paused) {
            (None, true) => self.paused_since = Some(now),
            (Some(since), false) => {
                self.paused_ms += now.ms_since(since);
                self.paused_since = None;
            }
            _ => {}
        }
    }
}

impl Engine {
    /// Says how long it took: `what` is a resync or a verify.
    pub(in crate::engine) fn note_done(&mut self, id: NodeId, what: &str) {
        let Some(progress) = self.peer(id).and_then(|p| p.progress.as_ref()) else { return };
        let paused_ms = progress.paused_ms(self.now);
        let elapsed_ms = self.now.ms_since(progress.began).saturating_sub(paused_ms);
        let (seconds, paused) = ((elapsed_ms / 1000).max(1), paused_ms / 1000);
        let total = progress.total.total() * BLOCK_BYTES / 1024;
        let (speed, equal) = (total / seconds, progress.equal.total() / 1024);
        let text = format!("{what} done (total {seconds} sec; paused {paused} sec; {speed} K/sec)");
        self.note(Some(id), Level::Info, text);
        if equal > 0 {
            let (percent, sent) = (equal * 100 / total.max(1), total.saturating_sub(equal));
            let text = format!(
                "{percent} % had equal checksums, eliminated: {equal}K; transferred {sent}K total {total}K"
            );
            self.note(Some(id), Level::Info, text);
        }
    }

    /// The range was compared and is equal.
    pub(super) fn note_equal(&mut self, id: NodeId, range: ByteRange) {
        let volume = self.layout().index_at(range.offset);
        if let Some(progress) = self.peer_mut(id).and_then(|p| p.progress.as_mut()) {
            progress.equal.add(volume, range.length);
        }
    }

    pub(super) fn note_progress(&mut self, id: NodeId) {
        let now = self.now;
        let Some(progress) = self.peer(id).and_then(|p| p.progress.as_ref()) else { return };
        let is_due = |(at, left): &(Timestamp, VolumeBlocks)| {
            now.ms_since(*at) >= MARK_INTERVAL_MS && left.total() != self.blocks_left(id)
        };
        if !progress.marks.back().is_some_and(is_due) {
            return;
        }
        let left = self.blocks_left_by_volume(id);
        let Some(progress) = self.peer_mut(id).and_then(|p| p.progress.as_mut()) else { return };
        progress.marks.push_back((now, left));
        if progress.marks.len() > MARKS {
            progress.marks.pop_front();
        }
    }

    /// Blocks that a resync or a verify has before it.
    fn blocks_left(&self, id: NodeId) -> u64 {
        let verify = self.peer(id).and_then(|p| p.verify.as_ref());
        verify.map_or_else(|| self.dirty_blocks(id), |verify| verify.left().total())
    }

    fn blocks_left_by_volume(&self, id: NodeId) -> VolumeBlocks {
        let verify = self.peer(id).and_then(|p| p.verify.as_ref());
        verify.map_or_else(|| self.dirty_by_volume(id), |verify| verify.left().clone())
    }

    /// Marked blocks of each volume.
    pub(in crate::engine) fn dirty_by_volume(&self, id: NodeId) -> VolumeBlocks {
        let layout = self.layout();
        if layout.is_single() {
            return VolumeBlocks::new(vec![self.dirty_blocks(id)]);
        }
        let slot = self.peer(id).map(|p| p.slot);
        let bitmap = self.disk.metadata.as_ref().zip(slot).and_then(|(m, slot)| m.bitmaps.get(slot));
        let ranges = layout.ranges(self.size_bytes()).into_iter();
        let count = |ranges: Vec<ByteRange>| {
            bitmap.map_or(0, |b| ranges.iter().map(|range| b.count_range(*range)).sum())
        };
        VolumeBlocks::new(ranges.map(count).collect())
    }

    /// The resync or verify with a peer as the operator sees it: of one volume, or of all.
    pub(in crate::engine) fn resync_progress(
        &self,
        id: NodeId,
        which: Which,
        now: Timestamp,
    ) -> Option<ResyncProgress> {
        let peer = self.peer(id)?;
        let progress = peer.progress.as_ref()?;
        let left = match which {
            None => self.blocks_left(id),
            Some(_) => self.blocks_left_by_volume(id).of(which),
        };
        let total = progress.total.of(which);
        let since = |at: Timestamp, blocks_then: u64| Stretch {
            ms: now.ms_since(at),
            bytes: blocks_then.saturating_sub(left) * BLOCK_BYTES,
        };
        let marks = &progress.marks;
        let since_mark = |index: usize| marks.get(index).map(|(at, blocks)| since(*at, blocks.of(which)));
        let recent = since_mark(0)?;
        let is_stalled = |(at, blocks): &(Timestamp, VolumeBlocks)| {
            blocks.total() == self.blocks_left(id) && now.ms_since(*at) > STALLED_MS
        };
        let pieces = which.map(|volume| self.layout().ranges_of(volume, self.size_bytes()));
        let position = peer.verify.as_ref().map(Verify::position);
        Some(ResyncProgress {
            total_bytes: total * BLOCK_BYTES,
            left_bytes: left * BLOCK_BYTES,
            equal_bytes: which.map_or_else(|| progress.equal.total(), |volume| progress.equal.of(volume)),
            elapsed_ms: now.ms_since(progress.began),
            paused_ms: progress.paused_ms(now),
            recent_bytes_per_s: recent.bytes_per_s(),
            average_bytes_per_s: since(progress.began, total).bytes_per_s(),
            recent,
            latest: since_mark(marks.len().saturating_sub(2)).unwrap_or(recent),
            want_bytes_per_s: self.wanted_bytes_per_s(peer),
            stalled: marks.back().is_some_and(is_stalled),
            verify: position.map(|position| match pieces {
                None => position,
                // Nothing of this volume is compared, though its pieces may lie between others that are.
                Some(_) if total == 0 => VerifyPosition::default(),
                Some(pieces) => position.within(&pieces),
            }),
        })
    }
}
