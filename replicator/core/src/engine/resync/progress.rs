//! How far a resync has come, for the operator.

use std::collections::VecDeque;

use crate::engine::Engine;
use crate::engine::verify::Verify;
use crate::io::Level;
use crate::status::ResyncProgress;
use crate::units::{BLOCK_BYTES, NodeId, Timestamp};

/// Resync speed is shown over about this time.
const MARK_INTERVAL_MS: u64 = 3000;
const MARKS: usize = 8;
/// No progress for longer than this is shown as stalled.
const STALLED_MS: u64 = 180_000;

/// For the operator.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Progress {
    began: Timestamp,
    total_blocks: u64,
    /// Times and blocks left then, the latest last.
    marks: VecDeque<(Timestamp, u64)>,
    paused_since: Option<Timestamp>,
    paused_ms: u64,
    /// Compared and found equal.
    equal_bytes: u64,
}

impl Progress {
    pub(in crate::engine) fn new(began: Timestamp, total_blocks: u64) -> Self {
        let marks = VecDeque::from([(began, total_blocks)]);
        Progress { began, total_blocks, marks, paused_since: None, paused_ms: 0, equal_bytes: 0 }
    }

    /// So much was compared and is equal.
    pub(super) fn note_equal(&mut self, bytes: u64) {
        self.equal_bytes += bytes;
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
        let paused_ms =
            progress.paused_ms + progress.paused_since.map_or(0, |since| self.now.ms_since(since));
        let elapsed_ms = self.now.ms_since(progress.began).saturating_sub(paused_ms);
        let (seconds, paused) = ((elapsed_ms / 1000).max(1), paused_ms / 1000);
        let speed = progress.total_blocks * BLOCK_BYTES / 1024 / seconds;
        let text = format!("{what} done (total {seconds} sec; paused {paused} sec; {speed} K/sec)");
        let (total, equal) = (progress.total_blocks * BLOCK_BYTES / 1024, progress.equal_bytes / 1024);
        self.note(Some(id), Level::Info, text);
        if equal > 0 {
            let (percent, sent) = (equal * 100 / total.max(1), total.saturating_sub(equal));
            let text = format!(
                "{percent} % had equal checksums, eliminated: {equal}K; transferred {sent}K total {total}K"
            );
            self.note(Some(id), Level::Info, text);
        }
    }

    pub(super) fn note_progress(&mut self, id: NodeId) {
        let (now, left) = (self.now, self.blocks_left(id));
        let Some(progress) = self.peer_mut(id).and_then(|p| p.progress.as_mut()) else { return };
        let Some((at, blocks)) = progress.marks.back().copied() else { return };
        if now.ms_since(at) >= MARK_INTERVAL_MS && blocks != left {
            progress.marks.push_back((now, left));
            if progress.marks.len() > MARKS {
                progress.marks.pop_front();
            }
        }
    }

    /// Blocks that a resync or a verify has before it.
    fn blocks_left(&self, id: NodeId) -> u64 {
        let verify = self.peer(id).and_then(|p| p.verify.as_ref());
        verify.map_or_else(|| self.dirty_blocks(id), Verify::left_blocks)
    }

    /// The resync or verify with a peer as the operator sees it.
    pub(in crate::engine) fn resync_progress(&self, id: NodeId, now: Timestamp) -> Option<ResyncProgress> {
        let progress = self.peer(id)?.progress.as_ref()?;
        let left = self.blocks_left(id);
        let rate = |since: Timestamp, blocks: u64| {
            blocks.saturating_sub(left) * BLOCK_BYTES * 1000 / now.ms_since(since).max(1)
        };
        let (recent, blocks_then) = progress.marks.front().copied()?;
        Some(ResyncProgress {
            total_bytes: progress.total_blocks * BLOCK_BYTES,
            left_bytes: left * BLOCK_BYTES,
            equal_bytes: progress.equal_bytes,
            elapsed_ms: now.ms_since(progress.began),
            recent_bytes_per_s: rate(recent, blocks_then),
            average_bytes_per_s: rate(progress.began, progress.total_blocks),
            stalled: progress
                .marks
                .back()
                .is_some_and(|(at, blocks)| *blocks == left && now.ms_since(*at) > STALLED_MS),
        })
    }
}
