//! One io_uring behind a safe interface.
//!
//! Invariant: whatever an operation's submission points to (buffers, the vector of pieces, the message header) and
//! the descriptor it names are owned by its entry in [`Ring::flights`] from the moment it is pushed until its
//! completion has been reaped; only then are they handed back. The memory they point to does not move when the entry
//! does: it lies behind a `Vec`, `Box`, `Bytes`, `BytesMut` or [`Buffer`]. A ring that is dropped waits for what is
//! in flight, and leaks what does not end.
#![allow(unsafe_code)] // Submitting to a ring hands raw addresses to the kernel; this file is the only one that does.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use io_uring::{IoUring, opcode, squeue, types};

use super::buffer::Buffer;
use crate::slab::Slab;

/// Submissions per system call; more wait in a queue.
const SUBMISSION_ENTRIES: u32 = 256;
/// The kernel keeps completions beyond this number too, only more slowly.
const COMPLETION_ENTRIES: u32 = 2048;
/// Pieces in one send: the kernel's UIO_MAXIOV.
pub(crate) const MAX_SEND_PARTS: usize = 1024;
/// How long a dropped ring waits for what is in flight.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// What the kernel is asked to do, with everything it needs for it.
pub(crate) enum Operation {
    /// Fill `buffer` from byte `filled` on, from the file's `offset + filled`.
    Read { file: Arc<File>, offset: u64, buffer: Buffer, filled: usize },
    /// Write `data` at `offset`.
    Write { file: Arc<File>, offset: u64, data: Bytes },
    /// fdatasync.
    DataSync { file: Arc<File> },
    /// fallocate.
    Allocate { file: Arc<File>, mode: i32, offset: u64, length: u64 },
    /// Append to `buffer`, as much as it has room for.
    Receive { socket: Arc<OwnedFd>, buffer: BytesMut },
    /// Fill `buffer` from byte `filled` on; ends early only when the stream does.
    ReceiveInto { socket: Arc<OwnedFd>, buffer: Buffer, filled: usize },
    /// Send the parts in order; at most [`MAX_SEND_PARTS`].
    Send { socket: Arc<OwnedFd>, parts: Vec<Bytes> },
    /// Wait for an eventfd and reset it.
    Wait { event: Arc<OwnedFd>, value: Box<[u8; 8]> },
}

/// An operation that has ended, with what it was given. Receives and reads have already counted their bytes into the
/// buffer.
pub(crate) struct Completion<T> {
    pub(crate) tag: T,
    pub(crate) operation: Operation,
    /// Bytes, for operations that move any.
    pub(crate) result: io::Result<usize>,
}

struct Flight<T> {
    tag: T,
    operation: Operation,
    /// What `header` points to, what the send points to.
    _pieces: Vec<libc::iovec>,
    _header: Option<Box<libc::msghdr>>,
}

/// The ring; `T` tells its user what an operation was for.
pub(crate) struct Ring<T> {
    uring: IoUring,
    flights: Slab<Flight<T>>,
    queue: VecDeque<squeue::Entry>,
}

impl<T> Ring<T> {
    /// To be called on the thread that will use it.
    pub(crate) fn new() -> io::Result<Ring<T>> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETION_ENTRIES)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(SUBMISSION_ENTRIES)
            // Kernels before 6.1 know neither flag.
            .or_else(|_| IoUring::builder().setup_cqsize(COMPLETION_ENTRIES).build(SUBMISSION_ENTRIES))?;
        Ok(Ring { uring, flights: Slab::default(), queue: VecDeque::new() })
    }

    /// Operations whose completion has not been taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Queues an operation; it starts with the next [`Ring::submit_and_wait`].
    pub(crate) fn push(&mut self, tag: T, mut operation: Operation) {
        let (mut pieces, mut header) = (Vec::new(), None);
        let entry = match &mut operation {
            Operation::Read { file, offset, buffer, filled } => {
                let room = &mut buffer[*filled..];
                opcode::Read::new(fd(file), room.as_mut_ptr(), length(room))
                    .offset(*offset + *filled as u64)
                    .build()
            }
            Operation::Write { file, offset, data } => {
                opcode::Write::new(fd(file), data.as_ptr(), length(data)).offset(*offset).build()
            }
            Operation::DataSync { file } => {
                opcode::Fsync::new(fd(file)).flags(types::FsyncFlags::DATASYNC).build()
            }
            Operation::Allocate { file, mode, offset, length } => {
                opcode::Fallocate::new(fd(file), *length).offset(*offset).mode(*mode).build()
            }
            Operation::Receive { socket, buffer } => {
                let room = buffer.spare_capacity_mut();
                opcode::Recv::new(fd(socket), room.as_mut_ptr().cast(), room.len() as u32).build()
            }
            Operation::ReceiveInto { socket, buffer, filled } => {
                let room = &mut buffer[*filled..];
                let flags = libc::MSG_WAITALL;
                opcode::Recv::new(fd(socket), room.as_mut_ptr(), length(room)).flags(flags).build()
            }
            Operation::Send { socket, parts } => {
                debug_assert!(parts.len() <= MAX_SEND_PARTS);
                pieces = parts.iter().map(piece).collect();
                // SAFETY: all zeroes is a message header without name, pieces and control data.
                let mut message: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
                message.msg_iov = pieces.as_mut_ptr();
                message.msg_iovlen = pieces.len() as _;
                let message = header.insert(message);
                let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
                opcode::SendMsg::new(fd(socket), &raw const **message).flags(flags).build()
            }
            Operation::Wait { event, value } => opcode::Read::new(fd(event), value.as_mut_ptr(), 8).build(),
        };
        let slot = self.flights.insert(Flight { tag, operation, _pieces: pieces, _header: header });
        self.queue.push_back(entry.user_data(slot as u64));
    }

    /// Starts what is queued and waits until something has ended, at most `limit`.
    pub(crate) fn submit_and_wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.fill_submissions();
        while !self.queue.is_empty() {
            tolerate(self.uring.submit())?;
            if !self.fill_submissions() {
                break; // The kernel is busy: let completions be reaped first.
            }
        }
        if !self.uring.completion().is_empty() {
            tolerate(self.uring.submit())?;
            return Ok(());
        }
        match limit {
            None => tolerate(self.uring.submit_and_wait(1)),
            Some(limit) => {
                let limit = types::Timespec::from(limit);
                let arguments = types::SubmitArgs::new().timespec(&limit);
                tolerate(self.uring.submitter().submit_with_args(1, &arguments))
            }
        }
    }

    /// The next operation that has ended.
    pub(crate) fn next_completion(&mut self) -> Option<Completion<T>> {
        let completion = self.uring.completion().next()?;
        let mut flight = self.flights.take(completion.user_data() as usize)?;
        let result = match completion.result() {
            code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
            bytes => Ok(bytes as usize),
        };
        match (&mut flight.operation, &result) {
            (Operation::Receive { buffer, .. }, Ok(bytes)) => {
                // SAFETY: the kernel has written this many bytes into the spare capacity it was given.
                unsafe { buffer.set_len(buffer.len() + bytes) }
            }
            (Operation::ReceiveInto { filled, .. } | Operation::Read { filled, .. }, Ok(bytes)) => {
                *filled += bytes
            }
            _ => (),
        }
        Some(Completion { tag: flight.tag, operation: flight.operation, result })
    }

    /// Moves queued entries into the submission ring; false if there was no room for any.
    fn fill_submissions(&mut self) -> bool {
        let mut submissions = self.uring.submission();
        let mut moved = self.queue.is_empty();
        while let Some(entry) = self.queue.front() {
            // SAFETY: what the entry points to is owned by its flight until its completion (see the invariant).
            if unsafe { submissions.push(entry) }.is_err() {
                break;
            }
            self.queue.pop_front();
            moved = true;
        }
        moved
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let end = Instant::now() + DROP_LIMIT;
        while self.in_flight() > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.submit_and_wait(Some(left)).is_err() {
                tracing::error!(
                    operations = self.in_flight(),
                    "operations did not end; their memory is given up"
                );
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            while self.next_completion().is_some() {}
        }
    }
}

fn fd(file: &Arc<impl AsRawFd>) -> types::Fd {
    types::Fd(file.as_raw_fd())
}

/// The kernel takes at most 2 GiB at a time; what is longer ends short and is continued.
fn length(bytes: &[u8]) -> u32 {
    bytes.len().min(1 << 30) as u32
}

fn piece(part: &Bytes) -> libc::iovec {
    libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() }
}

/// A time limit reached, a signal, and a kernel that wants its completions reaped first are no errors.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::buffer::BufferPool;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    fn wait_for_one(ring: &mut Ring<u32>) -> Completion<u32> {
        ring.submit_and_wait(Some(Duration::from_secs(10))).unwrap();
        ring.next_completion().expect("an operation ends within ten seconds")
    }

    #[test]
    fn receives_append_and_fill() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = Arc::new(OwnedFd::from(ours));
        let mut ring = Ring::new().unwrap();
        theirs.write_all(b"worldly").unwrap();
        let mut buffer = BytesMut::with_capacity(64);
        buffer.extend_from_slice(b"hello ");
        ring.push(1, Operation::Receive { socket: socket.clone(), buffer });
        let done = wait_for_one(&mut ring);
        let Operation::Receive { buffer, .. } = done.operation else { panic!() };
        assert_eq!(done.result.unwrap(), 7);
        assert_eq!(&buffer[..], b"hello worldly");

        theirs.write_all(b"abc").unwrap();
        drop(theirs);
        let target = BufferPool::default().copy(b"123456");
        ring.push(2, Operation::ReceiveInto { socket, buffer: target, filled: 2 });
        let Operation::ReceiveInto { buffer, filled, .. } = wait_for_one(&mut ring).operation else {
            panic!()
        };
        assert_eq!((&buffer[..], filled), (&b"12abc6"[..], 5));
    }

    #[test]
    fn a_time_limit_ends_the_wait() {
        let mut ring = Ring::<u32>::new().unwrap();
        ring.submit_and_wait(Some(Duration::from_millis(1))).unwrap();
        assert!(ring.next_completion().is_none());
    }

    #[test]
    fn more_operations_than_the_ring_has_room_for_all_end() {
        let file = Arc::new(File::open("/dev/zero").unwrap());
        let pool = BufferPool::default();
        let mut ring = Ring::new().unwrap();
        for tag in 0..5000 {
            let buffer = pool.copy(&[1; 16]);
            ring.push(tag, Operation::Read { file: file.clone(), offset: 0, buffer, filled: 0 });
        }
        let mut ended = [false; 5000];
        while ring.in_flight() > 0 {
            ring.submit_and_wait(Some(Duration::from_secs(10))).unwrap();
            while let Some(done) = ring.next_completion() {
                assert_eq!(done.result.unwrap(), 16);
                assert!(!std::mem::replace(&mut ended[done.tag as usize], true));
            }
        }
        assert!(ended.iter().all(|ended| *ended));
    }
}
