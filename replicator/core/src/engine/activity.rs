//! The activity log at work: no write begins before the disk says that its extents may differ.
//!
//! A write whose extents are on disk takes no part of this but a look-up. The others wait for one transaction, in
//! which as many as fit take part. An extent is held until the local disk has the write and every peer that replicates
//! has acknowledged the barrier behind it. When all slots are held, those who come later wait behind those who wait,
//! and the open epoch is closed, so that the peers acknowledge what holds them.
//!
//! Who writes here: clients on the Primary, and the Primary itself where it has no disk and ours is the only copy.

use std::collections::VecDeque;

use super::ranges::Locked;
use super::{Engine, Reign};
use crate::activity_log::{ActivityLog, Evicted, Reservation};
use crate::bitmap::PAGE_BITS;
use crate::io::{Device, DiskOpKind, Level};
use crate::metadata::{ActivityLogState, Carelessness, FREE, newest_number, ring_offset};
use crate::seeded;
use crate::state::Role;
use crate::units::{ByteRange, NodeId};

use super::persist::Version;

/// The attached disk's log.
#[derive(Clone, Default, Debug)]
pub(super) struct Log {
    /// `None` without a disk, or where no log is kept.
    table: Option<ActivityLog>,
    /// The version of the metadata that says that the log counts.
    opened: Version,
    /// Work that waits for its extents, in the order of its coming.
    waiting: VecDeque<(ByteRange, Locked)>,
    /// Work that begins when the transaction is on disk.
    reserved: Vec<Locked>,
    /// What the transaction being put together will forget.
    evicted: Vec<Evicted>,
    /// The first who waits needs a slot, and all are held.
    starving: bool,
}

impl Log {
    /// The table, if a log is kept.
    pub(super) fn table_mut(&mut self) -> Option<&mut ActivityLog> {
        self.table.as_mut()
    }

    /// Nobody holds an extent or waits for one.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.reserved.is_empty()
            && !self.table.as_ref().is_some_and(ActivityLog::is_held)
    }

    /// Extents that writes hold.
    pub(super) fn held_extents(&self) -> usize {
        self.table.as_ref().map_or(0, ActivityLog::held_extents)
    }

    /// The transaction is to be written.
    pub(super) fn has_changes(&self) -> bool {
        self.table.as_ref().is_some_and(ActivityLog::has_changes)
    }
}

impl Engine {
    // From attach to detach.

    /// What may have been written to one copy only, and was not noted in the bitmaps, counts as different; then the
    /// log begins anew.
    pub(super) fn recover_log(&mut self) {
        let careless = Carelessness {
            trusts_torn: seeded!(self, TrustsTornTransaction),
            ignores_numbers: seeded!(self, IgnoresTransactionNumbers),
        };
        let forget = seeded!(self, ForgetsCrash);
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let marked_bytes = if forget { None } else { metadata.mark_hot_ranges(careless) };
        let ring = std::mem::take(&mut metadata.log_ring);
        let opened_at = match std::mem::take(&mut metadata.superblock.activity_log) {
            ActivityLogState::Open(first) => first,
            ActivityLogState::Closed | ActivityLogState::Unlogged => 0,
        };
        if let Some(bytes) = marked_bytes {
            let kib = bytes / 1024;
            self.note(None, Level::Warn, format!("Marked additional {kib} KB as out-of-sync based on AL."));
        }
        let number = newest_number(&ring).max(opened_at.saturating_sub(1));
        self.disk.log = Log { table: self.new_table(number), ..Log::default() };
    }

    /// An empty table that goes on after transaction `number`.
    fn new_table(&self, number: u64) -> Option<ActivityLog> {
        let (options, extent_bytes) = (&self.config.options, self.config.al_extent_bytes);
        let numbered = self.size_bytes().div_ceil(extent_bytes) < u64::from(FREE);
        (options.al_updates && numbered).then(|| ActivityLog::new(options.al_extents, extent_bytes, number))
    }

    /// The disk shall say that the log counts.
    pub(super) fn open_log(&mut self) {
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let state = &mut metadata.superblock.activity_log;
        if *state != ActivityLogState::Closed {
            return;
        }
        *state = match &self.disk.log.table {
            Some(table) => ActivityLogState::Open(table.next_number()),
            None => ActivityLogState::Unlogged,
        };
        self.disk.log.opened = self.disk.persist.request(false);
    }

    /// The disk shall say that nothing differs but what the bitmaps mark. To be asked for with the bitmaps, once
    /// everything written has ended everywhere.
    pub(super) fn close_log(&mut self) {
        let Some(metadata) = self.disk.metadata.as_mut().filter(|_| self.disk.log.is_idle()) else { return };
        metadata.superblock.activity_log = ActivityLogState::Closed;
        let number = self.disk.log.table.as_ref().map_or(0, |table| table.next_number() - 1);
        self.disk.log.table = self.new_table(number);
    }

    /// The only copy behind a Primary without a disk is not that any more.
    fn close_log_if_over(&mut self) {
        let open = self
            .disk
            .metadata
            .as_ref()
            .is_some_and(|m| m.superblock.activity_log != ActivityLogState::Closed);
        let over = self.reign == Reign::Idle
            && !self.peers.iter().any(|p| p.role == Role::Primary && p.lost_disk())
            && self.peers.iter().all(|p| p.receiver.is_drained());
        if open && over && self.disk.log.is_idle() {
            self.close_log();
            self.disk.persist.request(true);
        }
    }

    /// The disk is gone, and what was held on it.
    pub(super) fn forget_log(&mut self) {
        self.disk.log.table = None;
        for peer in &mut self.peers {
            peer.transfer_log.iter_mut().for_each(|sent| sent.logged = false);
        }
    }

    /// Those who waited for it, or for the undo log, wait for nothing any more, and hold nothing.
    pub(super) fn let_waiters_go(&mut self) {
        let saved = self.disk.undo.take_waiting();
        let reserved = std::mem::take(&mut self.disk.log.reserved);
        let waiting = std::mem::take(&mut self.disk.log.waiting);
        let all = saved.chain(reserved).chain(waiting.into_iter().map(|(_, work)| work));
        all.for_each(|work| self.start_work(work, false));
    }

    // Writes.

    /// Starts work that has its range, at once or when its extents are on disk.
    pub(super) fn log_and_start(&mut self, work: Locked) {
        let Some(range) = self.range_to_log(&work) else { return self.start_work(work, false) };
        let open = self.log_is_open();
        let log = &mut self.disk.log;
        let held = log.table.as_mut().map(|table| open && !log.starving && table.hold(range));
        match held {
            Some(true) => self.start_work(work, true),
            None if open => self.start_work(work, false),
            Some(false) | None => log.waiting.push_back((range, work)),
        }
    }

    fn range_to_log(&self, work: &Locked) -> Option<ByteRange> {
        if !self.disk.is_usable() || seeded!(self, NoActivityLog) {
            return None;
        }
        match work {
            Locked::ClientWrite(key) => self.range_being_written(*key).filter(|_| self.takes_writes()),
            Locked::Apply(applied) => applied.only_here.then_some(applied.range),
            Locked::ResyncRead(_) | Locked::Ask(_) => None,
        }
    }

    /// The disk says that the log counts.
    fn log_is_open(&self) -> bool {
        let state = self.disk.metadata.as_ref().map(|m| m.superblock.activity_log);
        state.is_some_and(|s| s != ActivityLogState::Closed)
            && self.disk.persist.is_durable(self.disk.log.opened)
    }

    /// A write that holds its extents is about to be sent to a peer, which holds them too from now on.
    pub(super) fn hold_for_peer(&mut self, range: ByteRange) {
        if let Some(table) = self.disk.log.table.as_mut() {
            table.hold_more(range);
        }
    }

    /// A peer has it behind a barrier, or what it may lack is marked.
    pub(super) fn release_for_peer(&mut self, range: ByteRange) {
        if let Some(table) = self.disk.log.table.as_mut() {
            table.release(range);
        }
    }

    /// The local disk has completed a write that held its extents.
    pub(super) fn release_after_write(&mut self, range: ByteRange) {
        let writes_done = self.disk.writes_done;
        if let Some(table) = self.disk.log.table.as_mut() {
            table.note_write(range, writes_done);
            table.release(range);
        }
    }

    /// Longest range that a single write may have.
    pub(super) fn longest_write_bytes(&self) -> u64 {
        ActivityLog::longest_write_bytes(self.config.options.al_extents, self.config.al_extent_bytes)
    }

    // Transactions.

    /// Lets those who wait take part in the next transaction, as far as there is room.
    pub(super) fn progress_log(&mut self) {
        self.close_log_if_over();
        let waits = self.disk.persist.is_running() || self.disk.growth.is_moving();
        if !self.disk.is_usable() || self.disk.log.waiting.is_empty() || waits {
            return;
        }
        if !self.log_is_open() {
            return self.open_log();
        }
        while let Some((range, work)) = self.disk.log.waiting.pop_front() {
            let log = &mut self.disk.log;
            let reservation = match log.table.as_mut() {
                Some(table) => table.reserve(range, &mut log.evicted),
                None => Reservation::Held,
            };
            match reservation {
                Reservation::Held => {
                    let logged = log.table.is_some();
                    self.start_late(work, logged);
                }
                Reservation::WithTransaction if seeded!(self, WritesBeforeTransaction) => {
                    self.start_work(work, true);
                }
                Reservation::WithTransaction => log.reserved.push(work),
                Reservation::NoRoom => {
                    log.waiting.push_front((range, work));
                    break;
                }
            }
        }
        let log = &mut self.disk.log;
        log.starving = !log.waiting.is_empty() && !log.has_changes();
        if log.starving && self.peers.iter().any(|p| p.epoch_writes > 0) && !seeded!(self, StarvesOnOpenEpoch)
        {
            self.close_epoch(false);
        }
    }

    /// Those who look at what is under way have looked already.
    fn start_late(&mut self, work: Locked, logged: bool) {
        self.has_changed = true;
        self.start_work(work, logged);
    }

    /// The pages of the bitmaps that must be on disk before the transaction, and whether data must be flushed before
    /// them: an extent is forgotten when its bits are on disk, and its data.
    pub(super) fn before_transaction(&mut self) -> (Vec<u64>, bool) {
        let evicted = std::mem::take(&mut self.disk.log.evicted);
        let unflushed = evicted.iter().any(|e| !self.disk.is_durable(e.written));
        let Some(metadata) = self.disk.metadata.as_mut() else { return (Vec::new(), false) };
        let mut pages: Vec<u64> = evicted
            .iter()
            .flat_map(|e| {
                let blocks = e.range.blocks_touched();
                blocks.start / PAGE_BITS..blocks.end.div_ceil(PAGE_BITS)
            })
            .filter(|page| metadata.take_unwritten_group(*page))
            .collect();
        pages.sort_unstable();
        if seeded!(self, EvictsWithoutBitmap) {
            pages.clear();
        }
        // A bit that was cleared goes to disk no earlier than the block it stands for.
        let flush = (unflushed || !pages.is_empty()) && self.disk.has_unflushed_data();
        (pages, flush && !seeded!(self, EvictsWithoutFlush))
    }

    /// The write of the transaction.
    pub(super) fn transaction(&mut self) -> Option<(Device, DiskOpKind)> {
        let start = self.disk.metadata.as_ref()?.geometry.activity_log_offset;
        let (number, block) = self.disk.log.table.as_mut()?.begin_transaction();
        self.counters.activity_log_writes += 1;
        let kind = DiskOpKind::Write { offset: start + ring_offset(number), data: block.into(), fua: true };
        Some((Device::Meta, kind))
    }

    /// The transaction is on disk: those who took part begin.
    pub(super) fn transaction_done(&mut self) {
        if let Some(table) = self.disk.log.table.as_mut() {
            table.end_transaction();
        }
        for work in std::mem::take(&mut self.disk.log.reserved) {
            self.start_work(work, true);
        }
    }

    /// The Primary has no disk: whatever the protocol, it waits until we have written.
    pub(super) fn primary_relies_on_us(&self, id: NodeId) -> bool {
        self.peer(id).is_some_and(|p| p.lost_disk())
    }
}
