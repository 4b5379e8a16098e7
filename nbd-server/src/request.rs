//! Requests and simple replies of the transmission phase (spec, *Transmission phase* and *Request types*).

use bytes::{Buf, BufMut};
use thiserror::Error;

use crate::constants::*;
use crate::export::{ExportInfo, TransmissionFlags};

/// A request as sent: any field may be nonsense until [`RequestHeader::validate`] has judged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Command number.
    pub command: u16,
    /// The client's name for the request, returned in the reply.
    pub cookie: u64,
    /// Bytes from the start of the export.
    pub offset: u64,
    /// Bytes concerned; for a write also those that follow the header.
    pub length: u32,
}

/// The header did not start with its magic; there is no way back into step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("magic is {0:#x}: the other side is out of step")]
pub struct BadMagic(pub u32);

/// A request that may be executed as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// To be returned in the reply.
    pub cookie: u64,
    /// What to do.
    pub command: Command,
}

/// What to do. Ranges lie inside the export, are multiples of its minimum block size and never empty; reads and
/// writes are no longer than its maximum. FUA means: durable before the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Reply with these bytes.
    Read {
        /// Bytes from the start of the export.
        offset: u64,
        /// Bytes to read.
        length: u32,
    },
    /// Store the payload that follows the header.
    Write {
        /// Bytes from the start of the export.
        offset: u64,
        /// Bytes of payload.
        length: u32,
        /// Durable before the reply.
        fua: bool,
    },
    /// Make durable all writes already replied to, on any connection if CAN_MULTI_CONN is offered.
    Flush,
    /// The range may be forgotten.
    Trim {
        /// Bytes from the start of the export.
        offset: u64,
        /// Bytes to trim.
        length: u32,
        /// Durable before the reply.
        fua: bool,
    },
    /// The range reads as zeroes afterwards.
    WriteZeroes {
        /// Bytes from the start of the export.
        offset: u64,
        /// Bytes to zero.
        length: u32,
        /// Durable before the reply.
        fua: bool,
        /// The range stays allocated.
        no_hole: bool,
    },
    /// An empty range: reply success, touch nothing.
    Nothing,
    /// Finish what is in flight, then close; no reply.
    Disconnect,
}

/// A request that must not be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rejected {
    /// Reply with the error once the payload is consumed; the session goes on.
    #[error("request refused with {errno:?}")]
    Reply {
        /// For the reply.
        errno: Errno,
        /// Bytes of payload that follow the header and must be dropped.
        discard_payload_bytes: u32,
    },
    /// The payload is too long to be waited for: close.
    #[error(
        "a write announces {0} bytes, more than the {MAX_DISCARDED_PAYLOAD_BYTES} that are skipped at most"
    )]
    Fatal(u32),
}

/// Errors a reply can carry (spec, *Error values*: no others are allowed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: a write to a read-only export.
    Eperm = 1,
    /// The storage failed.
    Eio = 5,
    /// Out of memory; the spec asks servers to avoid it.
    Enomem = 12,
    /// Malformed or outside the export.
    Einval = 22,
    /// No space, or a write past the end.
    Enospc = 28,
    /// Too large.
    Eoverflow = 75,
    /// Not supported.
    Enotsup = 95,
    /// The server is going away.
    Eshutdown = 108,
}

impl RequestHeader {
    /// Decodes a header: magic, flags, command, cookie, offset, length.
    pub fn parse(header: &[u8; REQUEST_HEADER_BYTES]) -> Result<RequestHeader, BadMagic> {
        let mut fields = &header[..];
        match fields.get_u32() {
            REQUEST_MAGIC => Ok(RequestHeader {
                flags: fields.get_u16(),
                command: fields.get_u16(),
                cookie: fields.get_u64(),
                offset: fields.get_u64(),
                length: fields.get_u32(),
            }),
            other => Err(BadMagic(other)),
        }
    }

    /// Judges the request by what the client was promised.
    pub fn validate(&self, export: &ExportInfo) -> Result<Request, Rejected> {
        let payload_bytes = if self.command == CMD_WRITE { self.length } else { 0 };
        if payload_bytes > MAX_DISCARDED_PAYLOAD_BYTES {
            return Err(Rejected::Fatal(payload_bytes));
        }
        match self.command(export) {
            Ok(command) => Ok(Request { cookie: self.cookie, command }),
            Err(errno) => Err(Rejected::Reply { errno, discard_payload_bytes: payload_bytes }),
        }
    }

    fn command(&self, export: &ExportInfo) -> Result<Command, Errno> {
        if self.command == CMD_DISC {
            // There is no reply to a disconnect, so no way to object to its fields either.
            return Ok(Command::Disconnect);
        }
        self.check_offered(export)?;
        if self.command == CMD_FLUSH {
            // Spec, *Request types*, FLUSH: offset and length are reserved and MUST be zero.
            return if self.offset == 0 && self.length == 0 {
                Ok(Command::Flush)
            } else {
                Err(Errno::Einval)
            };
        }
        self.check_range(export)?;
        let (offset, length, fua) = (self.offset, self.length, self.flags & CMD_FLAG_FUA != 0);
        Ok(match self.command {
            // Spec, *Request types*: empty requests are the client's fault and MUST NOT have an effect.
            _ if length == 0 => Command::Nothing,
            CMD_READ => Command::Read { offset, length },
            CMD_WRITE => Command::Write { offset, length, fua },
            CMD_TRIM => Command::Trim { offset, length, fua },
            CMD_WRITE_ZEROES => {
                Command::WriteZeroes { offset, length, fua, no_hole: self.flags & CMD_FLAG_NO_HOLE != 0 }
            }
            _ => return Err(Errno::Einval),
        })
    }

    /// Command and flags must be known and offered. Spec, *Error values*: EINVAL for an unknown command, an
    /// unknown flag, or one not meant for the command; EPERM for a change to a read-only export. *Command flags*:
    /// where FUA is offered it MUST be accepted on all commands.
    fn check_offered(&self, export: &ExportInfo) -> Result<(), Errno> {
        let (needed, changes) = match self.command {
            CMD_READ => (TransmissionFlags::HAS_FLAGS, false),
            CMD_WRITE => (TransmissionFlags::HAS_FLAGS, true),
            CMD_FLUSH => (TransmissionFlags::SEND_FLUSH, false),
            CMD_TRIM => (TransmissionFlags::SEND_TRIM, true),
            CMD_WRITE_ZEROES => (TransmissionFlags::SEND_WRITE_ZEROES, true),
            _ => return Err(Errno::Einval),
        };
        let fua = if export.flags.contains(TransmissionFlags::SEND_FUA) { CMD_FLAG_FUA } else { 0 };
        let no_hole = if self.command == CMD_WRITE_ZEROES { CMD_FLAG_NO_HOLE } else { 0 };
        if self.flags & !(fua | no_hole) != 0 {
            return Err(Errno::Einval);
        }
        if changes && export.flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(Errno::Eperm);
        }
        if export.flags.contains(needed) { Ok(()) } else { Err(Errno::Einval) }
    }

    /// Spec, *Error values*: a write past the end gets ENOSPC, everything else there EINVAL. *Block size
    /// constraints*: EINVAL for what is not a multiple of the minimum or, having a payload, exceeds the maximum.
    fn check_range(&self, export: &ExportInfo) -> Result<(), Errno> {
        let has_payload = matches!(self.command, CMD_READ | CMD_WRITE);
        if has_payload && self.length > export.block_size.maximum() {
            return Err(Errno::Einval);
        }
        let end = self.offset.checked_add(u64::from(self.length));
        if end.is_none_or(|end| end > export.size_bytes) {
            let writes = matches!(self.command, CMD_WRITE | CMD_WRITE_ZEROES);
            return Err(if writes { Errno::Enospc } else { Errno::Einval });
        }
        let minimum = export.block_size.minimum();
        let aligned = self.offset.is_multiple_of(u64::from(minimum)) && self.length.is_multiple_of(minimum);
        if aligned { Ok(()) } else { Err(Errno::Einval) }
    }
}

/// The header of a simple reply; after a successful read the bytes read follow it.
pub fn simple_reply_header(cookie: u64, result: Result<(), Errno>) -> [u8; SIMPLE_REPLY_BYTES] {
    let mut header = [0; SIMPLE_REPLY_BYTES];
    let mut fields = &mut header[..];
    fields.put_u32(SIMPLE_REPLY_MAGIC);
    fields.put_u32(result.map_or_else(|errno| errno as u32, |()| 0));
    fields.put_u64(cookie);
    header
}
