//! One device's sectors behind a volatile cache.

use std::ops::Range;

use bytes::Bytes;

use super::disk::SECTOR;

/// What reads see, what is durable, and what lies between, in the order of completion.
#[derive(Debug)]
pub(super) struct Zone<T> {
    pub(super) view: Vec<T>,
    pub(super) durable: Vec<T>,
    pub(super) unflushed: Vec<Unflushed<T>>,
}

#[derive(Debug)]
pub(super) struct Unflushed<T> {
    completed: u64,
    pub(super) sector: usize,
    pub(super) value: T,
}

impl<T: Clone> Zone<T> {
    pub(super) fn new(sectors: usize, value: T) -> Self {
        Zone { view: vec![value.clone(); sectors], durable: vec![value; sectors], unflushed: Vec::new() }
    }

    pub(super) fn write(&mut self, sector: usize, value: T, durable: bool, clock: u64) {
        self.view[sector] = value.clone();
        if durable {
            self.durable[sector] = value;
            self.unflushed.retain(|u| u.sector != sector);
        } else {
            self.unflushed.push(Unflushed { completed: clock, sector, value });
        }
    }

    /// What completed before `began` in the sectors below this one becomes durable.
    pub(super) fn settle(&mut self, began: u64, below: usize) {
        for u in self.take_covered(began, below) {
            self.durable[u.sector] = u.value;
        }
    }

    fn take_covered(&mut self, began: u64, below: usize) -> Vec<Unflushed<T>> {
        let covered = self.unflushed.partition_point(|u| u.completed < began);
        let covered = self.unflushed.drain(..covered);
        let (taken, left): (Vec<_>, Vec<_>) = covered.partition(|u| u.sector < below);
        self.unflushed.splice(0..0, left);
        taken
    }

    /// A flush failed: of what it covers, each sector became durable all the same, or is lost. True if any is lost.
    pub(super) fn lose(&mut self, began: u64, below: usize, mut survives: impl FnMut() -> bool) -> bool {
        let mut lost = false;
        for u in self.take_covered(began, below) {
            if survives() {
                self.durable[u.sector] = u.value;
            } else {
                lost = true;
            }
        }
        lost
    }

    /// Reads see what is durable, and what is in the cache.
    pub(super) fn refresh(&mut self) {
        self.view.clone_from(&self.durable);
        for u in &self.unflushed {
            self.view[u.sector] = u.value.clone();
        }
    }

    pub(super) fn settle_some(&mut self, mut survives: impl FnMut() -> bool) {
        for u in self.unflushed.drain(..) {
            if survives() {
                self.durable[u.sector] = u.value;
            }
        }
        self.view.clone_from(&self.durable);
    }
}

impl Zone<Bytes> {
    /// Writes those sectors of `data`, or of zeroes, that `lands` picks.
    pub(super) fn write_sectors(
        &mut self,
        range: Range<usize>,
        data: Option<&Bytes>,
        durable: bool,
        clock: u64,
        mut lands: impl FnMut(usize) -> bool,
    ) {
        for (i, sector) in range.enumerate() {
            if lands(i) {
                let zeroes = Bytes::from_static(&[0; SECTOR]);
                let bytes = data.map_or(zeroes, |d| d.slice(i * SECTOR..(i + 1) * SECTOR));
                self.write(sector, bytes, durable, clock);
            }
        }
    }
}
