//! Resync: the target walks its bitmap and asks, the source reads and answers.
//!
//! Both send their bitmaps and work on the union. The target records on disk that it is Inconsistent, and what is
//! missing, before it changes a block. A block's bit is cleared by the target when it is written, by the source when
//! the target says so; on disk only behind a flush of the data. Writes of the Primary are replicated from the moment
//! its bitmap was sent, and take turns with resync reads and writes of the same range.

use std::collections::VecDeque;

use bytes::Bytes;

use super::disk::DiskWork;
use super::persist::Then;
use super::receiver::{Applied, What};
use super::{Engine, Locked};
use crate::bitmap::PAGE_BYTES;
use crate::generation::Generations;
use crate::io::{Device, DiskOpKind, Level, Payload};
use crate::seeded;
use crate::state::{DiskState, ReplicationState};
use crate::status::ResyncProgress;
use crate::units::{BLOCK_BYTES, ByteRange, NodeId, Timestamp};
use crate::wire::{Handshake, Message};

/// Longest request of a target.
const REQUEST_BYTES: u64 = 1 << 20;
/// Bytes a target has asked for and not written: fills a fast link, and bounds the memory on both sides.
const WINDOW_BYTES: u64 = 8 << 20;
/// Requests a source serves at a time; a target that asks for more breaks the protocol.
const MAX_READS: u32 = (WINDOW_BYTES / BLOCK_BYTES) as u32;
/// Resync speed is shown over about this time.
const MARK_INTERVAL_MS: u64 = 3000;
const MARKS: usize = 8;
/// No progress for longer than this is shown as stalled.
const STALLED_MS: u64 = 180_000;

/// This node as the target of a resync.
#[derive(Debug)]
pub(super) struct TargetState {
    /// The source's generations, ours when the resync is complete.
    source: Generations,
    /// The disk says that it is Inconsistent: blocks may be changed.
    ready: bool,
    finishing: bool,
    next_block: u64,
    outstanding_bytes: u64,
}

/// For the operator.
#[derive(Debug)]
pub(super) struct Progress {
    began: Timestamp,
    total_blocks: u64,
    /// Times and blocks left then, the latest last.
    marks: VecDeque<(Timestamp, u64)>,
}

impl Engine {
    // The bitmaps meet.

    pub(super) fn become_source(&mut self, id: NodeId, full: bool) {
        self.send_bitmap(id, full);
        if let Some(peer) = self.peer_mut(id) {
            peer.target_is_marked = false;
        }
        let current = self.disk.metadata.as_ref().map_or(0, |m| m.superblock.generations.current);
        if let Some(slot) = self.slot_mut(id) {
            slot.resync_id = current;
        }
        // Whatever this node thought of its data: nobody has newer.
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.flags.up_to_date = true;
        }
        self.disk.persist.request(false);
        self.set_disk(DiskState::UpToDate);
        self.set_replication(id, ReplicationState::WFBitMapS);
    }

    pub(super) fn become_target(&mut self, id: NodeId, full: bool, theirs: &Handshake) {
        self.send_bitmap(id, full);
        let mut source = theirs.generations;
        source.remember(theirs.bitmap_id);
        if let Some(peer) = self.peer_mut(id) {
            peer.target = Some(TargetState {
                source,
                ready: false,
                finishing: false,
                next_block: 0,
                outstanding_bytes: 0,
            });
        }
        self.set_replication(id, ReplicationState::WFBitMapT);
        // The peer's data is newer: ours may not be promoted, whatever becomes of the connection.
        if self.disk.state > DiskState::Outdated {
            if let Some(metadata) = self.disk.metadata.as_mut() {
                metadata.superblock.flags.up_to_date = false;
            }
            self.disk.persist.request(false);
            self.set_disk(DiskState::Outdated);
        }
    }

    fn send_bitmap(&mut self, id: NodeId, full: bool) {
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return };
        let Some(bitmap) = self.disk.metadata.as_mut().map(|m| &mut m.bitmaps[slot]) else { return };
        if full {
            bitmap.set_all();
        }
        let chunks: Vec<(u64, Bytes)> = (0..bitmap.pages())
            .filter(|page| bitmap.page_has_bits(*page))
            .map(|page| {
                (page, if bitmap.page_is_full(page) { Bytes::new() } else { bitmap.page(page).into() })
            })
            .collect();
        for (chunk, words) in chunks {
            self.send(id, Message::BitmapChunk { chunk, words: Payload::new(words) });
        }
        self.send(id, Message::BitmapEnd);
    }

    pub(super) fn bitmap_chunk_received(
        &mut self,
        id: NodeId,
        chunk: u64,
        words: &[u8],
    ) -> Result<(), String> {
        self.expect_bitmap(id)?;
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return Ok(()) };
        let Some(bitmap) = self.disk.metadata.as_mut().map(|m| &mut m.bitmaps[slot]) else { return Ok(()) };
        if chunk >= bitmap.pages() || !(words.is_empty() || words.len() == PAGE_BYTES) {
            return Err(format!("piece {chunk} of the bitmap has {} bytes", words.len()));
        }
        bitmap.merge_page(chunk, words);
        Ok(())
    }

    pub(super) fn bitmap_end_received(&mut self, id: NodeId) -> Result<(), String> {
        let as_target = self.expect_bitmap(id)?;
        let blocks = self.dirty_blocks(id);
        let now = self.now;
        if let Some(peer) = self.peer_mut(id) {
            peer.progress =
                Some(Progress { began: now, total_blocks: blocks, marks: VecDeque::from([(now, blocks)]) });
        }
        let (role, kib) = (if as_target { "SyncTarget" } else { "SyncSource" }, blocks * BLOCK_BYTES / 1024);
        let text = format!("Began resync as {role} (will sync {kib} KB [{blocks} bits set]).");
        self.note(Some(id), Level::Info, text);
        if as_target {
            self.prepare_target(id, blocks);
        } else {
            self.set_replication(id, ReplicationState::SyncSource);
        }
        Ok(())
    }

    /// True as the target, false as the source.
    fn expect_bitmap(&self, id: NodeId) -> Result<bool, String> {
        match self.peer(id).map(|p| p.replication) {
            Some(ReplicationState::WFBitMapT) => Ok(true),
            Some(ReplicationState::WFBitMapS) => Ok(false),
            other => Err(format!("a bitmap arrived in replication state {other:?}")),
        }
    }

    // The target.

    /// Nothing may change on the disk before it says what it is. Without a difference it stays what it is.
    fn prepare_target(&mut self, id: NodeId, blocks: u64) {
        let session = self.peer(id).map_or(0, |p| p.session);
        if blocks == 0 {
            self.set_replication(id, ReplicationState::SyncTarget);
            return self.finish_target(id);
        }
        if !seeded!(self, TargetStaysUpToDate)
            && let Some(metadata) = self.disk.metadata.as_mut()
        {
            metadata.superblock.flags.consistent = false;
            metadata.superblock.flags.up_to_date = false;
        }
        self.set_disk(DiskState::Inconsistent);
        let version = self.disk.persist.request_then(true, Then::TargetReady(id, session));
        if let Some(peer) = self.peer_mut(id) {
            peer.stalled_until = Some(version);
        }
    }

    pub(super) fn target_ready(&mut self, id: NodeId, session: u32) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.session == session && p.link_up) else { return };
        let Some(target) = peer.target.as_mut() else { return };
        target.ready = true;
        self.set_replication(id, ReplicationState::SyncTarget);
    }

    /// Asks for more blocks, or ends the resync.
    pub(super) fn progress_resyncs(&mut self) {
        for id in self.peer_ids() {
            self.note_progress(id);
            while self.request_next_run(id) {}
        }
    }

    fn request_next_run(&mut self, id: NodeId) -> bool {
        let volume_bytes = self.size_bytes();
        let Some(peer) = self.peers.iter_mut().find(|p| p.id() == id) else { return false };
        let slot = peer.slot;
        let Some(target) = peer.target.as_mut().filter(|t| t.ready && !t.finishing) else { return false };
        let Some(bitmap) = self.disk.metadata.as_ref().map(|m| &m.bitmaps[slot]) else { return false };
        if target.outstanding_bytes + REQUEST_BYTES > WINDOW_BYTES {
            return false;
        }
        match bitmap.next_run(target.next_block, REQUEST_BYTES / BLOCK_BYTES) {
            Some(run) => {
                let offset = run.start * BLOCK_BYTES;
                let range = ByteRange::new(offset, (run.end * BLOCK_BYTES).min(volume_bytes) - offset);
                target.next_block = run.end;
                target.outstanding_bytes += range.length;
                self.send(id, Message::ResyncRequest { range });
                true
            }
            None if target.outstanding_bytes > 0 => false,
            None if bitmap.set_count() > 0 => {
                target.next_block = 0;
                true
            }
            None => {
                self.finish_target(id);
                false
            }
        }
    }

    pub(super) fn resync_data_received(
        &mut self,
        id: NodeId,
        offset: u64,
        payload: Payload,
    ) -> Result<(), String> {
        let range = ByteRange::new(offset, payload.len());
        self.resync_answer(id, range, What::Resync { payload })
    }

    pub(super) fn resync_zeroes_received(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        self.resync_answer(id, range, What::ResyncZeroes)
    }

    fn resync_answer(&mut self, id: NodeId, range: ByteRange, what: What) -> Result<(), String> {
        if !self.is_addressable(range) {
            return Err(format!("resync data for {range} lies outside the volume"));
        }
        let token = self.key();
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        let Some(target) = peer.target.as_ref() else { return Ok(()) };
        if target.outstanding_bytes < range.length {
            return Err(format!("resync data for {range} was not asked for"));
        }
        peer.received_bytes += if let What::Resync { payload } = &what { payload.len() } else { 0 };
        let applied = Applied { peer: id, session: peer.session, range, token, what };
        self.enqueue(applied);
        Ok(())
    }

    pub(super) fn resync_block_written(&mut self, id: NodeId, session: u32, range: ByteRange, ok: bool) {
        let volume_bytes = self.size_bytes();
        let Some(peer) = self.peer_mut(id).filter(|p| p.session == session && p.link_up) else { return };
        let slot = peer.slot;
        let Some(target) = peer.target.as_mut() else { return };
        target.outstanding_bytes = target.outstanding_bytes.saturating_sub(range.length);
        if !ok {
            return;
        }
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.bitmaps[slot].clear_range(range, volume_bytes);
        }
        self.send(id, Message::ResyncWritten { range });
    }

    /// Every block is here: it becomes durable, then the disk says that it holds the source's generation.
    fn finish_target(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let session = peer.session;
        let Some(target) = peer.target.as_mut() else { return };
        target.finishing = true;
        let source = target.source;
        let Some(slot) = self.slot_mut(id) else { return };
        let own_bitmap_id = std::mem::take(&mut slot.bitmap_id);
        slot.resync_id = 0;
        slot.bits_volatile = false;
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let superblock = &mut metadata.superblock;
            superblock.generations = source;
            superblock.generations.remember(own_bitmap_id);
            superblock.flags.consistent = true;
            superblock.flags.up_to_date = true;
            superblock.flags.crashed_primary = false;
        }
        self.disk.persist.request_then(true, Then::TargetFinished(id, session));
    }

    /// Whether or not the source still listens: the disk is as good as it was when the last block arrived.
    pub(super) fn target_finished(&mut self, id: NodeId, session: u32) {
        self.set_disk(DiskState::UpToDate);
        if self.peer(id).is_some_and(|p| p.session == session && p.link_up && p.target.is_some()) {
            self.send(id, Message::ResyncDone);
            self.note_resync_done(id);
            self.abort_resync(id);
            self.set_replication(id, ReplicationState::Established);
        }
    }

    // The source.

    pub(super) fn resync_requested(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
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

    pub(super) fn start_resync_read(&mut self, peer: NodeId, session: u32, range: ByteRange, token: u64) {
        if self.disk.is_usable() {
            let work = DiskWork::ResyncRead { peer, session, range, token };
            self.start_disk_op(Device::Data, DiskOpKind::Read(range), work);
        } else {
            self.resync_read_done(peer, session, range, token, None);
        }
    }

    pub(super) fn resync_read_done(
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

    pub(super) fn resync_written(&mut self, id: NodeId, range: ByteRange) -> Result<(), String> {
        if !self.is_addressable(range) {
            return Err(format!("the target says it wrote {range}"));
        }
        if self.peer(id).is_some_and(|p| p.replication == ReplicationState::SyncSource) {
            self.clear_bits(id, range);
        }
        Ok(())
    }

    fn clear_bits(&mut self, id: NodeId, range: ByteRange) {
        let volume_bytes = self.size_bytes();
        let Some(slot) = self.peer(id).map(|p| p.slot) else { return };
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.bitmaps[slot].clear_range(range, volume_bytes);
        }
    }

    pub(super) fn resync_done_received(&mut self, id: NodeId) -> Result<(), String> {
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

    // Ends and progress.

    /// Forgets the resync with a peer, complete or not; the bits say what is missing.
    pub(super) fn abort_resync(&mut self, id: NodeId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.target = None;
            peer.progress = None;
            peer.resync_reads = 0;
        }
    }

    /// Our disk is gone.
    pub(super) fn abort_resyncs_without_disk(&mut self) {
        for id in self.peer_ids() {
            self.abort_resync(id);
            if self.peer(id).is_some_and(|p| p.is_connected()) {
                self.set_replication(id, ReplicationState::Established);
            }
        }
    }

    fn note_resync_done(&mut self, id: NodeId) {
        let Some(progress) = self.peer(id).and_then(|p| p.progress.as_ref()) else { return };
        let seconds = (self.now.ms_since(progress.began) / 1000).max(1);
        let speed = progress.total_blocks * BLOCK_BYTES / 1024 / seconds;
        let text = format!("Resync done (total {seconds} sec; paused 0 sec; {speed} K/sec)");
        self.note(Some(id), Level::Info, text);
    }

    fn note_progress(&mut self, id: NodeId) {
        let (now, left) = (self.now, self.dirty_blocks(id));
        let Some(progress) = self.peer_mut(id).and_then(|p| p.progress.as_mut()) else { return };
        let Some((at, blocks)) = progress.marks.back().copied() else { return };
        if now.ms_since(at) >= MARK_INTERVAL_MS && blocks != left {
            progress.marks.push_back((now, left));
            if progress.marks.len() > MARKS {
                progress.marks.pop_front();
            }
        }
    }

    /// The resync with a peer as the operator sees it.
    pub(super) fn resync_progress(&self, id: NodeId, now: Timestamp) -> Option<ResyncProgress> {
        let progress = self.peer(id)?.progress.as_ref()?;
        let left = self.dirty_blocks(id);
        let rate = |since: Timestamp, blocks: u64| {
            blocks.saturating_sub(left) * BLOCK_BYTES * 1000 / now.ms_since(since).max(1)
        };
        let (recent, blocks_then) = progress.marks.front().copied()?;
        Some(ResyncProgress {
            total_bytes: progress.total_blocks * BLOCK_BYTES,
            left_bytes: left * BLOCK_BYTES,
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
