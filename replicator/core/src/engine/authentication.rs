//! A peer proves who it is, and is proved it, before anything that it says is believed.
//!
//! Both send a challenge and answer the other's, on each of the two streams. Until both answers are right the peer counts as
//! one that is being connected to: what comes behind a proof on its stream waits for the other one.

use super::Engine;
use super::peer::Peer;
use crate::authentication::{Authentication, Challenge, Claim, HmacAlgorithm};
use crate::io::{Level, NewcomerAct, Output};
use crate::parting::NOT_AUTHENTICATED;
use crate::seeded;
use crate::state::ConnectionState;
use crate::units::{NodeId, Timestamp};
use crate::wire::{Message, Stream};

/// Most messages that wait for the other proof: a peer says less before it has heard us.
const MAX_EARLY: usize = 64;

/// A peer whose streams stand and that has not proved who it is.
#[derive(Clone, Debug)]
pub(super) struct Proving {
    known: Authentication,
    ours: Challenge,
    theirs: Option<Challenge>,
    /// For each stream.
    proved: [bool; 2],
    /// On its stream the proof may overtake the challenge, which is on the other.
    early_proof: Option<Vec<u8>>,
    /// What it has said on a stream that it had proved.
    early: Vec<Message>,
    since: Timestamp,
}

/// Why a stranger is not admitted.
enum Doubt {
    /// It is not who it should be: we stand alone.
    Refused(String),
    /// It makes no sense: try again.
    Violation(String),
}

impl Proving {
    /// It begins with what the stranger is told.
    pub(super) fn begin(known: Authentication, ours: Challenge, since: Timestamp) -> (Proving, Message) {
        let message = Message::Challenge { algorithm: known.algorithm, challenge: ours };
        let (theirs, early_proof, early) = (None, None, Vec::new());
        (Proving { known, ours, theirs, proved: [false; 2], early_proof, early, since }, message)
    }

    fn is_over(&self) -> bool {
        self.proved == [true; 2]
    }
}

impl Engine {
    pub(super) fn peer_connected(&mut self, id: NodeId, challenge: Challenge) {
        let now = self.now;
        let known = self.config.options.authentication.clone();
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.connection != ConnectionState::Connecting || peer.link_up || peer.proving.is_some() {
            self.outputs.push_back(Output::ClosePeer(id));
            return;
        }
        let Some(known) = known else { return self.begin_session(id) };
        let (proving, message) = Proving::begin(known, challenge, now);
        peer.proving = Some(proving);
        self.send_to_stranger(id, message);
    }

    /// A peer that has not proved who it is says something.
    pub(super) fn stranger_speaks(&mut self, id: NodeId, message: Message) {
        let outcome = match message {
            Message::Challenge { algorithm, challenge } => self.challenged(id, algorithm, challenge),
            Message::Proof { stream, code } => self.proof_received(id, stream, &code),
            message => self.keep_for_later(id, message),
        };
        match outcome {
            Ok(()) => self.admit_if_proved(id),
            Err(Doubt::Refused(why)) => self.refuse_stranger(id, &why),
            Err(Doubt::Violation(what)) => {
                self.leave_stranger(id, ConnectionState::ProtocolError, &format!("protocol error: {what}"));
            }
        }
    }

    /// What it challenges us with is answered, unless it is our own challenge: the answer would be what we wait for.
    fn challenged(
        &mut self,
        id: NodeId,
        algorithm: HmacAlgorithm,
        challenge: Challenge,
    ) -> Result<(), Doubt> {
        let reflects = !seeded!(self, AcceptsReflection);
        let Some((name, proving)) = self.stranger(id) else { return Ok(()) };
        if proving.theirs.is_some() {
            return Err(Doubt::Violation("a second challenge".into()));
        }
        let ours = proving.known.algorithm;
        if algorithm != ours {
            let (ours, theirs) = (ours.name(), algorithm.name());
            return Err(Doubt::Refused(format!("cram-hmac-alg is {ours} here and {theirs} on {name}")));
        }
        if reflects && challenge == proving.ours {
            return Err(Doubt::Refused(
                "it has sent back this node's own challenge (a reflection attack)".into(),
            ));
        }
        proving.theirs = Some(challenge);
        let early_proof = proving.early_proof.take();
        for stream in [Stream::Data, Stream::Control] {
            if let Some(code) = self.claim(id, stream).map(|(known, claim)| known.prove(&claim.reversed())) {
                self.send_to_stranger(id, Message::Proof { stream, code });
            }
        }
        early_proof.map_or(Ok(()), |code| self.proof_received(id, Stream::Control, &code))
    }

    fn proof_received(&mut self, id: NodeId, stream: Stream, code: &[u8]) -> Result<(), Doubt> {
        let believes = seeded!(self, BelievesAnyProof);
        let reflected = seeded!(self, AcceptsReflection)
            && self.claim(id, stream).is_some_and(|(known, claim)| known.is_proved(&claim.reversed(), code));
        let is_proved = self.claim(id, stream).map(|(known, claim)| known.is_proved(&claim, code));
        let Some((name, proving)) = self.stranger(id) else { return Ok(()) };
        let proved = &mut proving.proved[stream as usize];
        match is_proved {
            None if stream == Stream::Control && proving.early_proof.is_none() => {
                proving.early_proof = Some(code.to_vec());
                Ok(())
            }
            None => Err(Doubt::Violation("a proof without a challenge".into())),
            Some(_) if *proved => Err(Doubt::Violation("a second proof".into())),
            Some(right) if right || believes || reflected => {
                *proved = true;
                Ok(())
            }
            Some(_) => Err(Doubt::Refused(format!("shared-secret is not the same here and on {name}"))),
        }
    }

    /// The peer may have both of our proofs, and go on, while one of its own is still under way.
    fn keep_for_later(&mut self, id: NodeId, message: Message) -> Result<(), Doubt> {
        let Some((name, proving)) = self.stranger(id) else { return Ok(()) };
        let proved = proving.proved[message.stream() as usize];
        match message {
            message if proved && proving.early.len() < MAX_EARLY => {
                proving.early.push(message);
                Ok(())
            }
            Message::Options { .. } if proving.theirs.is_none() => {
                Err(Doubt::Refused(format!("cram-hmac-alg and shared-secret are set here and not on {name}")))
            }
            _ => Err(Doubt::Violation("the peer has not proved who it is, and goes on".into())),
        }
    }

    fn admit_if_proved(&mut self, id: NodeId) {
        if !self.peer(id).and_then(|p| p.proving.as_ref()).is_some_and(Proving::is_over) {
            return;
        }
        self.give_way_to_newcomer(id);
        let Some(proving) = self.peer_mut(id).and_then(|p| p.proving.take()) else { return };
        self.begin_session(id);
        for message in proving.early {
            self.peer_message(id, message);
        }
    }

    /// The peer wants proofs, and nothing that could make one is configured here.
    pub(super) fn challenged_in_vain(&mut self, id: NodeId) -> Result<(), String> {
        if self.config.options.authentication.is_some() {
            return Err("a challenge in the middle of a connection".into());
        }
        let name = self.peer(id).map_or(String::new(), |p| p.config.name.clone());
        let why = format!("cram-hmac-alg and shared-secret are set on {name} and not here");
        self.refuse(id, format!("{NOT_AUTHENTICATED}: {why}"));
        Ok(())
    }

    // Parting.

    fn refuse_stranger(&mut self, id: NodeId, why: &str) {
        let reason = format!("{NOT_AUTHENTICATED}: {why}");
        if self.has_newcomer(id) {
            return self.dismiss_newcomer(id, &reason);
        }
        if self.peer(id).is_some_and(|p| p.tentative) {
            return self.end_tentative(id, &format!("Would be refused: {reason}"));
        }
        self.stand_alone(id, ConnectionState::Disconnecting, Some(reason));
    }

    /// Closes the connection from our side and tries again.
    fn leave_stranger(&mut self, id: NodeId, how: ConnectionState, reason: &str) {
        if self.has_newcomer(id) {
            self.dismiss_newcomer(id, reason);
        } else if self.peer(id).is_some_and(|p| p.proving.is_some()) {
            self.outputs.push_back(Output::ClosePeer(id));
            self.stranger_gone(id, how, reason);
        }
    }

    /// The connection is no more.
    pub(super) fn stranger_gone(&mut self, id: NodeId, how: ConnectionState, reason: &str) {
        if self.peer_mut(id).is_some_and(|p| p.proving.take().is_some()) {
            self.note(Some(id), Level::Warn, reason);
            self.set_connection(id, how);
            self.begin_connecting(id);
        }
    }

    pub(super) fn proving_deadline(&self) -> Option<Timestamp> {
        self.peers.iter().filter_map(|p| self.proof_is_due(p)).min()
    }

    pub(super) fn check_proofs(&mut self) {
        for id in self.peer_ids() {
            if self.peer(id).and_then(|p| self.proof_is_due(p)).is_some_and(|due| due <= self.now) {
                self.leave_stranger(
                    id,
                    ConnectionState::Timeout,
                    "the peer has not proved in time who it is",
                );
            }
        }
    }

    fn proof_is_due(&self, peer: &Peer) -> Option<Timestamp> {
        peer.proving.as_ref().map(|proving| proving.since.plus_ms(self.config.options.timeout_ms))
    }

    // Small things.

    fn stranger(&mut self, id: NodeId) -> Option<(&str, &mut Proving)> {
        let peer = self.peer_mut(id)?;
        Some((&peer.config.name, peer.proving.as_mut()?))
    }

    /// What the peer has to prove, once both challenges are known.
    fn claim(&self, id: NodeId, stream: Stream) -> Option<(&Authentication, Claim<'_>)> {
        let Proving { known, ours, theirs, .. } = self.peer(id)?.proving.as_ref()?;
        let (resource, verifier) = (&self.config.resource, self.config.node);
        let claim = Claim { resource, stream, prover: id, verifier, own: theirs.as_ref()?, answered: ours };
        Some((known, claim))
    }

    pub(super) fn send_to_stranger(&mut self, peer: NodeId, message: Message) {
        let stream = message.stream();
        match self.has_newcomer(peer) {
            true => self.act_on_newcomer(peer, NewcomerAct::Send { stream, message }),
            false => self.outputs.push_back(Output::Send { peer, stream, message }),
        }
    }
}
