//! One NBD client in the transmission phase: requests from its socket, replies back to it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nix::sys::socket::{Shutdown, shutdown};
use tandem_core::io::{ClientError, ClientOp, Payload};
use tandem_core::units::ByteRange;
use tandem_nbd::{Command, Errno, Event, ExportInfo, Receiver, Request, simple_reply_header};
use tokio::sync::OwnedSemaphorePermit;

use super::buffer::{Buffer, BufferPool};
use super::ring::Operation;
use super::send_queue::SendQueue;

/// Requests of one client in flight: four times the queue of the kernel's client at its default.
const MAX_IN_FLIGHT: usize = 128;
/// Bytes that one client may have in flight or waiting to be sent to it; one request may exceed it.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Read from the socket at a time: a queue of 32 writes of 4 KiB with their headers nearly fits.
const INPUT_BYTES: usize = 128 << 10;
/// Payloads that lack less than this are received together with what follows them; the rest go straight to their
/// aligned buffer.
const DIRECT_PAYLOAD_BYTES: usize = 32 << 10;

/// How long a client that has said goodbye, or sent its last, may take to read the replies it is owed.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// A client whose handshake is complete.
pub(crate) struct NbdClient {
    /// Its socket, blocking.
    pub(crate) socket: OwnedFd,
    /// What it sent after the handshake.
    pub(crate) input: BytesMut,
    /// For the operator: who it is, since when.
    pub(crate) name: String,
    /// What it was promised.
    pub(crate) export: ExportInfo,
    /// Which volume, counted from 0.
    pub(crate) volume: usize,
    /// It keeps the block device: whether that is open is known elsewhere.
    pub(crate) is_device: bool,
    /// Its share of the number of clients that are admitted.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// A client being served.
pub(crate) struct NbdConn {
    socket: Arc<OwnedFd>,
    name: String,
    is_device: bool,
    volume: usize,
    export: ExportInfo,
    receiver: Receiver,
    /// Empty while the ring has it.
    input: BytesMut,
    receiving: bool,
    write: Option<PartialWrite>,
    out: SendQueue,
    in_flight: usize,
    in_flight_bytes: usize,
    /// No more requests will be taken.
    ending: bool,
    /// When replies to its last requests that were not read are given up.
    drained_by: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// A write whose payload has not arrived in full. The buffer is with the ring while it is `None`.
struct PartialWrite {
    cookie: u64,
    offset: u64,
    fua: bool,
    buffer: Option<Buffer>,
    filled: usize,
}

/// A request for the engine.
pub(crate) struct NbdRequest {
    pub(crate) cookie: u64,
    /// What it counts against the client's limit.
    pub(crate) cost_bytes: usize,
    pub(crate) is_read: bool,
    /// Of which volume, counted from 0.
    pub(crate) volume: usize,
    /// With offsets in the volume.
    pub(crate) op: ClientOp,
}

impl NbdConn {
    pub(crate) fn new(client: NbdClient) -> NbdConn {
        NbdConn {
            socket: Arc::new(client.socket),
            name: client.name,
            is_device: client.is_device,
            volume: client.volume,
            export: client.export,
            receiver: Receiver::new(),
            input: client.input,
            receiving: false,
            write: None,
            out: SendQueue::default(),
            in_flight: 0,
            in_flight_bytes: 0,
            ending: false,
            drained_by: None,
            _permit: client.permit,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Which volume it uses, counted from 0.
    pub(crate) fn volume(&self) -> usize {
        self.volume
    }

    /// It keeps a block device.
    pub(crate) fn is_device(&self) -> bool {
        self.is_device
    }

    /// The volume has this size now.
    pub(crate) fn grow_to(&mut self, bytes: u64) {
        self.export.size_bytes = self.export.size_bytes.max(bytes);
    }

    /// It keeps the block device of this volume.
    pub(crate) fn is_device_of(&self, volume: usize) -> bool {
        self.is_device && self.volume == volume
    }

    /// The next request among what was received, if the client has not reached its limits. Requests that the
    /// engine need not see are answered here.
    pub(crate) fn next_request(&mut self, pool: &BufferPool) -> Option<NbdRequest> {
        while !self.receiving && !self.ending && !self.is_congested() {
            if let Some(request) = self.take_payload() {
                return Some(self.count(request));
            }
            if self.write.is_some() {
                return None;
            }
            match self.receiver.next(&mut self.input, &self.export) {
                Event::NeedMore => return None,
                Event::Payload { .. } => return None,
                Event::Reject { cookie, errno } => self.reply(cookie, Err(errno)),
                Event::Close(violation) => {
                    tracing::warn!(client = self.name, "closing an NBD connection: {violation}");
                    self.abort();
                }
                Event::Request(request) => {
                    if let Some(request) = self.request(request, pool) {
                        return Some(self.count(request));
                    }
                }
            }
        }
        None
    }

    fn request(&mut self, request: Request, pool: &BufferPool) -> Option<NbdRequest> {
        let (cookie, volume) = (request.cookie, self.volume);
        let zero = |offset: u64, length: u32, unmap, fua| {
            let range = ByteRange::new(offset, u64::from(length));
            let op = ClientOp::Zero { range, unmap, fua };
            NbdRequest { cookie, cost_bytes: 0, is_read: false, volume, op }
        };
        match request.command {
            Command::Read { offset, length } => Some(NbdRequest {
                cookie,
                cost_bytes: length as usize,
                is_read: true,
                volume,
                op: ClientOp::Read(ByteRange::new(offset, u64::from(length))),
            }),
            Command::Write { offset, length, fua } => {
                let buffer = Some(pool.take(length as usize));
                self.write = Some(PartialWrite { cookie, offset, fua, buffer, filled: 0 });
                None
            }
            Command::Flush => {
                Some(NbdRequest { cookie, cost_bytes: 0, is_read: false, volume, op: ClientOp::Flush })
            }
            Command::Trim { offset, length, fua } => Some(zero(offset, length, true, fua)),
            Command::WriteZeroes { offset, length, fua, no_hole } => {
                Some(zero(offset, length, !no_hole, fua))
            }
            Command::Nothing => {
                self.reply(cookie, Ok(()));
                None
            }
            Command::Disconnect => {
                self.end();
                None
            }
        }
    }

    /// Moves buffered payload to the write under way; the write, if that completes it.
    fn take_payload(&mut self) -> Option<NbdRequest> {
        let write = self.write.as_mut()?;
        let buffer = write.buffer.as_mut()?;
        write.filled += self.receiver.take_payload(&mut self.input, &mut buffer[write.filled..]);
        if self.receiver.payload_left() > 0 {
            return None;
        }
        let PartialWrite { cookie, offset, fua, buffer, .. } = self.write.take()?;
        let payload = Payload::new(buffer?.freeze());
        let cost_bytes = payload.data.len();
        let (volume, op) = (self.volume, ClientOp::Write { offset, payload, fua });
        Some(NbdRequest { cookie, cost_bytes, is_read: false, volume, op })
    }

    fn count(&mut self, request: NbdRequest) -> NbdRequest {
        self.in_flight += 1;
        self.in_flight_bytes += request.cost_bytes;
        request
    }

    /// Takes the engine's answer to a request.
    pub(crate) fn complete(
        &mut self,
        cookie: u64,
        is_read: bool,
        cost_bytes: usize,
        result: Result<Bytes, ClientError>,
    ) {
        self.in_flight -= 1;
        self.in_flight_bytes -= cost_bytes;
        match result {
            Ok(data) if !is_read || data.len() == cost_bytes => {
                self.reply(cookie, Ok(()));
                self.out.push(if is_read { data } else { Bytes::new() });
            }
            Ok(_) => self.reply(cookie, Err(Errno::Eio)),
            Err(ClientError::NotPrimary) => self.reply(cookie, Err(Errno::Eperm)),
            Err(ClientError::Io) => self.reply(cookie, Err(Errno::Eio)),
            Err(ClientError::OutOfRange) if is_read => self.reply(cookie, Err(Errno::Einval)),
            Err(ClientError::OutOfRange) => self.reply(cookie, Err(Errno::Enospc)),
        }
    }

    fn reply(&mut self, cookie: u64, result: Result<(), Errno>) {
        if !self.out.is_broken() {
            self.out.tail().extend_from_slice(&simple_reply_header(cookie, result));
        }
    }

    /// True while the client must wait with more requests: its replies, or what it asked for, take too much room.
    fn is_congested(&self) -> bool {
        self.in_flight >= MAX_IN_FLIGHT || self.in_flight_bytes + self.out.bytes() >= MAX_IN_FLIGHT_BYTES
    }

    /// The receive to start now, if any.
    pub(crate) fn next_receive(&mut self) -> Option<Operation> {
        if self.receiving || self.ending || self.is_congested() {
            return None;
        }
        self.receiving = true;
        let socket = self.socket.clone();
        let left = self.receiver.payload_left() as usize;
        if let Some(write) = self.write.as_mut().filter(|_| left >= DIRECT_PAYLOAD_BYTES)
            && let Some(buffer) = write.buffer.take()
        {
            return Some(Operation::ReceiveInto { socket, buffer, filled: write.filled });
        }
        let mut buffer = std::mem::take(&mut self.input);
        buffer.reserve(INPUT_BYTES - buffer.len().min(INPUT_BYTES / 2));
        Some(Operation::Receive { socket, buffer })
    }

    /// Takes the end of a receive.
    pub(crate) fn received(&mut self, operation: Operation, result: std::io::Result<usize>) {
        self.receiving = false;
        match operation {
            Operation::Receive { buffer, .. } => self.input = buffer,
            Operation::ReceiveInto { buffer, filled, .. } => {
                if let Some(write) = &mut self.write {
                    self.receiver.payload_received(filled - write.filled);
                    write.filled = filled;
                    write.buffer = Some(buffer);
                }
            }
            _ => (),
        }
        match result {
            Ok(0) => self.end(),
            Ok(_) => (),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => (),
            Err(_) => self.abort(),
        }
    }

    /// The send to start now, if any.
    pub(crate) fn next_send(&mut self) -> Option<Operation> {
        let parts = self.out.next_send()?;
        Some(Operation::Send { socket: self.socket.clone(), parts })
    }

    /// Takes the end of a send.
    pub(crate) fn sent(&mut self, parts: Vec<Bytes>, result: std::io::Result<usize>) {
        self.out.sent(parts, result);
        if self.out.is_broken() {
            self.abort();
        }
    }

    /// Takes no more requests; those in flight are still answered.
    fn end(&mut self) {
        self.ending = true;
    }

    /// Goes on with ending: a client that does not read what it asked for must not hold the device open.
    pub(crate) fn progress(&mut self, now: Instant) {
        if self.ending && self.in_flight == 0 && !self.is_finished() {
            let drained_by = *self.drained_by.get_or_insert(now + DRAIN_LIMIT);
            if now >= drained_by && !self.out.is_broken() {
                tracing::warn!(client = self.name, "closing an NBD connection: its replies are not read");
                self.abort();
            }
        }
    }

    /// When [`NbdConn::progress`] has something to do at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.drained_by.filter(|_| !self.out.is_broken())
    }

    /// Ends the connection without waiting for the client.
    pub(crate) fn abort(&mut self) {
        self.ending = true;
        self.out.give_up();
        // Ends what the ring still does with the socket. It fails if the client was faster.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }

    /// True when nothing of the connection is left to be done.
    pub(crate) fn is_finished(&self) -> bool {
        let idle = !self.receiving && !self.out.is_sending();
        self.ending && self.in_flight == 0 && idle && self.out.bytes() == 0
    }
}
