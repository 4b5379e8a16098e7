//! What deaths and failed disks take back of what was promised.

use tandem_core::config::Protocol;

use super::super::disk::SimDisk;
use super::judgement::Fate;
use super::{Oracle, Promise, Version};

impl Oracle {
    /// The node's process died; with `power`, its disk's cache was lost too.
    pub fn died(&mut self, node: usize, power: bool) {
        self.died[node] = Some(power || self.died[node] == Some(true));
        if self.primary == Some(node) {
            self.primary_died |= self.reigns && self.followed && self.reign.is_none();
            self.reigns = false;
            self.reign = None;
        }
        self.take_back(node, if power { Promise::Durable } else { Promise::Cache });
    }

    /// The node's disk failed an operation and is used no more; with `cache_lost`, what was in its cache is lost.
    pub fn disk_failed(&mut self, node: usize, cache_lost: bool) {
        self.died[node] = Some(cache_lost || self.died[node] == Some(true));
        self.disk_failed[node] = true;
        self.take_back(node, if cache_lost { Promise::Durable } else { Promise::Cache });
    }

    /// A Primary goes on while the node's disk is not attached.
    pub fn could_not_note(&mut self, node: usize) {
        self.disk_failed[node] = true;
    }

    /// The node's disk has failed, or was not attached, since both were last in sync: it could not be told that data went on
    /// without it.
    pub fn has_failed_disk(&self, node: usize) -> bool {
        self.disk_failed[node]
    }

    /// A write that completed and that this disk lacks, unless the Primary lacked it when it was promoted.
    pub fn lost_write(&self, disk: &SimDisk) -> Option<u32> {
        let lacks = |(sector, found): (usize, &u64)| {
            let versions = &self.sectors[sector];
            let found = self.newest_found(sector, *found)?;
            let completed = |x: &Version| !x.void && self.writes[x.write as usize].completed.is_some();
            let lost = |(i, x): &(usize, &Version)| {
                completed(x) && self.supersedes(x, found) && !self.was_missing(sector, *i)
            };
            versions.iter().enumerate().find(lost).map(|(_, x)| x.write)
        };
        disk.tokens().iter().enumerate().find_map(lacks)
    }

    /// The promotion did not find this version, and nobody has been told anything since: otherwise it were void.
    fn was_missing(&self, sector: usize, version: usize) -> bool {
        let missing = |(s, v, fate): &(usize, usize, Fate)| {
            (*s, *v) == (sector, version) && matches!(fate, Fate::Missing)
        };
        self.reign.as_ref().is_some_and(|reign| reign.fates.iter().any(missing))
    }

    /// The node has got a new disk.
    pub fn disk_replaced(&mut self, node: usize) {
        for write in &mut self.writes {
            write.promise[node] = Promise::None;
            write.barrier_acked[node] = false;
        }
        self.died[node] = Some(true);
        self.disk_failed[node] = false;
        self.followed &= self.primary == Some(node);
        self.stale[node] = true;
        self.missed[node] = true;
        self.finished[node] = false;
    }

    fn take_back(&mut self, node: usize, keeps: Promise) {
        for write in &mut self.writes {
            if write.promise[node] < keeps {
                write.promise[node] = Promise::None;
            }
        }
        if let ([Some(a), Some(b)], [false, false]) = (self.died, self.missed) {
            // Nobody can tell which copy has lost more: only what was made durable is promised on either.
            if a || b || self.protocol == Protocol::B {
                self.keep_durable_only();
            }
        }
    }

    fn keep_durable_only(&mut self) {
        for promise in self.writes.iter_mut().flat_map(|w| w.promise.iter_mut()) {
            if *promise < Promise::Durable {
                *promise = Promise::None;
            }
        }
    }
}
