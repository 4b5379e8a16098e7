//! Somebody who has a peer's address and not the secret connects to a node, and tries what there is to try: to send back what it
//! is sent, to guess, to go on as if it had been believed. It hears a challenge and the answers to its own, and nothing else.

use tandem_core::io::Input;
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::wire::{Message, Stream};

use super::faults::Kind;
use super::network::peer_of;
use super::oracle::Violation;
use super::report;
use super::world::World;

/// A stranger who is connected to a node.
#[derive(Debug, Default)]
pub(super) struct Impostor {
    heard: Vec<Message>,
}

impl World {
    /// The node waits for its peer, and this is somebody else. It is over before anything else happens.
    pub(super) fn meet_impostor(&mut self, n: usize) -> Result<(), Violation> {
        let waits = self.link.wanted[n] && self.link.session.is_none();
        if !waits || self.plan.authentication.is_none() {
            return Ok(());
        }
        self.counts.note(Kind::Impostor);
        self.trace(Some(n), "connected", || "to an impostor".into());
        self.link.wanted[n] = false;
        self.nodes[n].awaits_connect = true;
        self.tell_size(n)?;
        self.impostor = Some(Impostor::default());
        let challenge = self.draw_challenge();
        self.feed(n, Input::PeerConnected { peer: peer_of(n), challenge })?;
        match self.prng.below(3) {
            0 => self.reflect(n)?,
            1 => self.guess(n)?,
            _ => {}
        }
        while self.impostor.is_some() && self.prng.chance(3, 4) {
            let message = self.bluff();
            self.speak(n, message)?;
        }
        if self.impostor.take().is_some() {
            let (how, reason) = (ConnectionState::BrokenPipe, "the impostor has gone".into());
            self.feed(n, Input::PeerGone { peer: peer_of(n), how, reason })?;
        }
        let connection = self.nodes[n].status.as_ref().map(|s| s.peers[0].connection);
        self.nodes[n].awaits_connect = connection == Some(ConnectionState::StandAlone);
        Ok(())
    }

    /// A node says something to a stranger.
    pub(super) fn tell_impostor(&mut self, n: usize, message: Message) -> Result<(), Violation> {
        self.trace(Some(n), "send", || format!("to the impostor: {}", report::show_message(&message)));
        if !matches!(message, Message::Challenge { .. } | Message::Proof { .. }) {
            let text = format!("node {n} takes an impostor for its peer, and says {message:?}");
            return Err(Violation::new("authentication", text));
        }
        self.impostor.iter_mut().for_each(|impostor| impostor.heard.push(message.clone()));
        Ok(())
    }

    fn speak(&mut self, n: usize, message: Message) -> Result<(), Violation> {
        if self.impostor.is_none() {
            return Ok(());
        }
        self.trace(Some(n), "receive", || format!("from the impostor: {}", report::show_message(&message)));
        self.feed(n, Input::PeerMessage { peer: peer_of(n), message })
    }

    /// Everything that the node says is said to it.
    fn reflect(&mut self, n: usize) -> Result<(), Violation> {
        while let Some(message) =
            self.impostor.as_mut().filter(|i| !i.heard.is_empty()).map(|i| i.heard.remove(0))
        {
            self.speak(n, message)?;
        }
        Ok(())
    }

    /// A challenge, and proofs of nothing.
    fn guess(&mut self, n: usize) -> Result<(), Violation> {
        let Some(algorithm) = self.plan.authentication.as_ref().map(|a| a.algorithm) else { return Ok(()) };
        let challenge = self.draw_challenge();
        self.speak(n, Message::Challenge { algorithm, challenge })?;
        let mut streams = [Stream::Data, Stream::Control];
        if self.prng.chance(1, 2) {
            streams.reverse();
        }
        for stream in streams {
            let code = self.draw_challenge().to_vec();
            self.speak(n, Message::Proof { stream, code })?;
        }
        Ok(())
    }

    /// What would do harm if it were believed.
    fn bluff(&mut self) -> Message {
        let id = self.prng.below(4);
        match self.prng.below(8) {
            0 => Message::Goodbye { outdated: true },
            1 => Message::State { role: Role::Secondary, disk: DiskState::Outdated },
            2 => Message::InvalidateRequest { id, remote: true, reset_bitmap: true },
            3 => Message::OutdateRequest,
            4 => Message::PromoteReply { id, granted: true },
            5 => Message::BehindAck { id },
            6 => Message::Refuse { reason: "no".into() },
            _ => Message::Options {
                terms: self.configured_options(0).terms(),
                settings: self.configured_options(0).settings(),
                tentative: false,
            },
        }
    }
}
