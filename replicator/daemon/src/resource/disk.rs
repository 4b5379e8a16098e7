//! The engine's disk operations as steps on the ring: what ends short goes on, what a disk cannot do is done by hand.

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use tandem_core::io::{Device, DiskError, DiskOp, DiskOpKind};
use tandem_core::units::{ByteRange, DiskOpId};

use super::backing::{Backing, Disks};
use super::buffer::BufferPool;
use super::ring::Operation;

/// Zeroes written at a time where a disk cannot zero by itself.
const ZEROES_BYTES: usize = 1 << 20;
/// The largest sector that disks have.
const LARGE_SECTOR_BYTES: u64 = 4096;
/// What O_DIRECT asks of an address on disks with sectors of 512 bytes.
const DIRECT_ALIGNMENT_BYTES: usize = 512;

/// A disk operation under way.
pub(crate) struct Job {
    id: DiskOpId,
    backing: Rc<Backing>,
    step: Step,
    /// What is left of a range that the disk does not zero in one piece.
    later: Vec<Part>,
}

/// A part of a range that is to be zeroed.
enum Part {
    ByDisk { range: ByteRange, unmap: bool },
    ByHand(ByteRange),
}

enum Step {
    Read(ByteRange),
    Write {
        range: ByteRange,
        fua: bool,
    },
    Flush,
    /// The disk zeroes a range by itself.
    Zero {
        range: ByteRange,
        unmap: bool,
    },
    /// We write the zeroes; what is left.
    WriteZeroes(ByteRange),
}

/// What becomes of a job whose ring operation has ended.
pub(crate) enum Outcome {
    /// It goes on with this operation.
    Next(Job, Operation),
    /// It is done.
    Done(DiskOpId, Result<Bytes, DiskError>),
}

/// The first step of `op`.
pub(crate) fn start(op: DiskOp, disks: &Disks, pool: &BufferPool) -> (Job, Operation) {
    let backing = match op.device {
        Device::Data => disks.data.clone(),
        Device::Meta => disks.meta.clone(),
        // Given out only if the attached metadata has one.
        Device::Undo => disks.undo.clone().unwrap_or_else(|| unreachable!("no file for undo logs is open")),
    };
    let file = backing.file.clone();
    let (step, operation) = match op.kind {
        DiskOpKind::Read(range) => {
            let buffer = pool.take(range.length as usize);
            (Step::Read(range), Operation::Read { file, offset: range.offset, buffer, filled: 0 })
        }
        DiskOpKind::Write { offset, data, fua } => {
            let range = ByteRange::new(offset, data.len() as u64);
            let data = if backing.direct { aligned(data, pool) } else { data };
            (Step::Write { range, fua }, Operation::Write { file, offset, data })
        }
        DiskOpKind::Flush => (Step::Flush, Operation::DataSync { file }),
        DiskOpKind::Zero { range, unmap } => zero(&backing, range, unmap, pool),
    };
    (Job { id: op.id, backing, step, later: Vec::new() }, operation)
}

impl Job {
    /// Takes the end of the job's ring operation.
    pub(crate) fn advance(
        self,
        operation: Operation,
        result: io::Result<usize>,
        pool: &BufferPool,
    ) -> Outcome {
        let moved = match result {
            Ok(moved) => moved,
            Err(error) => return self.failed(operation, error, pool),
        };
        let file = self.backing.file.clone();
        match (&self.step, operation) {
            (Step::Read(range), Operation::Read { buffer, filled, .. }) => match buffer.len() - filled {
                0 => Outcome::Done(self.id, Ok(buffer.freeze())),
                _ if moved == 0 => self.ended_early(),
                _ => {
                    let next = Operation::Read { file, offset: range.offset, buffer, filled };
                    Outcome::Next(self, next)
                }
            },
            (_, Operation::Write { offset, mut data, .. }) => {
                data.advance(moved.min(data.len()));
                match data.len() {
                    0 => self.written(pool),
                    _ if moved == 0 => self.ended_early(),
                    // What is left may lie on no aligned address any more.
                    _ => {
                        let data = if self.backing.direct { aligned(data, pool) } else { data };
                        Outcome::Next(self, Operation::Write { file, offset: offset + moved as u64, data })
                    }
                }
            }
            _ => self.go_on(pool),
        }
    }

    fn go_on(mut self, pool: &BufferPool) -> Outcome {
        let (step, operation) = match self.later.pop() {
            Some(Part::ByDisk { range, unmap }) => zero(&self.backing, range, unmap, pool),
            Some(Part::ByHand(range)) => write_zeroes(&self.backing, range, pool),
            None => return Outcome::Done(self.id, Ok(Bytes::new())),
        };
        self.step = step;
        Outcome::Next(self, operation)
    }

    fn written(mut self, pool: &BufferPool) -> Outcome {
        match self.step {
            // The flush also covers what was written before: fdatasync knows no order of writes.
            Step::Write { fua: true, .. } => {
                self.step = Step::Flush;
                let file = self.backing.file.clone();
                Outcome::Next(self, Operation::DataSync { file })
            }
            Step::WriteZeroes(range) if range.length > 0 => {
                let (step, operation) = write_zeroes(&self.backing, range, pool);
                self.step = step;
                Outcome::Next(self, operation)
            }
            _ => self.go_on(pool),
        }
    }

    fn failed(mut self, operation: Operation, error: io::Error, pool: &BufferPool) -> Outcome {
        match (error.raw_os_error(), &self.step) {
            (Some(libc::EINTR | libc::EAGAIN), _) => Outcome::Next(self, operation),
            (Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV), Step::Zero { range, unmap }) => {
                let (range, unmap) = (*range, *unmap);
                let ability = if unmap { &self.backing.punches_holes } else { &self.backing.zeroes_ranges };
                ability.set(false);
                let (step, operation) = zero(&self.backing, range, unmap, pool);
                self.step = step;
                Outcome::Next(self, operation)
            }
            // Disks with sectors of 4 KiB zero whole ones only.
            (Some(libc::EINVAL), Step::Zero { range, unmap }) => {
                self.later.extend(parts(*range, *unmap));
                self.go_on(pool)
            }
            _ => self.error(error),
        }
    }

    fn ended_early(self) -> Outcome {
        self.error(io::Error::other("the device ends before the range does"))
    }

    fn error(self, error: io::Error) -> Outcome {
        let path = self.backing.path.display();
        let text = match &self.step {
            Step::Read(range) => format!("reading {range} of {path}: {error}"),
            Step::Write { range, .. } => format!("writing {range} of {path}: {error}"),
            Step::Zero { range, .. } | Step::WriteZeroes(range) => {
                format!("zeroing {range} of {path}: {error}")
            }
            Step::Flush => format!("flushing {path}: {error}"),
        };
        Outcome::Done(self.id, Err(DiskError(text)))
    }
}

/// The cheapest way to zero a range that the disk has not yet refused.
fn zero(backing: &Backing, range: ByteRange, unmap: bool, pool: &BufferPool) -> (Step, Operation) {
    let able = if unmap { &backing.punches_holes } else { &backing.zeroes_ranges };
    if !able.get() {
        return write_zeroes(backing, range, pool);
    }
    let how = if unmap { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
    let operation = Operation::Allocate {
        file: backing.file.clone(),
        mode: how | libc::FALLOC_FL_KEEP_SIZE,
        offset: range.offset,
        length: range.length,
    };
    (Step::Zero { range, unmap }, operation)
}

/// A range in parts that a disk with large sectors can zero, and parts that are written.
fn parts(range: ByteRange, unmap: bool) -> Vec<Part> {
    let begin = range.offset.next_multiple_of(LARGE_SECTOR_BYTES);
    let end = range.end() / LARGE_SECTOR_BYTES * LARGE_SECTOR_BYTES;
    if begin >= end || (begin, end) == (range.offset, range.end()) {
        return vec![Part::ByHand(range)];
    }
    let edges = [(range.offset, begin), (end, range.end())].into_iter().filter(|(from, to)| from < to);
    let edges = edges.map(|(from, to)| Part::ByHand(ByteRange::new(from, to - from)));
    edges.chain([Part::ByDisk { range: ByteRange::new(begin, end - begin), unmap }]).collect()
}

/// Writes the first zeroes of `range`; the step keeps the rest.
fn write_zeroes(backing: &Backing, range: ByteRange, pool: &BufferPool) -> (Step, Operation) {
    let now = range.length.min(ZEROES_BYTES as u64);
    let mut zeroes = pool.take(now as usize);
    zeroes.fill(0);
    let rest = ByteRange::new(range.offset + now, range.length - now);
    let operation =
        Operation::Write { file: backing.file.clone(), offset: range.offset, data: zeroes.freeze() };
    (Step::WriteZeroes(rest), operation)
}

fn aligned(data: Bytes, pool: &BufferPool) -> Bytes {
    match data.as_ptr() as usize % DIRECT_ALIGNMENT_BYTES {
        0 => data,
        _ => pool.copy(&data).freeze(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As offset, length, and whether the disk does it.
    fn shown(offset: u64, length: u64) -> Vec<(u64, u64, bool)> {
        let show = |part: Part| match part {
            Part::ByDisk { range, unmap: true } => (range.offset, range.length, true),
            Part::ByDisk { range, unmap: false } | Part::ByHand(range) => (range.offset, range.length, false),
        };
        parts(ByteRange::new(offset, length), true).into_iter().map(show).collect()
    }

    #[test]
    fn what_a_disk_with_large_sectors_refuses_is_written() {
        assert_eq!(shown(512, 512), [(512, 512, false)]);
        assert_eq!(shown(512, 4096), [(512, 4096, false)]);
        assert_eq!(shown(512, 8192), [(512, 3584, false), (8192, 512, false), (4096, 4096, true)]);
        assert_eq!(shown(0, 4608), [(4096, 512, false), (0, 4096, true)]);
        assert_eq!(shown(0, 8192), [(0, 8192, false)], "whole sectors, and still refused");
    }
}
