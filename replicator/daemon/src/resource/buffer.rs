//! Aligned buffers that go from the socket to the disk and to the peers, and come back to a pool.
//!
//! What a buffer held before stays in it: a holder shows no more of it than it has filled.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What O_DIRECT asks of memory, at most.
pub(crate) const ALIGNMENT_BYTES: usize = 4096;
/// Largest block that is kept for reuse; larger ones are rare and go back to the system.
const LARGEST_POOLED_BYTES: usize = 1 << 20;
/// Bytes kept for reuse: what one client may have in flight.
const KEPT_BYTES: usize = 16 << 20;
/// What is there from the beginning for a device that the kernel writes through: under memory pressure nobody may have to wait
/// for memory that only these writes make free.
const RESERVED_BYTES: usize = 4 << 20;
const CLASSES: usize = (LARGEST_POOLED_BYTES / ALIGNMENT_BYTES).ilog2() as usize + 1;

/// Buffers of one resource, in size classes of powers of two.
#[derive(Clone, Default)]
pub(crate) struct BufferPool {
    free: Arc<Mutex<FreeBlocks>>,
}

#[derive(Default)]
struct FreeBlocks {
    classes: [Vec<Block>; CLASSES],
    bytes: usize,
}

impl BufferPool {
    /// Has memory ready, in use already, for whatever is asked for.
    pub(crate) fn reserve(&self) {
        let mut free = self.lock();
        while free.bytes + LARGEST_POOLED_BYTES <= RESERVED_BYTES {
            let mut block = Block::new(LARGEST_POOLED_BYTES);
            block.memory.iter_mut().step_by(ALIGNMENT_BYTES).for_each(|byte| *byte = 1);
            free.put(block);
        }
    }

    /// A buffer of `length` bytes with any content.
    pub(crate) fn take(&self, length: usize) -> Buffer {
        let size = length.max(ALIGNMENT_BYTES).next_power_of_two();
        let pooled = self.lock().take(size);
        let size = if size > LARGEST_POOLED_BYTES { length.next_multiple_of(ALIGNMENT_BYTES) } else { size };
        Buffer { block: Some(pooled.unwrap_or_else(|| Block::new(size))), length, pool: self.clone() }
    }

    /// An aligned copy of `data`.
    pub(crate) fn copy(&self, data: &[u8]) -> Buffer {
        let mut buffer = self.take(data.len());
        buffer.copy_from_slice(data);
        buffer
    }

    fn lock(&self) -> MutexGuard<'_, FreeBlocks> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FreeBlocks {
    fn take(&mut self, size: usize) -> Option<Block> {
        let block = self.classes.get_mut(class(size)..)?.iter_mut().find_map(Vec::pop)?;
        self.bytes -= block.size;
        Some(block)
    }

    fn put(&mut self, block: Block) {
        if !block.size.is_power_of_two() || self.bytes + block.size > KEPT_BYTES {
            return;
        }
        if let Some(class) = self.classes.get_mut(class(block.size)) {
            self.bytes += block.size;
            class.push(block);
        }
    }
}

/// Of a size that is a power of two; past the last one if it is too large to be kept.
fn class(size: usize) -> usize {
    (size / ALIGNMENT_BYTES).ilog2() as usize
}

/// Bytes at an address that is a multiple of 4096. Back to the pool when dropped.
pub(crate) struct Buffer {
    /// `None` only while it is being dropped.
    block: Option<Block>,
    length: usize,
    pool: BufferPool,
}

impl Buffer {
    /// The buffer's bytes, shared from now on and no longer changed.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[..self.length])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.block.as_mut().map_or(&mut [], |block| &mut block.bytes_mut()[..self.length])
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.lock().put(block);
        }
    }
}

/// Zeroed memory that is aligned by leaving out its first bytes. A zeroed `Vec` costs nothing until it is touched, so
/// a client that announces 32 MiB and sends nothing gets nothing.
struct Block {
    memory: Vec<u8>,
    start: usize,
    size: usize,
}

impl Block {
    fn new(size: usize) -> Block {
        let memory = vec![0; size + ALIGNMENT_BYTES];
        let start = memory.as_ptr().align_offset(ALIGNMENT_BYTES);
        Block { memory, start, size }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.size]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_as_long_as_asked() {
        let pool = BufferPool::default();
        for length in [1, 512, 4096, 5000, 1 << 20, (1 << 20) + 1, 32 << 20] {
            let buffer = pool.take(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        }
    }

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = BufferPool::default();
        let bytes = pool.copy(&[7; 4096]).freeze();
        let address = bytes.as_ptr();
        assert_eq!(bytes.len(), 4096);
        drop(bytes);
        assert_eq!(pool.take(512).as_ptr(), address);
    }

    #[test]
    fn what_is_reserved_serves_every_size() {
        let pool = BufferPool::default();
        pool.reserve();
        pool.reserve();
        assert_eq!(pool.lock().bytes, RESERVED_BYTES);
        let count = RESERVED_BYTES / LARGEST_POOLED_BYTES;
        let taken: Vec<Buffer> = (0..count).map(|n| pool.take(4096 << n)).collect();
        assert_eq!(pool.lock().bytes, 0);
        drop(taken);
        assert_eq!(pool.lock().bytes, RESERVED_BYTES);
    }

    #[test]
    fn the_pool_keeps_a_bounded_number() {
        let pool = BufferPool::default();
        let many: Vec<Buffer> = (0..100).map(|_| pool.take(1 << 20)).collect();
        drop(many);
        assert_eq!(pool.lock().bytes, KEPT_BYTES);
        assert_eq!(pool.lock().classes[CLASSES - 1].len(), KEPT_BYTES >> 20);
    }
}
