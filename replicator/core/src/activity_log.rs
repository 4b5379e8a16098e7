//! The activity log in memory: which extents are hot, who needs them, and which of them goes first.
//!
//! An extent is *held* by every write that may not yet be the same on all copies. Extents that nobody holds stay until
//! their slot is needed, the one that was let go longest ago first. What the table says is on disk, but for the slots
//! of the transaction under way, whose writes wait.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::metadata::{FREE, MAX_CHANGES, WHOLE_BLOCKS, encode_transaction, ring_offset};
use crate::units::ByteRange;

/// The end of a list.
const NONE: u16 = u16::MAX;

/// The log of an attached disk.
#[derive(Clone, Debug)]
pub(crate) struct ActivityLog {
    extent_bytes: u64,
    /// The extent in each slot, or [`FREE`].
    table: Vec<u32>,
    slots: Vec<Slot>,
    slot_of: HashMap<u32, u16, BuildHasherDefault<ExtentHasher>>,
    /// Ends of the list of slots that nobody holds: let go longest ago, and last.
    oldest: u16,
    newest: u16,
    idle: usize,
    /// Number of the last transaction.
    number: u64,
    /// Slots changed by the transaction that is being put together, or under way.
    changes: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Slot {
    holders: u32,
    /// Neighbours in the list of slots that nobody holds.
    older: u16,
    newer: u16,
    /// Part of the transaction under way.
    changing: bool,
    /// Data writes that the disk had done when the last one in this extent was done.
    written: u64,
}

/// What became of a request to hold extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reservation {
    /// They are held, and on disk.
    Held,
    /// They are held, and will be on disk with the transaction.
    WithTransaction,
    /// Too many slots are held, or the transaction is full: nothing was changed.
    NoRoom,
}

/// What must be on disk before an extent may be forgotten there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Evicted {
    /// The extent.
    pub(crate) range: ByteRange,
    /// Data writes that must be durable.
    pub(crate) written: u64,
}

impl ActivityLog {
    /// An empty log that goes on after transaction `number`.
    pub(crate) fn new(slots: u16, extent_bytes: u64, number: u64) -> Self {
        let mut log = ActivityLog {
            extent_bytes,
            table: vec![FREE; usize::from(slots)],
            slots: Vec::with_capacity(usize::from(slots)),
            slot_of: HashMap::with_capacity_and_hasher(usize::from(slots), BuildHasherDefault::default()),
            oldest: NONE,
            newest: NONE,
            idle: 0,
            number,
            changes: Vec::with_capacity(MAX_CHANGES),
        };
        for slot in 0..slots {
            log.slots.push(Slot { holders: 0, older: NONE, newer: NONE, changing: false, written: 0 });
            log.append_idle(slot);
        }
        log
    }

    /// Number of the next transaction.
    pub(crate) fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// True if somebody holds an extent.
    pub(crate) fn is_held(&self) -> bool {
        self.held_extents() > 0
    }

    /// Number of extents that somebody holds.
    pub(crate) fn held_extents(&self) -> usize {
        self.slots.len() - self.idle
    }

    /// Holds the extents of a range if all of them are on disk.
    pub(crate) fn hold(&mut self, range: ByteRange) -> bool {
        let on_disk = |slot: &u16| !self.slots[usize::from(*slot)].changing;
        if !self.extents(range).all(|extent| self.slot_of.get(&extent).is_some_and(on_disk)) {
            return false;
        }
        self.hold_more(range);
        true
    }

    /// Holds the extents of a range, with changes of the next transaction if need be; `evicted` gets what that will
    /// forget. Not while a transaction is under way.
    pub(crate) fn reserve(&mut self, range: ByteRange, evicted: &mut Vec<Evicted>) -> Reservation {
        let (mut missing, mut idle_hits) = (0, 0);
        for extent in self.extents(range) {
            match self.slot_of.get(&extent) {
                Some(slot) if self.slots[usize::from(*slot)].holders == 0 => idle_hits += 1,
                Some(_) => {}
                None => missing += 1,
            }
        }
        if missing + idle_hits > self.idle || self.changes.len() + missing > MAX_CHANGES {
            return Reservation::NoRoom;
        }
        for extent in self.extents(range) {
            if let Some(slot) = self.slot_of.get(&extent).copied() {
                self.hold_slot(slot);
            }
        }
        let mut with_transaction = false;
        for extent in self.extents(range) {
            let slot = match self.slot_of.get(&extent) {
                Some(slot) => *slot,
                None => self.replace_oldest(extent, evicted),
            };
            with_transaction |= self.slots[usize::from(slot)].changing;
        }
        if with_transaction { Reservation::WithTransaction } else { Reservation::Held }
    }

    /// Holds the extents of a range once more, for somebody besides those who hold them.
    pub(crate) fn hold_more(&mut self, range: ByteRange) {
        for extent in self.extents(range) {
            let slot = self.slot_of[&extent];
            self.hold_slot(slot);
        }
    }

    /// One who held the extents of a range does not need them any more.
    pub(crate) fn release(&mut self, range: ByteRange) {
        for extent in self.extents(range) {
            let slot = self.slot_of[&extent];
            let entry = &mut self.slots[usize::from(slot)];
            assert!(entry.holders > 0, "extent {extent} of the activity log is let go twice");
            entry.holders -= 1;
            if entry.holders == 0 {
                self.append_idle(slot);
            }
        }
    }

    /// A write in extents that are held is done; the disk has done `writes_done` until now.
    pub(crate) fn note_write(&mut self, range: ByteRange, writes_done: u64) {
        for extent in self.extents(range) {
            let slot = self.slot_of[&extent];
            self.slots[usize::from(slot)].written = writes_done;
        }
    }

    /// True if a transaction has something to change.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Writes the whole log anew into an empty ring: as many transactions that change nothing as tell the whole table. Returns
    /// the first one's number. Not while a transaction has something to change.
    pub(crate) fn write_anew(&mut self, ring: &mut [u8]) -> u64 {
        let first = self.next_number();
        for _ in 0..WHOLE_BLOCKS {
            let (number, block) = self.begin_transaction();
            let at = ring_offset(number) as usize;
            ring[at..at + block.len()].copy_from_slice(&block);
        }
        first
    }

    /// The transaction's number and block.
    pub(crate) fn begin_transaction(&mut self) -> (u64, Vec<u8>) {
        self.number += 1;
        (self.number, encode_transaction(self.number, self.extent_bytes, &self.table, &self.changes))
    }

    /// The transaction is on disk.
    pub(crate) fn end_transaction(&mut self) {
        for slot in self.changes.drain(..) {
            self.slots[usize::from(slot)].changing = false;
        }
    }

    /// Longest range that may be written to at a time: no write takes more than half of the slots or of a transaction.
    pub(crate) fn longest_write_bytes(slots: u16, extent_bytes: u64) -> u64 {
        let extents = usize::from(slots).min(MAX_CHANGES) / 2;
        (extents.max(2) as u64 - 1) * extent_bytes
    }

    fn extents(&self, range: ByteRange) -> std::ops::Range<u32> {
        (range.offset / self.extent_bytes) as u32..range.end().div_ceil(self.extent_bytes) as u32
    }

    fn hold_slot(&mut self, slot: u16) {
        if self.slots[usize::from(slot)].holders == 0 {
            self.unlink_idle(slot);
        }
        self.slots[usize::from(slot)].holders += 1;
    }

    /// Puts an extent in the place of the one that was let go longest ago, and holds it.
    fn replace_oldest(&mut self, extent: u32, evicted: &mut Vec<Evicted>) -> u16 {
        let slot = self.oldest;
        self.hold_slot(slot);
        let old = std::mem::replace(&mut self.table[usize::from(slot)], extent);
        let entry = &mut self.slots[usize::from(slot)];
        let written = std::mem::take(&mut entry.written);
        entry.changing = true;
        self.changes.push(slot);
        if old != FREE {
            self.slot_of.remove(&old);
            let range = ByteRange::new(u64::from(old) * self.extent_bytes, self.extent_bytes);
            evicted.push(Evicted { range, written });
        }
        self.slot_of.insert(extent, slot);
        slot
    }

    fn append_idle(&mut self, slot: u16) {
        let before = std::mem::replace(&mut self.newest, slot);
        let entry = &mut self.slots[usize::from(slot)];
        (entry.older, entry.newer) = (before, NONE);
        match self.slots.get_mut(usize::from(before)) {
            Some(before) => before.newer = slot,
            None => self.oldest = slot,
        }
        self.idle += 1;
    }

    fn unlink_idle(&mut self, slot: u16) {
        let (older, newer) = (self.slots[usize::from(slot)].older, self.slots[usize::from(slot)].newer);
        match self.slots.get_mut(usize::from(older)) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(usize::from(newer)) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.idle -= 1;
    }
}

/// One multiplication: extents are numbers that no stranger chooses to collide.
#[derive(Clone, Copy, Default, Debug)]
struct ExtentHasher(u64);

impl Hasher for ExtentHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::metadata::{Carelessness, MAX_LOG_SLOTS, RING_BYTES, Recovered, recover, ring_offset};

    const EXTENT: u64 = 4 << 20;
    const BLOCK: usize = 4096;

    /// A log with the ring that it is written to.
    struct Disk {
        log: ActivityLog,
        ring: Vec<u8>,
        first: u64,
        evicted: Vec<Evicted>,
    }

    impl Disk {
        fn new(slots: u16) -> Disk {
            let log = ActivityLog::new(slots, EXTENT, 40);
            Disk { first: log.next_number(), log, ring: vec![0; RING_BYTES], evicted: Vec::new() }
        }

        fn recover(&self, ring: &[u8]) -> Option<Vec<u32>> {
            match recover(ring, self.first, Carelessness::default()) {
                Recovered::Unknown => None,
                Recovered::Extents { extents, .. } => Some(extents),
            }
        }

        fn table(&self) -> Vec<u32> {
            let mut extents: Vec<u32> = self.log.table.iter().copied().filter(|e| *e != FREE).collect();
            extents.sort_unstable();
            extents
        }

        /// Writes the transaction; the ring as it was before, and where the block lies.
        fn commit(&mut self) -> (Vec<u8>, usize) {
            let before = self.ring.clone();
            let (number, block) = self.log.begin_transaction();
            let at = ring_offset(number) as usize;
            self.ring[at..at + BLOCK].copy_from_slice(&block);
            self.log.end_transaction();
            (before, at)
        }
    }

    fn write(extent: u32, extents: u64) -> ByteRange {
        ByteRange::new(u64::from(extent) * EXTENT + 4096, extents * EXTENT - 8192)
    }

    #[test]
    fn the_extent_that_was_let_go_longest_ago_is_forgotten() {
        let mut disk = Disk::new(3);
        for extent in [1, 2, 3] {
            assert_eq!(disk.log.reserve(write(extent, 1), &mut disk.evicted), Reservation::WithTransaction);
        }
        assert!(!disk.log.hold(write(1, 1)), "not on disk yet");
        disk.commit();
        assert_eq!(disk.log.reserve(write(4, 1), &mut disk.evicted), Reservation::NoRoom);
        disk.log.note_write(write(2, 1), 17);
        for extent in [2, 3, 1] {
            disk.log.release(write(extent, 1));
        }
        assert!(disk.log.hold(write(2, 1)), "a hit needs no transaction");
        disk.log.release(write(2, 1));
        assert_eq!(disk.log.reserve(write(4, 1), &mut disk.evicted), Reservation::WithTransaction);
        assert_eq!(disk.log.reserve(write(1, 2), &mut disk.evicted), Reservation::Held);
        let gone: Vec<u64> = disk.evicted.iter().map(|e| e.range.offset / EXTENT).collect();
        assert_eq!(gone, [3], "2 was used once more, 1 was let go after 3");
        assert_eq!(disk.table(), [1, 2, 4]);
    }

    #[test]
    fn what_was_written_last_is_told_with_the_eviction() {
        let mut disk = Disk::new(1);
        disk.log.reserve(write(9, 1), &mut disk.evicted);
        disk.commit();
        disk.log.note_write(write(9, 1), 17);
        disk.log.release(write(9, 1));
        disk.log.reserve(write(8, 1), &mut disk.evicted);
        let range = ByteRange::new(9 * EXTENT, EXTENT);
        assert_eq!(disk.evicted, [Evicted { range, written: 17 }]);
    }

    #[test]
    fn what_was_before_the_first_transaction_does_not_count() {
        let mut disk = Disk::new(7);
        for extent in 0..20 {
            disk.log.reserve(write(extent, 1), &mut disk.evicted);
            disk.commit();
            disk.log.release(write(extent, 1));
        }
        disk.first = disk.log.next_number();
        assert_eq!(disk.recover(&disk.ring), Some(Vec::new()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever sectors of the block being written reach the disk, the log says what it was, or what it shall be;
        /// and if any block but the newest is lost besides, it never says too little.
        #[test]
        fn no_torn_block_loses_an_extent(
            slots in prop::sample::select(vec![7u16, 8, 67, 1237, MAX_LOG_SLOTS]),
            steps in prop::collection::vec(prop::collection::vec((0u32..40_000, 1u64..4), 1..24), 1..40),
            torn in any::<u8>(),
            lost in 0usize..7,
        ) {
            let mut disk = Disk::new(slots);
            for ranges in steps {
                let before = disk.table();
                let mut held = Vec::new();
                for (extent, extents) in ranges {
                    let range = write(if slots < 100 { extent % 50 } else { extent }, extents);
                    if disk.log.reserve(range, &mut disk.evicted) != Reservation::NoRoom {
                        held.push(range);
                    }
                }
                if !disk.log.has_changes() {
                    held.into_iter().for_each(|range| disk.log.release(range));
                    continue;
                }
                let (old, at) = disk.commit();
                prop_assert_eq!(disk.recover(&disk.ring), Some(disk.table()));
                let mut ring = old;
                for sector in (0..8).filter(|sector| torn >> sector & 1 == 1) {
                    let bytes = at + sector * 512..at + (sector + 1) * 512;
                    ring[bytes.clone()].copy_from_slice(&disk.ring[bytes]);
                }
                let found = disk.recover(&ring);
                prop_assert!(found.as_ref() == Some(&before) || found == Some(disk.table()));
                if lost * BLOCK != at {
                    let mut ring = disk.ring.clone();
                    ring[lost * BLOCK + 100] ^= 1;
                    let found = disk.recover(&ring);
                    prop_assert!(found.is_none_or(|found| disk.table().iter().all(|e| found.contains(e))));
                }
                held.into_iter().for_each(|range| disk.log.release(range));
            }
        }

        /// Against a table without order or bound: what is held is on disk, and nothing else was lost but idle extents.
        #[test]
        fn held_extents_stay(ops in prop::collection::vec((0u32..24, 1u64..3, any::<bool>()), 1..300)) {
            let mut disk = Disk::new(7);
            let mut held: BTreeMap<u32, u32> = BTreeMap::new();
            let mut ranges = Vec::new();
            for (extent, extents, release) in ops {
                if release && !ranges.is_empty() {
                    let range = ranges.swap_remove(extent as usize % ranges.len());
                    disk.log.release(range);
                    for extent in disk.log.extents(range) {
                        *held.entry(extent).or_default() -= 1;
                    }
                    held.retain(|_, holders| *holders > 0);
                } else {
                    let range = write(extent, extents);
                    let wanted = disk.log.extents(range);
                    let others = held.keys().filter(|e| !wanted.contains(e)).count();
                    let granted = disk.log.hold(range)
                        || disk.log.reserve(range, &mut disk.evicted) != Reservation::NoRoom;
                    prop_assert_eq!(granted, others + wanted.len() <= 7);
                    if granted {
                        disk.commit();
                        wanted.for_each(|extent| *held.entry(extent).or_default() += 1);
                        ranges.push(range);
                    }
                }
                let table = disk.table();
                prop_assert!(held.keys().all(|extent| table.contains(extent)));
                prop_assert_eq!(disk.log.is_held(), !held.is_empty());
            }
        }
    }
}
