//! The client's byte stream in the transmission phase: headers, payloads, and payloads to be dropped.

use bytes::Buf;
use thiserror::Error;

use crate::constants::{MAX_DISCARDED_PAYLOAD_BYTES, REQUEST_HEADER_BYTES};
use crate::export::ExportInfo;
use crate::request::{Command, Errno, Rejected, Request, RequestHeader};

/// Keeps one connection in step. It holds a few words and no bytes.
///
/// Call [`Receiver::next`] until it says [`Event::NeedMore`], [`Command::Disconnect`] or [`Event::Close`].
/// After an [`Event::Request`] with [`Command::Write`], bring in its payload before the next call: first
/// [`Receiver::take_payload`] from what is buffered, then [`Receiver::payload_received`] for what was received
/// elsewhere, until [`Receiver::payload_left`] is zero.
#[derive(Debug, Default)]
pub struct Receiver {
    state: State,
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The buffered bytes are used up, but for less than a header: receive more.
    NeedMore,
    /// Execute this. If it is a write, its payload comes next; a [`Command::Disconnect`] is repeated for ever.
    Request(Request),
    /// The payload of the last write is not complete: `left` bytes are missing.
    Payload {
        /// Bytes.
        left: u32,
    },
    /// Reply with this error; a payload, if there was one, is already dropped.
    Reject {
        /// To be returned in the reply.
        cookie: u64,
        /// For the reply.
        errno: Errno,
    },
    /// Close the connection at once; repeated for ever.
    Close(Violation),
}

/// A client that cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// Out of step. Spec, *Request message*: any other magic leaves a hard disconnect as the only way.
    #[error("request magic is {0:#x}: the client is out of step")]
    BadMagic(u32),
    /// A payload that no client may send.
    #[error(
        "a write announces {0} bytes, more than the {MAX_DISCARDED_PAYLOAD_BYTES} that are skipped at most"
    )]
    PayloadTooLong(u32),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    /// The payload of an accepted write; `left` may be zero.
    Payload {
        left: u32,
    },
    /// The payload of a refused write. The spec wants it consumed so that the session can go on; the reply waits
    /// for its end because not every client can take a reply to a request it is still sending.
    Discard {
        left: u32,
        cookie: u64,
        errno: Errno,
    },
    Over(Event),
}

impl Receiver {
    /// At the start of the transmission phase.
    pub fn new() -> Receiver {
        Receiver::default()
    }

    /// Consumes the next request, or as much as there is of a payload to be dropped.
    pub fn next(&mut self, input: &mut impl Buf, export: &ExportInfo) -> Event {
        match self.state {
            State::Payload { left: 0 } | State::Header => self.header(input, export),
            State::Payload { left } => Event::Payload { left },
            State::Discard { left, cookie, errno } => self.discard(input, left, cookie, errno),
            State::Over(event) => event,
        }
    }

    /// Bytes missing from the payload of the last write.
    pub fn payload_left(&self) -> u32 {
        match self.state {
            State::Payload { left } => left,
            _ => 0,
        }
    }

    /// Moves buffered payload to the start of `target`; returns how many bytes.
    pub fn take_payload(&mut self, input: &mut impl Buf, target: &mut [u8]) -> usize {
        let taken = input.remaining().min(target.len()).min(self.payload_left() as usize);
        input.copy_to_slice(&mut target[..taken]);
        self.payload_received(taken);
        taken
    }

    /// Accounts for payload that the driver received straight into its own buffer.
    ///
    /// # Panics
    /// If that is more than [`Receiver::payload_left`]: requests would then already have been stored as data.
    pub fn payload_received(&mut self, bytes: usize) {
        let left = self.payload_left() as usize;
        assert!(bytes <= left, "received {bytes} bytes of a payload of which only {left} were missing");
        if let State::Payload { left } = &mut self.state {
            *left -= bytes as u32;
        }
    }

    fn header(&mut self, input: &mut impl Buf, export: &ExportInfo) -> Event {
        if input.remaining() < REQUEST_HEADER_BYTES {
            return Event::NeedMore;
        }
        let mut bytes = [0; REQUEST_HEADER_BYTES];
        input.copy_to_slice(&mut bytes);
        let header = match RequestHeader::parse(&bytes) {
            Ok(header) => header,
            Err(bad) => return self.over(Event::Close(Violation::BadMagic(bad.0))),
        };
        match header.validate(export) {
            Ok(request) => self.accept(request),
            Err(Rejected::Reply { errno, discard_payload_bytes }) => {
                self.discard(input, discard_payload_bytes, header.cookie, errno)
            }
            Err(Rejected::Fatal(length)) => self.over(Event::Close(Violation::PayloadTooLong(length))),
        }
    }

    fn accept(&mut self, request: Request) -> Event {
        self.state = match request.command {
            Command::Write { length, .. } => State::Payload { left: length },
            Command::Disconnect => State::Over(Event::Request(request)),
            _ => State::Header,
        };
        Event::Request(request)
    }

    fn discard(&mut self, input: &mut impl Buf, left: u32, cookie: u64, errno: Errno) -> Event {
        let dropped = input.remaining().min(left as usize);
        input.advance(dropped);
        match left - dropped as u32 {
            0 => {
                self.state = State::Header;
                Event::Reject { cookie, errno }
            }
            left => {
                self.state = State::Discard { left, cookie, errno };
                Event::NeedMore
            }
        }
    }

    fn over(&mut self, event: Event) -> Event {
        self.state = State::Over(event);
        event
    }
}
