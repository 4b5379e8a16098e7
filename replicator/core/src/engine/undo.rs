//! The undo log at work: before a resync's target overwrites a block, what it held is in the log, durable.
//!
//! A log begins with a resync that makes consistent data Inconsistent: its header is on disk before the superblock names it,
//! in the write that calls the data Inconsistent. From then on every write, of a peer or of a client, waits until the old content
//! of its blocks is in the log; those that wait at a time are saved together, behind one flush. The log goes on when the
//! resync does, after a crash as well. It ends, in the write of the superblock that makes the data consistent again, or
//! gives it up; until that is durable nothing is overwritten. If the log cannot be written to, it is given up, and the resync
//! goes on without.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::Engine;
use super::disk::DiskWork;
use super::persist::Version;
use super::ranges::Locked;
use super::receiver::What;
use crate::bitmap::bytes_of;
use crate::generation::same;
use crate::io::{Device, DiskOpKind, Level};
use crate::metadata::{UNDO_RECORD_BYTES, UndoLog, encode_header};
use crate::seeded;
use crate::units::{BLOCK_BYTES, ByteRange};

/// Blocks that are saved at a time: the memory that a log costs.
const BATCH_BLOCKS: u64 = (16 << 20) / BLOCK_BYTES;

/// The attached disk's undo log.
#[derive(Clone, Default, Debug)]
pub(super) struct Undo {
    /// The file; `None` without one.
    pub(super) log: Option<UndoLog>,
    /// The header of a log that begins, to be written before the superblock that names it.
    header: Option<Bytes>,
    /// What was read at attach may be in the disk's cache only.
    unsettled: bool,
    /// The log counts no longer once this version of the metadata is durable.
    ending: Option<Version>,
    /// Writes whose blocks are not saved, and whether they hold extents of the activity log.
    waiting: VecDeque<(ByteRange, Locked, bool)>,
    /// Operations for the log that have not ended.
    in_flight: usize,
    batch: Option<Batch>,
}

/// Old content on its way into the log.
#[derive(Clone, Debug)]
struct Batch {
    runs: Vec<Range<u64>>,
    operations_left: usize,
}

/// A step of saving old content.
#[derive(Clone, Debug)]
pub(super) enum UndoStep {
    Header,
    Read(ByteRange),
    Record,
    Flush,
    Trim,
}

impl Undo {
    pub(super) fn attached(log: Option<UndoLog>) -> Undo {
        Undo { log, unsettled: true, ..Undo::default() }
    }

    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Locked> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, work, _)| work)
    }

    /// The log being kept.
    pub(super) fn log_mut(&mut self) -> Option<&mut UndoLog> {
        self.log.as_mut()
    }

    pub(super) fn take_header(&mut self) -> Option<Bytes> {
        self.header.take()
    }
}

impl Engine {
    // From the beginning of a resync to its end.

    /// The data is about to be called Inconsistent, because a resync to this generation begins. Where that is the generation that
    /// the data has, nothing would tell the image apart from what the source has shown since: no log is kept.
    pub(super) fn begin_undo_log(&mut self, source_generation: u64) {
        let (id, volume_bytes) = (self.random() | 1, self.size_bytes());
        let resource = self.config.resource.clone();
        let undo = &mut self.disk.undo;
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let superblock = &mut metadata.superblock;
        let goes_on =
            undo.log.as_ref().is_some_and(|log| superblock.undo_id != 0 && log.id == superblock.undo_id);
        if goes_on && !superblock.flags.consistent {
            return;
        }
        superblock.undo_id = 0;
        // What is still being done for the last log would be taken for this one's.
        let apart = !same(superblock.generations.current, source_generation);
        if undo.log.is_none() || !superblock.flags.consistent || !apart || undo.in_flight > 0 {
            return;
        }
        superblock.undo_id = id;
        undo.header = Some(encode_header(id, superblock, volume_bytes, &resource));
        undo.log = Some(UndoLog::new(id, volume_bytes));
        (undo.unsettled, undo.ending, undo.batch) = (false, None, None);
    }

    /// The data is consistent again, or given up for good: to be called before the metadata is brought to disk. True if a
    /// log has ended.
    pub(super) fn end_undo_log(&mut self, version: Version) {
        if self.undo_counts() {
            self.disk.undo.ending = Some(version);
        }
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.undo_id = 0;
        }
    }

    /// The superblock, as it will be on disk or was until lately, names the log.
    fn undo_counts(&self) -> bool {
        let named = self.disk.metadata.as_ref().is_some_and(|m| {
            m.superblock.undo_id != 0
                && self.disk.undo.log.as_ref().is_some_and(|l| l.id == m.superblock.undo_id)
        });
        self.disk.is_usable() && (named || self.disk.undo.ending.is_some())
    }

    fn give_up_undo_log(&mut self, error: &str) {
        let text = format!(
            "the undo log cannot be written to ({error}): the resync goes on without; until it ends, the local data is of no use"
        );
        self.note(None, Level::Warn, text);
        let version = self.disk.persist.request(false);
        self.end_undo_log(version);
        self.disk.undo.header = None;
    }

    // Writes.

    /// The range of a write that must wait until the old content of its blocks is saved.
    pub(super) fn range_to_save(&self, work: &Locked) -> Option<ByteRange> {
        if !self.undo_counts() {
            return None;
        }
        let range = match work {
            Locked::ClientWrite(key) => self.range_being_written(*key)?,
            Locked::Apply(applied) => match applied.what {
                What::Write { .. } | What::Zero { .. } | What::Resync { .. } | What::ResyncZeroes => {
                    applied.range
                }
                What::Read { .. } | What::ResyncInSync | What::Verify(_) => return None,
            },
            Locked::ResyncRead(_) | Locked::Ask(_) => return None,
        };
        Some(range).filter(|range| !self.is_saved(*range))
    }

    pub(super) fn wait_for_undo(&mut self, range: ByteRange, work: Locked, logged: bool) {
        self.disk.undo.waiting.push_back((range, work, logged));
    }

    fn is_saved(&self, range: ByteRange) -> bool {
        let undo = &self.disk.undo;
        let Some(log) = undo.log.as_ref().filter(|_| undo.ending.is_none() && !undo.unsettled) else {
            return false;
        };
        let blocks = range.blocks_touched();
        let saving = |run: &Range<u64>| run.start < blocks.end && blocks.start < run.end;
        !log.unsaved.marks(range) && !undo.batch.as_ref().is_some_and(|batch| batch.runs.iter().any(saving))
    }

    /// Lets those go on whose blocks are saved, and saves more.
    pub(super) fn progress_undo(&mut self) {
        if self.disk.undo.ending.is_some_and(|version| self.disk.persist.is_durable(version)) {
            self.undo_log_ended();
        }
        let waiting = std::mem::take(&mut self.disk.undo.waiting);
        let before = waiting.len();
        for (_, work, logged) in waiting {
            match logged {
                true => self.start_work(work, true),
                // The disk may have become good meanwhile: then it is for the activity log as well.
                false => self.log_and_start(work),
            }
        }
        self.has_changed |= self.disk.undo.waiting.len() < before;
        let undo = &self.disk.undo;
        if !undo.waiting.is_empty() && undo.batch.is_none() && undo.ending.is_none() {
            self.begin_batch();
        }
    }

    fn undo_log_ended(&mut self) {
        self.disk.undo.ending = None;
        self.disk.undo.batch = None;
        let Some(log) = self.disk.undo.log.as_mut() else { return };
        let range = ByteRange::new(0, log.end);
        log.id = 0;
        let kind = DiskOpKind::Zero { range, unmap: true };
        self.start_undo_op(Device::Undo, kind, UndoStep::Trim);
    }

    fn begin_batch(&mut self) {
        let volume_bytes = self.size_bytes();
        let Some(log) = self.disk.undo.log.as_mut() else { return };
        let (mut runs, mut left) = (Vec::new(), BATCH_BLOCKS);
        for (range, ..) in &self.disk.undo.waiting {
            let blocks = range.blocks_touched();
            let mut from = blocks.start;
            while left > 0
                && let Some(run) = log.unsaved.next_run(from, left.min(UNDO_RECORD_BYTES / BLOCK_BYTES))
                && run.start < blocks.end
            {
                let run = run.start..run.end.min(blocks.end);
                log.unsaved.clear_range(bytes_of(&run, volume_bytes), volume_bytes);
                left -= run.end - run.start;
                from = run.end;
                runs.push(run);
            }
        }
        self.disk.undo.batch = Some(Batch { runs: runs.clone(), operations_left: runs.len() });
        for run in &runs {
            let range = bytes_of(run, volume_bytes);
            self.start_undo_op(Device::Data, DiskOpKind::Read(range), UndoStep::Read(range));
        }
        if runs.is_empty() {
            self.flush_undo_log();
        }
    }

    fn flush_undo_log(&mut self) {
        self.start_undo_op(Device::Undo, DiskOpKind::Flush, UndoStep::Flush);
    }

    /// An operation for the log.
    pub(super) fn start_undo_op(&mut self, device: Device, kind: DiskOpKind, step: UndoStep) {
        self.disk.undo.in_flight += 1;
        self.start_disk_op(device, kind, DiskWork::Undo(step));
    }

    /// A step has ended; `None` if it failed, or the disk is gone.
    pub(super) fn undo_step_done(&mut self, step: UndoStep, result: Option<Bytes>) {
        self.disk.undo.in_flight -= 1;
        match (step, result) {
            (UndoStep::Header, Some(_)) => self.persist_operation_done(),
            (UndoStep::Read(range), Some(content)) if self.disk.undo.batch.is_some() => {
                let Some(log) = self.disk.undo.log.as_mut() else { return };
                let (offset, data) = log.append(range.offset, &content);
                let kind = DiskOpKind::Write { offset, data, fua: false };
                self.start_undo_op(Device::Undo, kind, UndoStep::Record);
            }
            (UndoStep::Record, Some(_)) => {
                let Some(batch) = self.disk.undo.batch.as_mut() else { return };
                batch.operations_left -= 1;
                if batch.operations_left == 0 {
                    if seeded!(self, OverwritesBeforeUndo) {
                        self.disk.undo.batch = None;
                    } else {
                        self.flush_undo_log();
                    }
                }
            }
            (UndoStep::Flush, Some(_)) => {
                self.disk.undo.batch = None;
                self.disk.undo.unsettled = false;
            }
            _ => {}
        }
    }

    /// The log's file cannot be written to. The disk is none the worse for it.
    pub(super) fn undo_step_failed(&mut self, step: &UndoStep, error: &str) {
        self.disk.undo.in_flight -= 1;
        if !matches!(step, UndoStep::Trim) && self.undo_counts() && self.disk.undo.ending.is_none() {
            self.give_up_undo_log(error);
        }
        if matches!(step, UndoStep::Header) {
            self.persist_operation_done();
        }
    }
}
