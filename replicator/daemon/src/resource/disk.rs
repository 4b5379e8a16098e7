//! The engine's disk operations as steps on the ring: what ends short goes on, what a disk cannot do is done by hand.

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use tandem_core::io::{Device, DiskError, DiskOp, DiskOpKind};
use tandem_core::layout::Layout;
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
    /// Disks that are to be flushed after this one.
    unflushed: Vec<Rc<Backing>>,
    /// Zeroes behind what is read.
    pad_bytes: usize,
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
    /// Of so many writes.
    Flush(u64),
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

/// The first step of `op`, or its end.
pub(crate) fn start(op: DiskOp, disks: &Disks, layout: &Layout, pool: &BufferPool) -> Outcome {
    let DiskOp { id, device, kind } = op;
    match device {
        // Of several disks those are flushed that were written to. Of a single one the metadata may be flushed along.
        Device::Data if kind == DiskOpKind::Flush && disks.data.len() > 1 => {
            flush_next(id, disks.data.clone())
        }
        Device::Data => match clipped(kind, layout) {
            Ok((volume, kind, pad_bytes)) => begin(id, &disks.data[volume], kind, pad_bytes, pool),
            Err(error) => Outcome::Done(id, Err(error)),
        },
        Device::Meta => begin(id, &disks.meta, kind, 0, pool),
        // Given out only if the attached metadata has one.
        Device::Undo => {
            let file = disks.undo.as_ref().unwrap_or_else(|| unreachable!("no file for undo logs is open"));
            begin(id, file, kind, 0, pool)
        }
    }
}

/// What is to be done to which volume's disk; and how much of what is read lies in the piece's pad. There is nothing to be
/// written to that: it is zeroes and stays so.
fn clipped(kind: DiskOpKind, layout: &Layout) -> Result<(usize, DiskOpKind, usize), DiskError> {
    let place = |range: ByteRange| {
        layout.place(range).ok_or_else(|| DiskError(format!("{range} belongs to two pieces")))
    };
    Ok(match kind {
        DiskOpKind::Flush => (0, kind, 0),
        DiskOpKind::Read(range) => {
            let place = place(range)?;
            (place.index, DiskOpKind::Read(place.range), place.pad_bytes as usize)
        }
        DiskOpKind::Zero { range, unmap } => {
            let place = place(range)?;
            (place.index, DiskOpKind::Zero { range: place.range, unmap }, 0)
        }
        DiskOpKind::Write { offset, mut data, fua } => {
            let place = place(ByteRange::new(offset, data.len() as u64))?;
            let pad = data.split_off(place.range.length as usize);
            if pad.iter().any(|byte| *byte != 0) {
                return Err(DiskError(format!("a write at byte {offset} goes beyond the volume's end")));
            }
            (place.index, DiskOpKind::Write { offset: place.range.offset, data, fua }, 0)
        }
    })
}

/// Flushes one of these disks that needs it; the job keeps the others.
fn flush_next(id: DiskOpId, mut disks: Vec<Rc<Backing>>) -> Outcome {
    while let Some(backing) = disks.pop() {
        if let Some(writes) = backing.cache.to_flush() {
            let operation = Operation::DataSync { file: backing.file.clone() };
            let step = Step::Flush(writes);
            let job = Job { id, backing, step, later: Vec::new(), unflushed: disks, pad_bytes: 0 };
            return Outcome::Next(job, operation);
        }
    }
    Outcome::Done(id, Ok(Bytes::new()))
}

fn begin(
    id: DiskOpId,
    backing: &Rc<Backing>,
    kind: DiskOpKind,
    pad_bytes: usize,
    pool: &BufferPool,
) -> Outcome {
    let (backing, file) = (backing.clone(), backing.file.clone());
    let (step, operation) = match kind {
        DiskOpKind::Read(range) if range.length == 0 => {
            return Outcome::Done(id, Ok(padded(&[], pad_bytes, pool)));
        }
        DiskOpKind::Zero { range, .. } if range.length == 0 => return Outcome::Done(id, Ok(Bytes::new())),
        DiskOpKind::Write { data, .. } if data.is_empty() => return Outcome::Done(id, Ok(Bytes::new())),
        DiskOpKind::Read(range) => {
            let buffer = pool.take(range.length as usize);
            (Step::Read(range), Operation::Read { file, offset: range.offset, buffer, filled: 0 })
        }
        DiskOpKind::Write { offset, data, fua } => {
            let range = ByteRange::new(offset, data.len() as u64);
            let data = if backing.direct { aligned(data, pool) } else { data };
            (Step::Write { range, fua }, Operation::Write { file, offset, data })
        }
        DiskOpKind::Flush => (Step::Flush(0), Operation::DataSync { file }),
        DiskOpKind::Zero { range, unmap } => zero(&backing, range, unmap, pool),
    };
    let job = Job { id, backing, step, later: Vec::new(), unflushed: Vec::new(), pad_bytes };
    Outcome::Next(job, operation)
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
                0 if self.pad_bytes > 0 => Outcome::Done(self.id, Ok(padded(&buffer, self.pad_bytes, pool))),
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
            None => return self.done(),
        };
        self.step = step;
        Outcome::Next(self, operation)
    }

    fn done(self) -> Outcome {
        if let Step::Flush(writes) = self.step {
            self.backing.cache.flushed(writes);
            return flush_next(self.id, self.unflushed);
        }
        self.backing.cache.written();
        Outcome::Done(self.id, Ok(Bytes::new()))
    }

    fn written(mut self, pool: &BufferPool) -> Outcome {
        match self.step {
            // The flush also covers what was written before: fdatasync knows no order of writes.
            Step::Write { fua: true, .. } => {
                self.backing.cache.written();
                self.step = Step::Flush(0);
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
            Step::Flush(_) => format!("flushing {path}: {error}"),
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

/// What was read, and zeroes behind it.
fn padded(read: &[u8], pad_bytes: usize, pool: &BufferPool) -> Bytes {
    let mut whole = pool.take(read.len() + pad_bytes);
    let (begin, pad) = whole.split_at_mut(read.len());
    begin.copy_from_slice(read);
    pad.fill(0);
    whole.freeze()
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
