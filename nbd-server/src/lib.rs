//! The server side of NBD (Network Block Device) as a value: bytes in, decisions out; and in [`client`] the little that
//! Tandem's own clients need.
//!
//! Nothing here reads a socket, waits, allocates for a peer's promises or starts a thread; the driver does the
//! I/O. A connection passes through two machines:
//!
//! 1. [`Negotiation`]: send [`Negotiation::greeting`], feed it what arrives, send what it writes, until it says
//!    [`Step::Transmit`] or [`Step::Close`].
//! 2. [`Receiver`]: yields one [`Event`] at a time from what is buffered. The payload of a write never passes
//!    through it: the driver takes what is already buffered with [`Receiver::take_payload`] and receives the rest
//!    straight into its own aligned buffer, telling the receiver with [`Receiver::payload_received`].
//!
//! What is spoken: fixed newstyle with INFO and GO, simple replies, all commands of the baseline plus
//! WRITE_ZEROES. What is refused, politely and in step: TLS, structured replies, metadata contexts, extended
//! headers. Rules quoted as "spec, *Section*" are those of the NBD project's `doc/proto.md`.

pub mod client;
pub mod constants;
mod export;
mod negotiate;
mod receive;
mod request;

pub use export::{
    BlockSize, ExportCatalog, ExportInfo, ExportSummary, InvalidBlockSize, OpenError, TransmissionFlags,
};
pub use negotiate::{CloseReason, Negotiation, Step};
pub use receive::{Event, Receiver, Violation};
pub use request::{BadMagic, Command, Errno, Rejected, Request, RequestHeader, simple_reply_header};
