//! The quick-sync bitmap for one peer: one bit per 4 KiB block that differs, or may differ, between the two copies.

use crate::units::{BLOCK_BYTES, ByteRange};

/// Bits in one 4 KiB page of the bitmap on disk, and in one chunk on the wire.
pub const PAGE_BITS: u64 = 8 * PAGE_BYTES as u64;
/// Bytes in one page.
pub const PAGE_BYTES: usize = 4096;

const WORDS_PER_PAGE: usize = PAGE_BYTES / 8;

/// A bit per block of the volume, the bits set in each page, and which pages the disk does not have yet.
///
/// Of 16 TiB the bits take 512 MiB of addresses, but memory only where a bit was set: fresh pages are the kernel's zeroes,
/// and one without bits is never looked into. The rest is 640 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    blocks: u64,
    set: u64,
    set_in_page: Vec<u32>,
    unwritten_pages: Vec<bool>,
}

impl Bitmap {
    /// A clean bitmap for a volume of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        let pages = blocks.div_ceil(PAGE_BITS) as usize;
        Bitmap {
            words: vec![0; blocks.div_ceil(64) as usize],
            blocks,
            set: 0,
            set_in_page: vec![0; pages],
            unwritten_pages: vec![false; pages],
        }
    }

    /// The same bits, of a volume of `bytes`, which has no more blocks than this one.
    pub fn cut_to(&self, bytes: u64) -> Self {
        let mut cut = Bitmap::new(bytes);
        let mut block = 0;
        while let Some(run) = self.next_run(block, u64::MAX).filter(|run| run.start < cut.blocks) {
            cut.set_range(bytes_of(&run, bytes));
            block = run.end;
        }
        cut
    }

    /// From now on of a volume of `bytes`, which has no fewer blocks: the bits of the new ones are clear. The disk has none of
    /// them yet.
    pub fn grow_to(&mut self, bytes: u64) {
        let grown = Bitmap::new(bytes);
        let first_page = (self.blocks / PAGE_BITS) as usize;
        self.blocks = grown.blocks;
        self.words.resize(grown.words.len(), 0);
        self.set_in_page.resize(grown.set_in_page.len(), 0);
        self.unwritten_pages.resize(grown.unwritten_pages.len(), true);
        self.unwritten_pages.iter_mut().skip(first_page).for_each(|unwritten| *unwritten = true);
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of bits set.
    pub fn set_count(&self) -> u64 {
        self.set
    }

    /// Number of bits set of the blocks that the range touches.
    pub fn count_range(&self, range: ByteRange) -> u64 {
        let blocks = range.blocks_touched();
        let (mut block, end) = (blocks.start, blocks.end.min(self.blocks));
        let mut count = 0;
        while block < end {
            let page_end = (block / PAGE_BITS + 1) * PAGE_BITS;
            let set = self.set_in_page[(block / PAGE_BITS) as usize];
            if set == 0 || block.is_multiple_of(PAGE_BITS) && page_end.min(self.blocks) <= end {
                count += u64::from(set);
                block = page_end;
            } else {
                let bits = (64 - block % 64).min(end - block);
                let mask = !0 >> (64 - bits) << (block % 64);
                count += u64::from((self.words[(block / 64) as usize] & mask).count_ones());
                block += bits;
            }
        }
        count
    }

    /// Number of pages on disk.
    pub fn pages(&self) -> u64 {
        self.unwritten_pages.len() as u64
    }

    /// True if this block's bit is set; false beyond the end.
    pub fn is_set(&self, block: u64) -> bool {
        let word = self.words.get((block / 64) as usize).copied().unwrap_or(0);
        word >> (block % 64) & 1 == 1
    }

    /// Sets the bit of every block that the range touches.
    pub fn set_range(&mut self, range: ByteRange) {
        self.update(range.blocks_touched(), |word, mask| word | mask);
    }

    /// Clears the bits of the blocks that lie wholly in the range; a block cut short by the volume's end counts as
    /// whole when the range reaches `volume_bytes`.
    pub fn clear_range(&mut self, range: ByteRange, volume_bytes: u64) {
        let first = range.offset.div_ceil(BLOCK_BYTES);
        let end = if range.end() >= volume_bytes { self.blocks } else { range.end() / BLOCK_BYTES };
        self.update(first..end, |word, mask| word & !mask);
    }

    /// Sets every bit.
    pub fn set_all(&mut self) {
        self.update(0..self.blocks, |word, mask| word | mask);
    }

    /// Clears every bit.
    pub fn clear_all(&mut self) {
        self.update(0..self.blocks, |word, mask| word & !mask);
    }

    /// True if a block that the range touches is set.
    pub fn marks(&self, range: ByteRange) -> bool {
        let blocks = range.blocks_touched();
        self.next_set(blocks.start).is_some_and(|block| block < blocks.end)
    }

    /// The first set bit at or after `block`.
    pub fn next_set(&self, block: u64) -> Option<u64> {
        let mut from = block;
        while let Some(set) = self.set_in_page.get((from / PAGE_BITS) as usize) {
            if *set > 0
                && let Some(bit) = self.next_set_in_page(from)
            {
                return Some(bit);
            }
            from = (from / PAGE_BITS + 1) * PAGE_BITS;
        }
        None
    }

    fn next_set_in_page(&self, from: u64) -> Option<u64> {
        let end = ((from / PAGE_BITS) as usize + 1) * WORDS_PER_PAGE;
        let mut mask = !0 << (from % 64);
        for index in (from / 64) as usize..end.min(self.words.len()) {
            let word = self.words[index] & mask;
            if word != 0 {
                return Some(index as u64 * 64 + u64::from(word.trailing_zeros()));
            }
            mask = !0;
        }
        None
    }

    /// The run of at most `max_blocks` set bits that starts with the first one at or after `block`.
    pub fn next_run(&self, block: u64, max_blocks: u64) -> Option<std::ops::Range<u64>> {
        let start = self.next_set(block)?;
        let limit = start.saturating_add(max_blocks);
        let mut end = start + 1;
        while end < limit && self.is_set(end) {
            let whole_word = end.is_multiple_of(64) && self.words[(end / 64) as usize] == !0;
            end += if whole_word { 64 } else { 1 };
        }
        Some(start..end.min(limit))
    }

    /// The ranges of the blocks that are set, from byte `from` on, at most `most` of them; and where they end: beyond that
    /// byte there may be more. Beyond `volume_bytes`, which cuts the last block short, none counts.
    pub fn ranges(&self, from: u64, most: usize, volume_bytes: u64) -> (Vec<ByteRange>, u64) {
        let mut ranges = Vec::new();
        let mut block = from / BLOCK_BYTES;
        let counts = |run: &std::ops::Range<u64>| run.start * BLOCK_BYTES < volume_bytes;
        while let Some(run) = self.next_run(block, u64::MAX).filter(counts) {
            if ranges.len() == most {
                return (ranges, block * BLOCK_BYTES);
            }
            ranges.push(bytes_of(&run, volume_bytes));
            block = run.end;
        }
        (ranges, volume_bytes)
    }

    /// All bits, the first block's being the lowest of the first word.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The bits of one page, little-endian, padded with zeroes to [`PAGE_BYTES`].
    pub fn page(&self, page: u64) -> Vec<u8> {
        let first = page as usize * WORDS_PER_PAGE;
        let mut bytes = Vec::with_capacity(PAGE_BYTES);
        for word in self.words.iter().skip(first).take(WORDS_PER_PAGE) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(PAGE_BYTES, 0);
        bytes
    }

    /// Sets the bits that are set in `bytes`, which holds the page's bits as [`Bitmap::page`] gives them; an empty
    /// slice sets the whole page. Bits beyond the volume's end are ignored.
    pub fn merge_page(&mut self, page: u64, bytes: &[u8]) {
        let first_bit = page * PAGE_BITS;
        if bytes.is_empty() {
            self.update(first_bit..(first_bit + PAGE_BITS).min(self.blocks), |word, mask| word | mask);
            return;
        }
        for (i, chunk) in bytes.chunks_exact(8).take(WORDS_PER_PAGE).enumerate() {
            let incoming = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            let start = first_bit + i as u64 * 64;
            if incoming != 0 && start < self.blocks {
                self.update(start..(start + 64).min(self.blocks), |word, mask| word | (incoming & mask));
            }
        }
    }

    /// True if every bit of the page that belongs to the volume is set.
    pub fn page_is_full(&self, page: u64) -> bool {
        let bits = self.blocks.saturating_sub(page * PAGE_BITS).min(PAGE_BITS);
        self.set_in_page.get(page as usize).is_some_and(|set| u64::from(*set) == bits)
    }

    /// True if a bit of the page is set.
    pub fn page_has_bits(&self, page: u64) -> bool {
        self.set_in_page.get(page as usize).is_some_and(|set| *set > 0)
    }

    /// True if the page changed since it was last taken; it counts as written from now on.
    pub fn take_unwritten_page(&mut self, page: u64) -> bool {
        self.unwritten_pages.get_mut(page as usize).is_some_and(std::mem::take)
    }

    /// Forgets which pages the disk lacks: the bitmap was just read from there.
    pub fn mark_written(&mut self) {
        self.unwritten_pages.fill(false);
    }

    fn update(&mut self, blocks: std::ops::Range<u64>, change: impl Fn(u64, u64) -> u64) {
        let end = blocks.end.min(self.blocks);
        let mut block = blocks.start;
        while block < end {
            let count = (64 - block % 64).min(end - block);
            let mask = if count == 64 { !0 } else { ((1 << count) - 1) << (block % 64) };
            let word = &mut self.words[(block / 64) as usize];
            let changed = change(*word, mask);
            if changed != *word {
                let (before, after) = (word.count_ones(), changed.count_ones());
                *word = changed;
                let page = (block / PAGE_BITS) as usize;
                self.set = self.set + u64::from(after) - u64::from(before);
                self.set_in_page[page] = self.set_in_page[page] + after - before;
                self.unwritten_pages[page] = true;
            }
            block += count;
        }
    }
}

/// The bytes of a run of blocks; the volume's last block is cut short by `volume_bytes`.
pub fn bytes_of(run: &std::ops::Range<u64>, volume_bytes: u64) -> ByteRange {
    let offset = run.start * BLOCK_BYTES;
    ByteRange::new(offset, (run.end * BLOCK_BYTES).min(volume_bytes) - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_volume_keeps_its_bits() {
        let mut bitmap = Bitmap::new(300 * BLOCK_BYTES);
        for block in [0, 63, 64, 120, 121, 200] {
            bitmap.set_range(ByteRange::new(block * BLOCK_BYTES, BLOCK_BYTES));
        }
        let cut = bitmap.cut_to(121 * BLOCK_BYTES - 512);
        assert_eq!((cut.blocks(), cut.set_count()), (121, 4));
        assert!([0, 63, 64, 120].iter().all(|block| cut.is_set(*block)));
        assert_eq!(bitmap.cut_to(300 * BLOCK_BYTES).words(), bitmap.words());
    }

    #[test]
    fn a_larger_volume_keeps_its_bits_and_the_disk_gets_the_new_ones() {
        let mut bitmap = Bitmap::new(PAGE_BITS * BLOCK_BYTES + 512);
        bitmap.set_range(ByteRange::new(PAGE_BITS * BLOCK_BYTES, 512));
        bitmap.mark_written();
        bitmap.grow_to(3 * PAGE_BITS * BLOCK_BYTES);
        assert_eq!((bitmap.blocks(), bitmap.pages(), bitmap.set_count()), (3 * PAGE_BITS, 3, 1));
        assert!(bitmap.is_set(PAGE_BITS) && !bitmap.is_set(PAGE_BITS + 1));
        let unwritten: Vec<bool> = (0..3).map(|page| bitmap.take_unwritten_page(page)).collect();
        assert_eq!(unwritten, [false, true, true]);
        bitmap.set_all();
        assert_eq!(bitmap.set_count(), 3 * PAGE_BITS);
    }

    #[test]
    fn partial_blocks_set_but_do_not_clear() {
        let mut b = Bitmap::new(10 * BLOCK_BYTES);
        b.set_range(ByteRange::new(4095, 2));
        assert_eq!((b.is_set(0), b.is_set(1), b.is_set(2)), (true, true, false));
        b.clear_range(ByteRange::new(1, 8191), 10 * BLOCK_BYTES);
        assert_eq!((b.is_set(0), b.is_set(1)), (true, false));
    }

    #[test]
    fn last_block_may_be_short() {
        let size = 3 * BLOCK_BYTES + 512;
        let mut b = Bitmap::new(size);
        b.set_all();
        assert_eq!(b.set_count(), 4);
        b.clear_range(ByteRange::new(3 * BLOCK_BYTES, 512), size);
        assert_eq!(b.set_count(), 3);
    }

    #[test]
    fn bits_of_a_part_are_counted() {
        let blocks = 3 * PAGE_BITS + 100;
        let mut b = Bitmap::new(blocks * BLOCK_BYTES);
        for (block, count) in
            [(0, 1), (62, 4), (PAGE_BITS - 1, 2), (2 * PAGE_BITS, PAGE_BITS), (blocks - 1, 1)]
        {
            b.set_range(ByteRange::new(block * BLOCK_BYTES, count * BLOCK_BYTES));
        }
        let ends = [
            0,
            1,
            63,
            64,
            65,
            PAGE_BITS - 1,
            PAGE_BITS,
            PAGE_BITS + 1,
            2 * PAGE_BITS + 7,
            3 * PAGE_BITS,
            blocks,
        ];
        for (i, from) in ends.iter().enumerate() {
            for to in &ends[i..] {
                let counted = b.count_range(ByteRange::new(from * BLOCK_BYTES, (to - from) * BLOCK_BYTES));
                assert_eq!(
                    counted,
                    (*from..*to).filter(|block| b.is_set(*block)).count() as u64,
                    "{from}..{to}"
                );
            }
        }
        assert_eq!(b.count_range(ByteRange::new(0, u64::MAX)), b.set_count());
    }

    #[test]
    fn runs_stop_at_gaps_and_limits() {
        let mut b = Bitmap::new(1000 * BLOCK_BYTES);
        b.set_range(ByteRange::new(60 * BLOCK_BYTES, 10 * BLOCK_BYTES));
        assert_eq!(b.next_run(0, 256), Some(60..70));
        assert_eq!(b.next_run(62, 4), Some(62..66));
        assert_eq!(b.next_run(70, 4), None);
        assert_eq!((b.next_set(999), b.next_set(1000), b.next_set(1 << 40)), (None, None, None));
    }

    #[test]
    fn ranges_can_be_had_piece_by_piece() {
        let size = 1000 * BLOCK_BYTES + 512;
        let mut b = Bitmap::new(size);
        for (block, count) in [(3, 2), (60, 300), (1000, 1)] {
            b.set_range(ByteRange::new(block * BLOCK_BYTES, count * BLOCK_BYTES));
        }
        let range = |block, bytes| ByteRange::new(block * BLOCK_BYTES, bytes);
        let first = [range(3, 2 * BLOCK_BYTES), range(60, 300 * BLOCK_BYTES)];
        assert_eq!(b.ranges(0, 2, size), (first.to_vec(), 360 * BLOCK_BYTES));
        assert_eq!(b.ranges(360 * BLOCK_BYTES, 2, size), (vec![range(1000, 512)], size));
        let smaller = 61 * BLOCK_BYTES;
        assert_eq!(
            b.ranges(0, 2, smaller),
            (vec![range(3, 2 * BLOCK_BYTES), range(60, BLOCK_BYTES)], smaller)
        );
        assert_eq!(b.ranges(0, 2, BLOCK_BYTES), (vec![], BLOCK_BYTES));
    }

    #[test]
    fn pages_without_bits_are_passed_over() {
        let mut b = Bitmap::new(16 << 40);
        let last = b.blocks() - 1;
        b.set_range(ByteRange::new(last * BLOCK_BYTES, 1));
        assert_eq!(b.next_set(0), Some(last));
        assert_eq!((0..b.pages()).filter(|page| b.page_has_bits(*page)).count(), 1);
        b.clear_range(ByteRange::new(last * BLOCK_BYTES, BLOCK_BYTES), 16 << 40);
        assert_eq!(b.next_set(0), None);
    }

    #[test]
    fn a_page_survives_the_wire() {
        let mut a = Bitmap::new(40_000 * BLOCK_BYTES);
        a.set_range(ByteRange::new(32_767 * BLOCK_BYTES, 3 * BLOCK_BYTES));
        let mut b = Bitmap::new(40_000 * BLOCK_BYTES);
        for page in 0..a.pages() {
            b.merge_page(page, &a.page(page));
        }
        assert_eq!(b.set_count(), 3);
        b.merge_page(1, &[]);
        assert!(b.page_is_full(1) && !b.page_is_full(0));
        assert!(b.take_unwritten_page(0) && b.take_unwritten_page(1));
        assert!(!b.take_unwritten_page(0) && !b.take_unwritten_page(1));
    }
}
