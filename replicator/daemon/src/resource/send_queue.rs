//! What waits to be sent on a stream: small pieces are gathered, payloads are passed on without a copy.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes, BytesMut};

use super::ring::MAX_SEND_PARTS;

/// The bytes of a stream that are not sent yet, in order. One send is under way at a time.
#[derive(Default)]
pub(crate) struct SendQueue {
    parts: VecDeque<Bytes>,
    /// Headers since the last payload.
    tail: BytesMut,
    /// Bytes in `parts` and under way.
    queued_bytes: usize,
    sending: bool,
    broken: bool,
}

impl SendQueue {
    /// Where to append headers.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a payload.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.is_empty() {
            return;
        }
        self.seal();
        self.queued_bytes += payload.len();
        self.parts.push_back(payload);
    }

    /// Bytes not sent yet.
    pub(crate) fn bytes(&self) -> usize {
        self.queued_bytes + self.tail.len()
    }

    /// True while the kernel holds a part of it.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending
    }

    /// True once the stream takes nothing more; whatever is queued is dropped.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The next parts to be sent, unless there is nothing to send or a send is under way.
    pub(crate) fn next_send(&mut self) -> Option<Vec<Bytes>> {
        if self.broken {
            self.clear();
        }
        if self.sending || self.bytes() == 0 {
            return None;
        }
        self.seal();
        self.sending = true;
        Some(self.parts.drain(..self.parts.len().min(MAX_SEND_PARTS)).collect())
    }

    /// The end of a send of `parts`; what was not sent goes first next time.
    pub(crate) fn sent(&mut self, parts: Vec<Bytes>, result: io::Result<usize>) {
        self.sending = false;
        let mut sent = match result {
            Ok(sent) => sent,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => 0,
            Err(_) => {
                self.give_up();
                return;
            }
        };
        self.queued_bytes -= sent.min(self.queued_bytes);
        let mut left = Vec::new();
        for mut part in parts {
            let gone = sent.min(part.len());
            part.advance(gone);
            sent -= gone;
            if !part.is_empty() {
                left.push(part);
            }
        }
        left.into_iter().rev().for_each(|part| self.parts.push_front(part));
    }

    /// Nothing more will be sent.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
        self.clear();
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.tail.clear();
        self.queued_bytes = 0;
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queued_bytes += self.tail.len();
            self.parts.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> SendQueue {
        let mut queue = SendQueue::default();
        queue.tail().extend_from_slice(b"ab");
        queue.tail().extend_from_slice(b"cd");
        queue.push(Bytes::from_static(b"payload"));
        queue.tail().extend_from_slice(b"ef");
        queue
    }

    #[test]
    fn headers_are_gathered_between_payloads() {
        let mut queue = queue();
        assert_eq!(queue.bytes(), 13);
        assert_eq!(queue.next_send().unwrap(), [&b"abcd"[..], b"payload", b"ef"]);
        assert!(queue.next_send().is_none(), "one send at a time");
    }

    #[test]
    fn a_short_send_goes_on_where_it_ended() {
        let mut queue = queue();
        let parts = queue.next_send().unwrap();
        queue.tail().extend_from_slice(b"gh");
        queue.sent(parts, Ok(6));
        assert_eq!(queue.bytes(), 9);
        assert_eq!(queue.next_send().unwrap(), [&b"yload"[..], b"ef", b"gh"]);
    }

    #[test]
    fn a_broken_stream_keeps_nothing() {
        let mut queue = queue();
        let parts = queue.next_send().unwrap();
        queue.sent(parts, Err(io::Error::from_raw_os_error(libc::EPIPE)));
        queue.tail().extend_from_slice(b"gh");
        assert!(queue.next_send().is_none());
        assert_eq!(queue.bytes(), 0);
    }
}
