//! The two streams to one peer: frames in, frames out.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{Shutdown, shutdown};
use tandem_control::PathSpec;
use tandem_core::state::ConnectionState;
use tandem_core::units::NodeId;
use tandem_core::wire::{FRAME_HEADER_BYTES, FrameError, FrameHeader, Message, Stream, decode, encode};

use super::buffer::{Buffer, BufferPool};
use super::ring::Operation;
use super::send_queue::SendQueue;

/// Read from a stream at a time.
const INPUT_BYTES: usize = 128 << 10;
/// Payloads that lack less than this are received together with what follows them.
const DIRECT_PAYLOAD_BYTES: usize = 32 << 10;
/// A peer that lets more than this wait for it asks without reading the answers: writes and resync have bounds of their
/// own far below.
const MAX_QUEUED_BYTES: usize = 1 << 30;
/// How long what is queued may take to be sent and taken once the connection is closed.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// How long one stream may outlive the other: what the peer said last is still read.
const HALF_CLOSED_LIMIT: Duration = Duration::from_millis(500);

/// A connection to a peer.
pub(crate) struct PeerConn {
    path: PathSpec,
    streams: [PeerStream; 2],
    phase: Phase,
}

enum Phase {
    Open,
    /// A stream has ended; the other is read until then.
    HalfClosed(Loss, Instant),
    /// The engine knows that it is over, or has said so; what is queued may still be sent until then.
    Closing {
        end: Instant,
        write_side_shut: bool,
    },
    /// Nothing is waited for but the ring.
    Over,
}

/// How a connection was lost.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) how: ConnectionState,
    pub(crate) reason: String,
}

struct PeerStream {
    socket: Arc<OwnedFd>,
    /// Empty while the ring has it.
    input: BytesMut,
    receiving: bool,
    ended: bool,
    frame: Option<PartialFrame>,
    out: SendQueue,
}

/// A frame whose payload has not arrived in full. The buffer is with the ring while it is `None`.
struct PartialFrame {
    header: FrameHeader,
    body: BytesMut,
    buffer: Option<Buffer>,
    filled: usize,
}

impl PeerConn {
    /// A connection whose preambles were exchanged.
    pub(crate) fn new(path: PathSpec, data: OwnedFd, control: OwnedFd) -> PeerConn {
        PeerConn { path, streams: [data, control].map(PeerStream::new), phase: Phase::Open }
    }

    pub(crate) fn peer(&self) -> NodeId {
        self.path.peer
    }

    /// What it goes over.
    pub(crate) fn path(&self) -> PathSpec {
        self.path
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, stream: Stream, message: &Message) {
        let stream = &mut self.streams[stream as usize];
        if stream.out.is_broken() || !matches!(self.phase, Phase::Open | Phase::HalfClosed(..)) {
            return;
        }
        encode(message, stream.out.tail());
        if let Some(payload) = message.payload() {
            stream.out.push(payload.data.clone());
        }
        if stream.out.bytes() > MAX_QUEUED_BYTES {
            tracing::warn!(
                peer = self.path.peer.0,
                "the peer does not take what it has asked for; disconnecting"
            );
            stream.out.give_up();
            stream.shut(Shutdown::Both);
        }
    }

    /// The next message that has arrived in full on `stream`; an error ends the connection.
    pub(crate) fn next_message(
        &mut self,
        stream: Stream,
        pool: &BufferPool,
    ) -> Result<Option<Message>, Loss> {
        if !matches!(self.phase, Phase::Open | Phase::HalfClosed(..)) {
            return Ok(None);
        }
        let lost =
            |error: FrameError| Loss { how: ConnectionState::ProtocolError, reason: error.to_string() };
        let message = self.streams[stream as usize].next_message(pool).map_err(lost)?;
        // What a peer has proved, it has proved for the stream that it speaks on.
        if message.as_ref().is_some_and(|message| message.stream() != stream) {
            let reason = "protocol error: a message on the wrong stream".into();
            return Err(Loss { how: ConnectionState::ProtocolError, reason });
        }
        Ok(message)
    }

    /// How the connection was lost, once both streams have ended or one has for too long. To be told to the engine;
    /// the connection is over then.
    pub(crate) fn take_loss(&mut self, now: Instant) -> Option<Loss> {
        let Phase::HalfClosed(loss, end) = &self.phase else { return None };
        if !self.streams.iter().all(|stream| stream.ended) && now < *end {
            return None;
        }
        let loss = loss.clone();
        self.abort();
        Some(loss)
    }

    /// Sends what is queued, then closes.
    pub(crate) fn close(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Open | Phase::HalfClosed(..)) {
            self.phase = Phase::Closing { end: now + CLOSE_LIMIT, write_side_shut: false };
        }
    }

    /// Closes at once.
    pub(crate) fn abort(&mut self) {
        self.phase = Phase::Over;
        for stream in &mut self.streams {
            stream.out.give_up();
            stream.shut(Shutdown::Both);
        }
    }

    /// Goes on with closing: the write sides are shut once everything is sent, and the peer's last words are read,
    /// because closing on unread data would destroy what was sent.
    pub(crate) fn progress(&mut self, now: Instant) {
        let Phase::Closing { end, write_side_shut } = &mut self.phase else { return };
        let sent = self.streams.iter().all(|stream| stream.out.bytes() == 0 && !stream.out.is_sending());
        let ended = self.streams.iter().all(|stream| stream.ended);
        if now >= *end || (sent && ended) {
            self.abort();
        } else if sent && !*write_side_shut {
            *write_side_shut = true;
            self.streams.iter().for_each(|stream| stream.shut(Shutdown::Write));
        }
    }

    /// When [`PeerConn::progress`] or [`PeerConn::take_loss`] has something to do at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::HalfClosed(_, end) | Phase::Closing { end, .. } => Some(*end),
            Phase::Open | Phase::Over => None,
        }
    }

    /// True when the ring has nothing of it any more.
    pub(crate) fn is_finished(&self) -> bool {
        let idle = |stream: &PeerStream| !stream.receiving && !stream.out.is_sending();
        matches!(self.phase, Phase::Over) && self.streams.iter().all(idle)
    }

    /// The receive to start now on `stream`, if any.
    pub(crate) fn next_receive(&mut self, stream: Stream) -> Option<Operation> {
        match self.phase {
            Phase::Over => None,
            _ => self.streams[stream as usize].next_receive(),
        }
    }

    /// Takes the end of a receive.
    pub(crate) fn received(
        &mut self,
        stream: Stream,
        operation: Operation,
        result: io::Result<usize>,
        now: Instant,
    ) {
        let Some(loss) = self.streams[stream as usize].received(operation, result) else {
            if matches!(self.phase, Phase::Closing { .. } | Phase::Over) {
                self.streams[stream as usize].input.clear();
            }
            return;
        };
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::HalfClosed(loss, now + HALF_CLOSED_LIMIT);
        }
    }

    /// The send to start now on `stream`, if any.
    pub(crate) fn next_send(&mut self, stream: Stream) -> Option<Operation> {
        let stream = &mut self.streams[stream as usize];
        let parts = stream.out.next_send()?;
        Some(Operation::Send { socket: stream.socket.clone(), parts })
    }

    /// Takes the end of a send. A stream that takes nothing more is about to end for receiving too.
    pub(crate) fn sent(&mut self, stream: Stream, parts: Vec<Bytes>, result: io::Result<usize>) {
        let stream = &mut self.streams[stream as usize];
        stream.out.sent(parts, result);
        if stream.out.is_broken() {
            stream.shut(Shutdown::Both);
        }
    }
}

impl PeerStream {
    fn new(socket: OwnedFd) -> PeerStream {
        PeerStream {
            socket: Arc::new(socket),
            input: BytesMut::new(),
            receiving: false,
            ended: false,
            frame: None,
            out: SendQueue::default(),
        }
    }

    fn next_message(&mut self, pool: &BufferPool) -> Result<Option<Message>, FrameError> {
        if self.receiving {
            return Ok(None);
        }
        if self.frame.is_none() {
            self.frame = self.next_frame(pool)?;
        }
        let Some(frame) = &mut self.frame else { return Ok(None) };
        if let Some(buffer) = &mut frame.buffer {
            let room = &mut buffer[frame.filled..];
            let taken = room.len().min(self.input.len());
            self.input.copy_to_slice(&mut room[..taken]);
            frame.filled += taken;
        }
        if frame.filled < frame.header.payload_bytes as usize {
            return Ok(None);
        }
        let Some(PartialFrame { header, body, buffer, .. }) = self.frame.take() else { return Ok(None) };
        let payload = buffer.map(Buffer::freeze).unwrap_or_default();
        decode(&header, &body, payload).map(Some)
    }

    /// The next frame's header and body, once both are there, with room for its payload.
    fn next_frame(&mut self, pool: &BufferPool) -> Result<Option<PartialFrame>, FrameError> {
        let Some(bytes) = self.input.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let header = FrameHeader::parse(bytes)?;
        let body_bytes = header.body_bytes as usize;
        if self.input.len() < FRAME_HEADER_BYTES + body_bytes {
            return Ok(None);
        }
        self.input.advance(FRAME_HEADER_BYTES);
        let body = BytesMut::from(&self.input[..body_bytes]);
        self.input.advance(body_bytes);
        let payload_bytes = header.payload_bytes as usize;
        let buffer = (payload_bytes > 0).then(|| pool.take(payload_bytes));
        Ok(Some(PartialFrame { header, body, buffer, filled: 0 }))
    }

    fn next_receive(&mut self) -> Option<Operation> {
        if self.receiving || self.ended {
            return None;
        }
        self.receiving = true;
        let socket = self.socket.clone();
        let lacks = |frame: &PartialFrame| frame.header.payload_bytes as usize - frame.filled;
        if let Some(frame) = self.frame.as_mut().filter(|frame| lacks(frame) >= DIRECT_PAYLOAD_BYTES)
            && let Some(buffer) = frame.buffer.take()
        {
            return Some(Operation::ReceiveInto { socket, buffer, filled: frame.filled });
        }
        let mut buffer = std::mem::take(&mut self.input);
        buffer.reserve(INPUT_BYTES - buffer.len().min(INPUT_BYTES / 2));
        Some(Operation::Receive { socket, buffer })
    }

    /// Takes the end of a receive; how the stream ended, if it did.
    fn received(&mut self, operation: Operation, result: io::Result<usize>) -> Option<Loss> {
        self.receiving = false;
        match operation {
            Operation::Receive { buffer, .. } => self.input = buffer,
            Operation::ReceiveInto { buffer, filled, .. } => {
                if let Some(frame) = &mut self.frame {
                    frame.filled = filled;
                    frame.buffer = Some(buffer);
                }
            }
            _ => (),
        }
        let loss = match result {
            Ok(0) => {
                let reason = "the peer closed the connection".into();
                Loss { how: ConnectionState::BrokenPipe, reason }
            }
            Ok(_) => return None,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => return None,
                Some(libc::ECONNRESET | libc::EPIPE) => {
                    Loss { how: ConnectionState::BrokenPipe, reason: error.to_string() }
                }
                _ => Loss { how: ConnectionState::NetworkFailure, reason: error.to_string() },
            },
        };
        self.ended = true;
        Some(loss)
    }

    fn shut(&self, how: Shutdown) {
        // It fails if the peer was faster, which the receive will tell.
        let _ = shutdown(self.socket.as_raw_fd(), how);
    }
}
