//! The activity log on disk: which extents of the volume may hold writes that no bitmap marks.
//!
//! The log is a table of numbered slots, each free or holding an extent. A *transaction* changes some slots and takes
//! one block of a ring of seven; number `n` takes block `n % 7`, in place of number `n - 7`. Besides its changes it
//! carries one sixth of the whole table as it is afterwards: slots `i * s .. (i + 1) * s` with `i = n % 6` and
//! `s = ceil(slots / 6)`.
//!
//! | bytes of a block | field |
//! |---|---|
//! | 0..8 | magic `TANDEMAL` |
//! | 8..12 | crc32 of the 4096 bytes with this field zero |
//! | 12..14 | number of slots, at most 6433 |
//! | 14..16 | number of changes, at most 48 |
//! | 16..24 | number of the transaction |
//! | 24 | binary logarithm of the extent's size in bytes: 22 |
//! | 25..32 | zero |
//! | 32..320 | changes of 6 bytes: slot, extent (4 bytes; 0xfffffff: free) |
//! | 320..4096 | one sixth of the table, 28 bits for each slot |
//!
//! One transaction is written at a time, so a crash tears at most the newest, and the six before it are whole. They
//! hold every slot once in their sixths, and every change since in their changes. Nothing was written yet to an extent
//! that the torn one was to add, and the one that it was to drop is clean. So the table is what the six say; with
//! seven blocks it takes no more than a sixth in each. 28 bits number 2^28 extents of 4 MiB: 1 PiB, DRBD's largest
//! device. Four bytes for each would allow 5,700 slots, fewer than DRBD's 6433.
//!
//! The superblock says which transaction is the first that counts: the table was empty before it. If one of the last
//! six that count is missing, nothing is known, and everything may have been written to.

use super::SUPERBLOCK_BYTES;

/// Bytes of the ring.
pub const RING_BYTES: usize = RING_BLOCKS * BLOCK;
/// Most slots: what DRBD makes of any larger `al-extents`.
pub const MAX_LOG_SLOTS: u16 = 6433;
/// Most slots that a transaction changes.
pub(crate) const MAX_CHANGES: usize = 48;
/// A free slot.
pub(crate) const FREE: u32 = (1 << EXTENT_BITS) - 1;

const RING_BLOCKS: usize = 7;
/// The same for every piece of metadata: what a disk writes whole, or tears.
const BLOCK: usize = SUPERBLOCK_BYTES;
/// Blocks that are whole after a crash tore one.
pub(crate) const WHOLE_BLOCKS: u64 = RING_BLOCKS as u64 - 1;
const EXTENT_BITS: usize = 28;
const MAGIC: [u8; 8] = *b"TANDEMAL";
const CRC: std::ops::Range<usize> = 8..12;
const CHANGES: usize = 32;
const CHANGE_BYTES: usize = 6;
const TABLE: usize = CHANGES + MAX_CHANGES * CHANGE_BYTES;
/// The two of a pair share a byte.
const TABLE_SLOTS: usize = (BLOCK - TABLE) * 8 / EXTENT_BITS / 2 * 2;

const _: () = assert!(MAX_LOG_SLOTS as u64 <= WHOLE_BLOCKS * TABLE_SLOTS as u64);
const _: () = assert!(RING_BYTES as u64 + SUPERBLOCK_BYTES as u64 == super::ACTIVITY_LOG_BYTES);

/// Where in the ring a transaction is written.
pub(crate) fn ring_offset(number: u64) -> u64 {
    number % RING_BLOCKS as u64 * BLOCK as u64
}

/// The block of a transaction that has changed `changes` of `table`, which holds an extent, or [`FREE`], for each slot.
pub fn encode_transaction(number: u64, extent_bytes: u64, table: &[u32], changes: &[u16]) -> Vec<u8> {
    let mut b = vec![0; BLOCK];
    b[0..8].copy_from_slice(&MAGIC);
    b[12..14].copy_from_slice(&(table.len() as u16).to_le_bytes());
    b[14..16].copy_from_slice(&(changes.len() as u16).to_le_bytes());
    b[16..24].copy_from_slice(&number.to_le_bytes());
    b[24] = extent_bytes.ilog2() as u8;
    for (slot, at) in changes.iter().zip((CHANGES..TABLE).step_by(CHANGE_BYTES)) {
        b[at..at + 2].copy_from_slice(&slot.to_le_bytes());
        b[at + 2..at + 6].copy_from_slice(&table[usize::from(*slot)].to_le_bytes());
    }
    let pairs = table[sixth(number, table.len())].chunks(2);
    for (pair, bytes) in pairs.zip(b[TABLE..].chunks_exact_mut(7)) {
        let second = pair.get(1).copied().unwrap_or(FREE);
        let packed = u64::from(pair[0]) | u64::from(second) << EXTENT_BITS;
        bytes.copy_from_slice(&packed.to_le_bytes()[..7]);
    }
    let crc = crc32fast::hash(&b);
    b[CRC].copy_from_slice(&crc.to_le_bytes());
    b
}

/// The slots that transaction `number` carries.
fn sixth(number: u64, slots: usize) -> std::ops::Range<usize> {
    let length = slots.div_ceil(WHOLE_BLOCKS as usize);
    let start = (number % WHOLE_BLOCKS) as usize * length;
    start.min(slots)..(start + length).min(slots)
}

/// A transaction as it was read.
struct Transaction<'a> {
    number: u64,
    slots: usize,
    extent_bits: u8,
    block: &'a [u8],
}

/// What a crash has left in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recovered {
    /// These extents may have been written to, and no others.
    Extents {
        /// Bytes of an extent.
        extent_bytes: u64,
        /// Their numbers, in ascending order.
        extents: Vec<u32>,
    },
    /// Any may have been.
    Unknown,
}

/// For the simulator's test of itself: how a careless reader would go about it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Carelessness {
    /// Takes blocks whose checksum is wrong.
    pub trusts_torn: bool,
    /// Takes the blocks in the order in which they lie in the ring, from whatever time.
    pub ignores_numbers: bool,
}

/// Reads the ring. Transactions before number `first` do not count.
pub fn recover(ring: &[u8], first: u64, careless: Carelessness) -> Recovered {
    let mut found: Vec<Transaction> = transactions(ring, careless.trusts_torn).collect();
    if !careless.ignores_numbers {
        found.retain(|t| t.number >= first);
        found.sort_by_key(|t| t.number);
        found.drain(..found.len().saturating_sub(WHOLE_BLOCKS as usize));
    }
    let Some(newest) = found.last() else {
        return Recovered::Extents { extent_bytes: 1, extents: Vec::new() };
    };
    let oldest = first.max(newest.number.saturating_sub(WHOLE_BLOCKS - 1));
    let complete = found.iter().map(|t| t.number).eq(oldest..=newest.number);
    let alike = found.iter().all(|t| (t.slots, t.extent_bits) == (newest.slots, newest.extent_bits));
    if !(complete || careless.ignores_numbers) || !alike {
        return Recovered::Unknown;
    }
    let mut table = vec![FREE; newest.slots];
    for transaction in &found {
        if transaction.replay(&mut table).is_none() {
            return Recovered::Unknown;
        }
    }
    let extent_bytes = 1 << newest.extent_bits;
    let mut extents: Vec<u32> = table.into_iter().filter(|extent| *extent != FREE).collect();
    extents.sort_unstable();
    Recovered::Extents { extent_bytes, extents }
}

/// The highest number in the ring, of whatever time; 0 if there is none.
pub fn newest_number(ring: &[u8]) -> u64 {
    transactions(ring, false).map(|t| t.number).max().unwrap_or(0)
}

fn transactions(ring: &[u8], trusts_torn: bool) -> impl Iterator<Item = Transaction<'_>> {
    ring.chunks_exact(BLOCK).filter_map(move |block| Transaction::read(block, trusts_torn))
}

impl<'a> Transaction<'a> {
    /// `None` if the block holds none, or a part of one.
    fn read(block: &'a [u8], trusts_torn: bool) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        if block[0..8] != MAGIC {
            return None;
        }
        let mut unsigned = block.to_vec();
        unsigned[CRC].fill(0);
        if crc32fast::hash(&unsigned).to_le_bytes() != block[CRC] && !trusts_torn {
            return None;
        }
        let slots = u16_at(12);
        let sane = slots <= MAX_LOG_SLOTS && usize::from(u16_at(14)) <= MAX_CHANGES && block[24] < 48;
        sane.then(|| Transaction {
            number: u64_at(block, 16),
            slots: usize::from(slots),
            extent_bits: block[24],
            block,
        })
    }

    /// Brings the table to what it is after this transaction; `None` if that makes no sense.
    fn replay(&self, table: &mut [u32]) -> Option<()> {
        let changes = usize::from(u16::from_le_bytes([self.block[14], self.block[15]]));
        for change in self.block[CHANGES..TABLE].chunks_exact(CHANGE_BYTES).take(changes) {
            let slot = usize::from(u16::from_le_bytes([change[0], change[1]]));
            *table.get_mut(slot)? = u32::from_le_bytes([change[2], change[3], change[4], change[5]]);
        }
        let sixth = &mut table[sixth(self.number, self.slots)];
        for (pair, bytes) in sixth.chunks_mut(2).zip(self.block[TABLE..].chunks_exact(7)) {
            let mut packed = [0; 8];
            packed[..7].copy_from_slice(bytes);
            let packed = u64::from_le_bytes(packed);
            for (i, extent) in pair.iter_mut().enumerate() {
                *extent = (packed >> (i * EXTENT_BITS)) as u32 & FREE;
            }
        }
        Some(())
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut n = [0; 8];
    n.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(n)
}
