//! The messages of `/dev/fuse` (linux/fuse.h, protocol 7), as far as one regular file needs them. All numbers are the
//! machine's own.

use bytes::{Buf, BufMut};
use nix::errno::Errno;

/// Most that the kernel writes at a time.
pub(super) const MAX_WRITE_BYTES: u32 = 1 << 20;
/// A page for the headers, and the data of a write.
pub(super) const BUFFER_BYTES: usize = MAX_WRITE_BYTES as usize + 4096;

const MAJOR: u32 = 7;
/// The youngest minor version whose messages are those below; the kernel speaks older ones.
const MINOR: u32 = 31;
/// Requests that the kernel has under way at once: the queue of a loop device.
const MAX_BACKGROUND: u16 = 128;
/// 4 KiB pages in one request.
const MAX_PAGES: u16 = (MAX_WRITE_BYTES / 4096) as u16;

const HEADER_BYTES: usize = 40;
const REPLY_HEADER_BYTES: usize = 16;

const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const FORGET: u32 = 2;
const BATCH_FORGET: u32 = 42;
const DESTROY: u32 = 38;
const FALLOCATE: u32 = 43;

const INIT_ASYNC_READ: u32 = 1 << 0;
const INIT_BIG_WRITES: u32 = 1 << 5;
const INIT_ASYNC_DIRECT: u32 = 1 << 15;
const INIT_MAX_PAGES: u32 = 1 << 22;
/// What is wanted, if the kernel has it.
const WANTED: u32 = INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_ASYNC_DIRECT | INIT_MAX_PAGES;

const OPEN_DIRECT: u32 = 1 << 0;
const OPEN_NO_FLUSH: u32 = 1 << 5;
const OPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32;
const ZERO_RANGE: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;

/// The notification that a node's attributes have changed.
const NOTIFY_INVALIDATE: i32 = 2;
const ROOT: u64 = 1;
/// For as long as the kernel may believe what it was told of the file.
const VALID_S: u64 = 1 << 30;
const MODE: u32 = libc::S_IFREG | 0o600;
const BLOCK_BYTES: u32 = 4096;

/// What every request has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) id: u64,
}

/// What the kernel wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation<'a> {
    Init {
        minor: u32,
        flags: u32,
        readahead_bytes: u32,
    },
    Attributes,
    Open,
    FileSystem,
    Read {
        offset: u64,
        length: u32,
    },
    Write {
        offset: u64,
        data: &'a [u8],
    },
    Sync,
    Zero {
        offset: u64,
        length: u32,
        keep_allocated: bool,
    },
    /// Nothing to be done, and nothing to say.
    Done,
    /// Wants no reply.
    Forget,
    /// Known, and not in this way.
    Unsupported,
    /// The kernel need not ask again.
    Unknown,
    /// It makes no sense.
    Nonsense,
}

/// A request; `None` if it is not even one that could be answered.
pub(super) fn parse(request: &[u8]) -> Option<(Header, Operation<'_>)> {
    let (mut fields, body) = request.split_at_checked(HEADER_BYTES)?;
    let (length, opcode, id) = (fields.get_u32_ne(), fields.get_u32_ne(), fields.get_u64_ne());
    let whole = length as usize == request.len();
    let operation = if whole { operation(opcode, body) } else { None };
    Some((Header { id }, operation.unwrap_or(Operation::Nonsense)))
}

fn operation(opcode: u32, mut body: &[u8]) -> Option<Operation<'_>> {
    let enough = |body: &[u8], bytes| (body.len() >= bytes).then_some(());
    Some(match opcode {
        INIT => {
            enough(body, 16)?;
            let (major, minor) = (body.get_u32_ne(), body.get_u32_ne());
            (major == MAJOR).then_some(())?;
            Operation::Init { minor, readahead_bytes: body.get_u32_ne(), flags: body.get_u32_ne() }
        }
        GETATTR | SETATTR => Operation::Attributes,
        OPEN => Operation::Open,
        STATFS => Operation::FileSystem,
        READ => {
            enough(body, 40)?;
            body.advance(8);
            Operation::Read { offset: body.get_u64_ne(), length: body.get_u32_ne() }
        }
        WRITE => {
            enough(body, 40)?;
            body.advance(8);
            let (offset, length) = (body.get_u64_ne(), body.get_u32_ne());
            body.advance(20);
            (body.len() == length as usize).then_some(())?;
            Operation::Write { offset, data: body }
        }
        FSYNC => Operation::Sync,
        FALLOCATE => {
            enough(body, 32)?;
            body.advance(8);
            let (offset, length, mode) = (body.get_u64_ne(), body.get_u64_ne(), body.get_u32_ne());
            match (mode, u32::try_from(length)) {
                (mode, Ok(length)) if mode == PUNCH_HOLE | KEEP_SIZE => {
                    Operation::Zero { offset, length, keep_allocated: false }
                }
                (mode, Ok(length)) if mode == ZERO_RANGE | KEEP_SIZE => {
                    Operation::Zero { offset, length, keep_allocated: true }
                }
                _ => Operation::Unsupported,
            }
        }
        RELEASE | DESTROY => Operation::Done,
        FORGET | BATCH_FORGET => Operation::Forget,
        _ => Operation::Unknown,
    })
}

pub(super) fn reply_header(id: u64, error: Option<Errno>, body_bytes: usize) -> [u8; REPLY_HEADER_BYTES] {
    let mut header = [0; REPLY_HEADER_BYTES];
    let mut fields = &mut header[..];
    fields.put_u32_ne((REPLY_HEADER_BYTES + body_bytes) as u32);
    fields.put_i32_ne(error.map_or(0, |errno| -(errno as i32)));
    fields.put_u64_ne(id);
    header
}

pub(super) fn initialised(minor: u32, flags: u32, readahead_bytes: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32_ne(MAJOR);
    body.put_u32_ne(MINOR.min(minor));
    body.put_u32_ne(readahead_bytes);
    body.put_u32_ne(WANTED & flags);
    body.put_u16_ne(MAX_BACKGROUND);
    body.put_u16_ne(MAX_BACKGROUND * 3 / 4);
    body.put_u32_ne(MAX_WRITE_BYTES);
    body.put_u32_ne(1); // Nanoseconds: how fine times are.
    body.put_u16_ne(MAX_PAGES);
    body.put_bytes(0, 34); // Alignment of mappings, and what later versions have.
    body
}

pub(super) fn attributes(size_bytes: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64_ne(VALID_S);
    body.put_u64_ne(0); // Nanoseconds, padding.
    body.put_u64_ne(ROOT);
    body.put_u64_ne(size_bytes);
    body.put_u64_ne(size_bytes / 512);
    body.put_bytes(0, 3 * 8 + 3 * 4); // Three times, their nanoseconds.
    body.put_u32_ne(MODE);
    body.put_u32_ne(1); // Names.
    body.put_bytes(0, 3 * 4); // Owner, group, device.
    body.put_u32_ne(BLOCK_BYTES);
    body.put_u32_ne(0);
    body
}

pub(super) fn opened() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64_ne(0); // The file's handle.
    body.put_u32_ne(OPEN_DIRECT | OPEN_NO_FLUSH | OPEN_PARALLEL_DIRECT_WRITES);
    body.put_u32_ne(0);
    body
}

pub(super) fn written(length: u32) -> [u8; 8] {
    let mut body = [0; 8];
    (&mut body[..]).put_u32_ne(length);
    body
}

pub(super) fn file_system(size_bytes: u64) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64_ne(size_bytes / u64::from(BLOCK_BYTES));
    body.put_bytes(0, 4 * 8); // Free blocks, files.
    body.put_u32_ne(BLOCK_BYTES);
    body.put_u32_ne(255);
    body.put_u32_ne(BLOCK_BYTES);
    body.put_bytes(0, 4 + 6 * 4);
    body
}

/// Tells the kernel that what it knows of the file may not be so any more; its data is not touched.
pub(super) fn forget_attributes() -> Vec<u8> {
    let mut message = Vec::new();
    message.put_u32_ne((REPLY_HEADER_BYTES + 24) as u32);
    message.put_i32_ne(NOTIFY_INVALIDATE);
    message.put_u64_ne(0);
    message.put_u64_ne(ROOT);
    message.put_i64_ne(-1); // No offset: attributes only.
    message.put_i64_ne(0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_u32_ne((HEADER_BYTES + body.len()) as u32);
        bytes.put_u32_ne(opcode);
        bytes.put_u64_ne(7);
        bytes.put_bytes(0, 24);
        bytes.put_slice(body);
        bytes
    }

    fn numbers(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
    }

    #[test]
    fn requests_are_understood() {
        let read = request(READ, &numbers(&[0, 4096, 512, 0, 0]));
        assert_eq!(parse(&read), Some((Header { id: 7 }, Operation::Read { offset: 4096, length: 512 })));
        let mut body = numbers(&[0, 8192, 3, 0, 0]);
        body.extend(b"abc");
        let write = request(WRITE, &body);
        assert_eq!(parse(&write).unwrap().1, Operation::Write { offset: 8192, data: b"abc" });
        let zero = |mode| request(FALLOCATE, &numbers(&[0, 4096, 1 << 20, mode]));
        let zeroes = |keep_allocated| Operation::Zero { offset: 4096, length: 1 << 20, keep_allocated };
        assert_eq!(parse(&zero(3)).unwrap().1, zeroes(false));
        assert_eq!(parse(&zero(17)).unwrap().1, zeroes(true));
        assert_eq!(parse(&zero(0)).unwrap().1, Operation::Unsupported, "it would make the file larger");
        let long = request(FALLOCATE, &numbers(&[0, 0, 1 << 32, 3]));
        assert_eq!(parse(&long).unwrap().1, Operation::Unsupported);
    }

    #[test]
    fn nonsense_is_known_by_its_number_so_that_it_can_be_answered() {
        let write = request(WRITE, &numbers(&[0, 8192, 3, 0, 0]));
        let nonsense = Some((Header { id: 7 }, Operation::Nonsense));
        assert_eq!(parse(&write), nonsense, "data is missing");
        assert_eq!(parse(&write[..write.len() - 1]), nonsense, "cut off");
        assert_eq!(parse(&write[..39]), None);
        assert_eq!(parse(&request(READ, &[0; 39])), nonsense);
        assert_eq!(parse(&request(INIT, &numbers(&[9, 0]))), nonsense, "another major version");
    }

    /// Sizes of linux/fuse.h.
    #[test]
    fn replies_have_the_kernels_sizes() {
        assert_eq!(initialised(40, u32::MAX, 0).len(), 64);
        assert_eq!(attributes(1 << 40).len(), 104);
        assert_eq!(opened().len(), 16);
        assert_eq!(file_system(1 << 40).len(), 80);
        assert_eq!(forget_attributes().len(), 40);
        let header = reply_header(7, Some(Errno::EIO), 0);
        assert_eq!(header[4..8], (-5i32).to_ne_bytes());
    }
}
