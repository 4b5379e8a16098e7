//! Somebody who has a peer's address and not the secret connects to a node, and tries what there is to try: to send back what it
//! is sent, to guess, to go on as if it had been believed. It hears a challenge and the answers to its own, and nothing else. A
//! connection that stands does not notice.

use tandem_core::io::{Input, NewcomerAct, NewcomerEvent};
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
    /// The node is connected to its peer.
    intrudes: bool,
}

/// The connection that the node has proved is no more, and nothing else has happened.
pub(super) fn ended_by_impostor(n: usize) -> Violation {
    Violation::new(
        "authentication",
        format!("an impostor ends the connection that node {n} has with its peer"),
    )
}

impl World {
    /// The node waits for its peer, or is connected to it, and this is somebody else. It is over before anything else happens.
    pub(super) fn meet_impostor(&mut self, n: usize) -> Result<(), Violation> {
        let waits = self.link.wanted[n] && self.link.session.is_none();
        match self.plan.authentication {
            Some(_) if waits => self.wait_for_impostor(n),
            Some(_) if self.link.open_end(n).is_some() => self.be_intruded_on(n),
            _ => Ok(()),
        }
    }

    fn wait_for_impostor(&mut self, n: usize) -> Result<(), Violation> {
        self.counts.note(Kind::Impostor);
        self.trace(Some(n), "connected", || "to an impostor".into());
        self.link.wanted[n] = false;
        self.nodes[n].awaits_connect = true;
        self.tell_size(n)?;
        self.impostor = Some(Impostor::default());
        let challenge = self.draw_challenge();
        self.feed(n, Input::PeerConnected { peer: peer_of(n), challenge })?;
        self.try_everything(n)?;
        if self.impostor.take().is_some() {
            let (how, reason) = (ConnectionState::BrokenPipe, "the impostor has gone".into());
            self.feed(n, Input::PeerGone { peer: peer_of(n), how, reason })?;
        }
        self.nodes[n].awaits_connect = self.connection(n) == Some(ConnectionState::StandAlone);
        Ok(())
    }

    fn be_intruded_on(&mut self, n: usize) -> Result<(), Violation> {
        // What is due by now is not the impostor's doing.
        self.feed(n, Input::Tick)?;
        if self.connection(n) != Some(ConnectionState::Connected) {
            return Ok(());
        }
        self.counts.note(Kind::Impostor);
        self.trace(Some(n), "connected", || "to an impostor, beside its peer".into());
        self.impostor = Some(Impostor { intrudes: true, ..Impostor::default() });
        let challenge = self.draw_challenge();
        self.feed(n, Input::Newcomer { peer: peer_of(n), event: NewcomerEvent::Connected { challenge } })?;
        self.try_everything(n)?;
        if self.impostor.is_some() {
            self.feed(n, Input::Newcomer { peer: peer_of(n), event: NewcomerEvent::Gone })?;
        }
        self.impostor = None;
        Ok(())
    }

    fn try_everything(&mut self, n: usize) -> Result<(), Violation> {
        match self.prng.below(3) {
            0 => self.reflect(n)?,
            1 => self.guess(n)?,
            _ => {}
        }
        while self.impostor.is_some() && self.prng.chance(3, 4) {
            let message = self.bluff();
            self.speak(n, message)?;
        }
        Ok(())
    }

    /// An impostor wants the place of a connection that stands.
    pub(super) fn has_intruder(&self) -> bool {
        self.impostor.as_ref().is_some_and(|impostor| impostor.intrudes)
    }

    pub(super) fn answer_intruder(&mut self, n: usize, act: NewcomerAct) -> Result<(), Violation> {
        match act {
            NewcomerAct::Send { message, .. } => self.tell_impostor(n, message)?,
            NewcomerAct::Close => self.impostor = None,
            NewcomerAct::Admit => return Err(ended_by_impostor(n)),
        }
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
        let peer = peer_of(n);
        match self.has_intruder() {
            true => self.feed(n, Input::Newcomer { peer, event: NewcomerEvent::Says(message) }),
            false => self.feed(n, Input::PeerMessage { peer, message }),
        }
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
