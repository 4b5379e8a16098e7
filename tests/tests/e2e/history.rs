//! What was written, what was completed, and whether what is found afterwards agrees with it.
//!
//! Every block of 4 KiB holds a version, its own number, and noise that follows from both. Versions and completions
//! are stamped by one clock, so that "completed before that one was issued" can be asked of any two writes.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::Random;

/// Unit of the history.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// The writes to the first blocks of a device since they were last looked at.
pub(crate) struct History {
    clock: AtomicU64,
    blocks: Mutex<Vec<Block>>,
}

#[derive(Clone, Default)]
struct Block {
    /// The version last found there; 0 is the empty disk.
    base: u64,
    /// In the order of issue; a block has one writer at a time.
    writes: Vec<BlockWrite>,
}

/// Its version is the time it was issued.
#[derive(Clone, Copy)]
struct BlockWrite {
    version: u64,
    completed: Option<u64>,
    /// It was written with FUA, or a flush was issued behind its completion and has completed.
    durable: bool,
}

impl History {
    pub(crate) fn new(blocks: u64) -> History {
        History { clock: AtomicU64::new(1), blocks: Mutex::new(vec![Block::default(); blocks as usize]) }
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> u64 {
        self.blocks.lock().unwrap().len() as u64
    }

    /// A write of these blocks is about to be sent; returns its version.
    pub(crate) fn issue(&self, blocks: Range<u64>) -> u64 {
        let mut all = self.blocks.lock().unwrap();
        let version = self.tick();
        for block in blocks {
            all[block as usize].writes.push(BlockWrite { version, completed: None, durable: false });
        }
        version
    }

    /// The reply to the last write of these blocks has come; with FUA it is durable.
    pub(crate) fn complete(&self, blocks: Range<u64>, fua: bool) {
        let mut all = self.blocks.lock().unwrap();
        let now = self.tick();
        for block in blocks {
            let write = all[block as usize].writes.last_mut().unwrap();
            (write.completed, write.durable) = (Some(now), fua);
        }
    }

    /// A flush is about to be sent; to be named when it has completed.
    pub(crate) fn issue_flush(&self) -> u64 {
        self.tick()
    }

    /// The reply to the flush that was issued at this time has come.
    pub(crate) fn complete_flush(&self, issued: u64) {
        for write in self.blocks.lock().unwrap().iter_mut().flat_map(|block| &mut block.writes) {
            write.durable |= write.completed.is_some_and(|completed| completed < issued);
        }
    }

    /// The version that the block's only writer must read.
    pub(crate) fn newest(&self, block: u64) -> u64 {
        let block = &self.blocks.lock().unwrap()[block as usize];
        block.writes.last().map_or(block.base, |w| w.version)
    }

    /// Every completed write is there, or a later one that was issued.
    pub(crate) fn check_nothing_lost(&self, found: &[u64]) -> Result<(), String> {
        self.check_present(found, "had completed", |write| write.completed.is_some())
    }

    /// Every write is there that a flush has covered, or a later one that was issued.
    pub(crate) fn check_nothing_durable_lost(&self, found: &[u64]) -> Result<(), String> {
        self.check_present(found, "was durable", |write| write.durable)
    }

    fn check_present(
        &self,
        found: &[u64],
        what: &str,
        must: impl Fn(&BlockWrite) -> bool,
    ) -> Result<(), String> {
        for (number, (block, version)) in self.blocks.lock().unwrap().iter().zip(found).enumerate() {
            let present = block.present(number, *version)?;
            if let Some(lost) = block.writes[present..].iter().find(|write| must(write)) {
                return Err(format!(
                    "block {number}: version {version} found, version {} {what}",
                    lost.version
                ));
            }
        }
        Ok(())
    }

    /// What is there is a causal cut: no write that is there was issued after the completion of one that is missing.
    pub(crate) fn check_causal_cut(&self, found: &[u64]) -> Result<(), String> {
        let (mut newest_present, mut oldest_missing) = (0, u64::MAX);
        for (number, (block, version)) in self.blocks.lock().unwrap().iter().zip(found).enumerate() {
            let (present, missing) = block.writes.split_at(block.present(number, *version)?);
            newest_present = newest_present.max(present.last().map_or(0, |w| w.version));
            oldest_missing = missing.iter().filter_map(|w| w.completed).fold(oldest_missing, u64::min);
        }
        if oldest_missing < newest_present {
            return Err(format!(
                "a write issued at {newest_present} is there, one that completed at {oldest_missing} is not"
            ));
        }
        Ok(())
    }

    /// From now on, what was found is what must be there.
    pub(crate) fn rebase(&self, found: &[u64]) {
        for (block, version) in self.blocks.lock().unwrap().iter_mut().zip(found) {
            *block = Block { base: *version, writes: Vec::new() };
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

impl Block {
    /// How many of its writes are there, given the version found.
    fn present(&self, number: usize, found: u64) -> Result<usize, String> {
        if found == self.base {
            return Ok(0);
        }
        let index = self.writes.iter().position(|w| w.version == found);
        index.map(|i| i + 1).ok_or_else(|| format!("block {number}: version {found} found, which was never written there, or was overwritten and seen so"))
    }
}

/// The block's content at this version.
pub(crate) fn content(block: u64, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; BLOCK_BYTES];
    }
    let mut noise = Random::new(block ^ version.rotate_left(32));
    let words = [version, block].into_iter().chain(std::iter::repeat_with(|| noise.next()));
    words.take(BLOCK_BYTES / 8).flat_map(u64::to_le_bytes).collect()
}

/// The version of a block that was read; an error if it is no version's content.
pub(crate) fn version_of(block: u64, bytes: &[u8]) -> Result<u64, String> {
    let version = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    match bytes == content(block, version) {
        true => Ok(version),
        false => Err(format!("block {block}: damaged (begins like version {version})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_is_seen() {
        let history = History::new(2);
        let first = history.issue(0..1);
        history.complete(0..1, false);
        let second = history.issue(0..1);
        assert!(history.check_nothing_lost(&[first, 0]).is_ok());
        assert!(history.check_nothing_lost(&[second, 0]).is_ok());
        assert!(history.check_nothing_lost(&[0, 0]).is_err());
        assert!(history.check_nothing_lost(&[first, 77]).is_err());
        history.complete(0..1, false);
        assert!(history.check_nothing_lost(&[first, 0]).is_err());
        history.rebase(&[second, 0]);
        assert!(history.check_nothing_lost(&[second, 0]).is_ok());
        assert!(history.check_nothing_lost(&[first, 0]).is_err());
    }

    #[test]
    fn what_a_flush_covers_must_be_there() {
        let history = History::new(2);
        let first = history.issue(0..1);
        history.complete(0..1, false);
        let flush = history.issue_flush();
        let second = history.issue(0..2);
        history.complete(0..2, false);
        assert!(history.check_nothing_durable_lost(&[0, 0]).is_ok(), "the flush has not completed");
        history.complete_flush(flush);
        assert!(history.check_nothing_durable_lost(&[0, 0]).is_err());
        assert!(history.check_nothing_durable_lost(&[first, 0]).is_ok());
        assert!(history.check_nothing_durable_lost(&[second, second]).is_ok());
        assert!(history.check_nothing_lost(&[first, 0]).is_err());
    }

    #[test]
    fn a_cut_may_be_short_and_not_have_holes() {
        let history = History::new(3);
        let a = history.issue(0..1);
        let c = history.issue(2..3);
        history.complete(0..1, false);
        let b = history.issue(1..2);
        history.complete(1..2, false);
        for good in [[0, 0, 0], [a, 0, 0], [a, b, 0], [a, b, c], [0, 0, c]] {
            assert!(history.check_causal_cut(&good).is_ok(), "{good:?}");
        }
        assert!(history.check_causal_cut(&[0, b, 0]).is_err());
        assert!(history.check_causal_cut(&[0, b, c]).is_err());
    }

    #[test]
    fn contents_are_told_apart() {
        assert_eq!(version_of(3, &content(3, 9)), Ok(9));
        assert_eq!(version_of(3, &content(3, 0)), Ok(0));
        let mut torn = content(3, 9);
        torn[2048..].copy_from_slice(&content(3, 8)[2048..]);
        assert!(version_of(3, &torn).is_err());
        assert!(version_of(4, &content(3, 9)).is_err());
    }
}
