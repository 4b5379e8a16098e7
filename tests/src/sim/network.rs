//! Connections: how they are made, what travels, how they break.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tandem_core::authentication::Challenge;
use tandem_core::io::Input;
use tandem_core::state::{ConnectionState, DiskState};
use tandem_core::units::{Epoch, NodeId, WriteSeq};
use tandem_core::wire::{self, FRAME_HEADER_BYTES, FrameHeader, Message, Stream};

use super::disk::token_at;
use super::link::{End, Micros};
use super::oracle::{Violation, write_of};
use super::report;
use super::world::{Event, World};

/// One message out of this many goes through the codec.
const CODEC_EVERY: u64 = 16;

/// The writes that a node has sent on the present connection, by epoch.
#[derive(Debug, Default)]
pub(super) struct EpochLog {
    open: Vec<(WriteSeq, u32)>,
    closed: VecDeque<(Epoch, Vec<(WriteSeq, u32)>)>,
}

impl World {
    // Meeting.

    /// If both nodes try and nothing is in the way, they will meet.
    pub(super) fn try_to_meet(&mut self) {
        self.link.collect();
        if self.link.may_attempt() {
            self.link.attempt_pending = true;
            let delay = self.prng.between(50, 3_000);
            self.at(delay, Event::Meet);
        }
    }

    pub(super) fn meet(&mut self) {
        self.link.attempt_pending = false;
        if !self.link.may_attempt() {
            return;
        }
        let delays = [self.link_delay(), self.link_delay()];
        let session = self.link.establish(delays.map(|d| self.now + d));
        self.epochs = Default::default();
        self.sync_source = None;
        self.oracle.connected();
        for (node, delay) in delays.into_iter().enumerate() {
            self.at(delay, Event::Opened { node, session });
        }
    }

    pub(super) fn opened(&mut self, n: usize, session: u64) -> Result<(), Violation> {
        let wanted = self.link.wanted[n];
        let Some(s) = self.link.session(session) else { return Ok(()) };
        if !matches!(s.ends[n], End::Opening(_)) {
            return Ok(());
        }
        if !wanted {
            self.close(n);
            return Ok(());
        }
        s.ends[n] = End::Open;
        self.link.wanted[n] = false;
        self.trace(Some(n), "connected", || format!("session {session}"));
        self.tell_size(n)?;
        self.grow_at_last(n);
        let challenge = self.draw_challenge();
        self.feed(n, Input::PeerConnected { peer: peer_of(n), challenge })
    }

    pub(super) fn draw_challenge(&mut self) -> Challenge {
        let mut challenge = [0; 32];
        challenge
            .chunks_exact_mut(8)
            .for_each(|part| part.copy_from_slice(&self.prng.next_u64().to_le_bytes()));
        challenge
    }

    // Talking.

    pub(super) fn send(&mut self, n: usize, stream: Stream, message: Message) -> Result<(), Violation> {
        if message.stream() != stream {
            return Err(Violation::new(
                "contract",
                format!("node {n} sends {message:?} on the wrong stream"),
            ));
        }
        if self.impostor.is_some() && !self.has_intruder() {
            return self.tell_impostor(n, message);
        }
        let Some(session) = self.link.open_end(n) else { return Ok(()) };
        self.trace(Some(n), "send", || report::show_message(&message));
        self.epochs[n].sent(&message);
        let message = if self.prng.chance(1, CODEC_EVERY) { through_the_codec(message)? } else { message };
        let delay = self.link_delay();
        let now = self.now;
        if let Some(s) = self.link.session(session) {
            let at = s.arrival(n, stream, now, delay);
            self.at(at - now, Event::Arrives { node: 1 - n, session, message });
        }
        Ok(())
    }

    pub(super) fn arrives(&mut self, n: usize, session: u64, message: Message) -> Result<(), Violation> {
        let now = self.now;
        if !self.link.session(session).is_some_and(|s| s.delivers(n, message.stream(), now)) {
            return Ok(());
        }
        self.trace(Some(n), "receive", || report::show_message(&message));
        match message {
            Message::State { disk: DiskState::Failed, .. } => self.epochs[n].abandoned(),
            Message::NegativeAck { seq, .. } => self.epochs[n].refused(seq),
            Message::BarrierAck { epoch, .. } => {
                let writes = self.epochs[n].acked(epoch);
                self.oracle.barrier_acked(1 - n, &writes);
            }
            _ => {}
        }
        self.feed(n, Input::PeerMessage { peer: peer_of(n), message })
    }

    pub(super) fn link_delay(&mut self) -> Micros {
        let (low, high) = self.plan.link_delay;
        self.prng.between(low, high) * self.link_slowness
    }

    // Parting.

    /// The node leaves the connection: what it has sent still arrives, mostly.
    pub(super) fn close(&mut self, n: usize) {
        let now = self.now;
        let reset = (!self.split && self.prng.chance(1, 8)).then(|| self.prng.below(500));
        let delay = self.link_delay();
        self.trace(Some(n), "close", String::new);
        let Some(s) = self.link.session.as_mut() else { return };
        if s.ends[n] == End::Closed {
            return;
        }
        s.ends[n] = End::Closed;
        if s.ends[1 - n] != End::Closed && !s.is_cut(n) {
            if let Some(reset) = reset {
                // Unread data makes TCP reset the connection, and what is under way is lost.
                s.lose_after(n, [now + reset; 2]);
            }
            let at = s.quiet_after(n).max(now) + delay;
            let session = s.id;
            self.at(at - now, Event::Gone { node: 1 - n, session });
        }
        self.try_to_meet();
    }

    pub(super) fn gone(&mut self, n: usize, session: u64) -> Result<(), Violation> {
        let Some(s) = self.link.session(session) else { return Ok(()) };
        let was = std::mem::replace(&mut s.ends[n], End::Closed);
        self.link.collect();
        self.try_to_meet();
        if was != End::Open {
            return Ok(());
        }
        self.trace(Some(n), "gone", || format!("session {session}"));
        let how = if self.prng.chance(1, 2) {
            ConnectionState::BrokenPipe
        } else {
            ConnectionState::NetworkFailure
        };
        self.feed(n, Input::PeerGone { peer: peer_of(n), how, reason: "the connection broke".into() })
    }

    /// The connection breaks now; each stream loses what is under way from some point on. `hears` tells which nodes
    /// learn of it by themselves.
    pub(super) fn break_connection(&mut self, hears: [bool; 2]) {
        for from in 0..2 {
            self.lose_what_is_under_way(from);
        }
        for (node, hears) in hears.into_iter().enumerate() {
            if hears {
                self.announce_end(node);
            }
        }
    }

    /// A node died: its end is closed. `silent`: nobody tells the peer.
    pub(super) fn abandon_connection(&mut self, n: usize, silent: bool) {
        self.lose_what_is_under_way(n);
        if let Some(s) = self.link.session.as_mut() {
            s.ends[n] = End::Closed;
        }
        if !silent {
            self.announce_end(1 - n);
        }
        self.link.collect();
    }

    /// The network works again; connections that lost something are found broken.
    pub(super) fn link_up(&mut self) {
        self.trace(None, "link up", String::new);
        self.link.down = false;
        for n in 0..2 {
            self.reset_broken_connection(n);
        }
        self.try_to_meet();
    }

    /// A node that is there again answers for a connection it no longer has: the peer hears of its end.
    pub(super) fn reset_broken_connection(&mut self, n: usize) {
        let broken = self.link.session.as_ref().is_some_and(|s| {
            s.ends[1 - n] != End::Closed && (s.ends[n] == End::Closed || s.is_cut(0) || s.is_cut(1))
        });
        if broken && !self.link.down {
            self.announce_end(1 - n);
        }
    }

    fn lose_what_is_under_way(&mut self, from: usize) {
        let now = self.now;
        let Some(s) = self.link.session.as_mut() else { return };
        let last = s.quiet_after(from).max(now);
        let cutoff = std::array::from_fn(|_| self.prng.between(now, last));
        s.lose_after(from, cutoff);
    }

    fn announce_end(&mut self, node: usize) {
        let late = if self.prng.chance(1, 4) { 100_000 } else { 2_000 };
        let delay = self.prng.below(late);
        if let Some(s) = self.link.session.as_ref() {
            let (session, at) = (s.id, s.quiet_after(1 - node).max(self.now) + delay);
            self.at(at - self.now, Event::Gone { node, session });
        }
    }
}

impl EpochLog {
    fn sent(&mut self, message: &Message) {
        match message {
            Message::Write { seq, payload, .. } => {
                self.open.push((*seq, write_of(token_at(&payload.data, 0))))
            }
            Message::Barrier { epoch, .. } => self.closed.push_back((*epoch, std::mem::take(&mut self.open))),
            _ => {}
        }
    }

    /// The writes of this epoch.
    fn acked(&mut self, epoch: Epoch) -> Vec<u32> {
        let mut writes = Vec::new();
        while self.closed.front().is_some_and(|(e, _)| *e <= epoch) {
            writes = self.closed.pop_front().map(|(_, w)| w).unwrap_or_default();
        }
        writes.into_iter().map(|(_, write)| write).collect()
    }

    /// The peer's disk has failed: no barrier ack will speak for what was meant for it.
    fn abandoned(&mut self) {
        *self = EpochLog::default();
    }

    /// The peer could not do it and has said so: its barrier ack will not speak for it.
    fn refused(&mut self, seq: WriteSeq) {
        let epochs = self.closed.iter_mut().map(|(_, writes)| writes).chain([&mut self.open]);
        epochs.for_each(|writes| writes.retain(|(s, _)| *s != seq));
    }
}

pub(super) fn peer_of(n: usize) -> NodeId {
    NodeId(1 - n as u8)
}

fn through_the_codec(message: Message) -> Result<Message, Violation> {
    let mut frame = BytesMut::new();
    wire::encode(&message, &mut frame);
    let header: &[u8; FRAME_HEADER_BYTES] =
        frame[..FRAME_HEADER_BYTES].first_chunk().unwrap_or(&[0; FRAME_HEADER_BYTES]);
    let payload = message.payload().map_or(Bytes::new(), |p| p.data.clone());
    let decoded =
        FrameHeader::parse(header).and_then(|h| wire::decode(&h, &frame[FRAME_HEADER_BYTES..], payload));
    match decoded {
        Ok(decoded) if decoded == message => Ok(decoded),
        other => Err(Violation::new("codec", format!("{message:?} came back as {other:?}"))),
    }
}
