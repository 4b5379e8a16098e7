//! Somebody connects from a peer's address although a connection with that peer stands. It may be the peer, which knows before
//! we do that the connection is no more; or it may be anybody. Where peers have a secret, it proves that it is the peer, and
//! meanwhile the connection stays. Where they have none, nothing tells the two apart, and it is taken for the peer.

use super::Engine;
use super::authentication::Proving;
use crate::authentication::Challenge;
use crate::io::{Level, NewcomerAct, NewcomerEvent, Output};
use crate::seeded;
use crate::state::ConnectionState;
use crate::units::NodeId;

const CONNECTED_ANEW: &str = "the peer has connected anew";

impl Engine {
    pub(super) fn newcomer(&mut self, id: NodeId, event: NewcomerEvent) {
        match event {
            NewcomerEvent::Connected { challenge } => self.newcomer_connected(id, challenge),
            NewcomerEvent::Says(message) if self.has_newcomer(id) => self.stranger_speaks(id, message),
            NewcomerEvent::Gone if self.has_newcomer(id) => {
                self.forget_newcomer(id, "somebody at the peer's address has come and gone");
            }
            // It was sent away, or has taken the connection's place.
            NewcomerEvent::Says(_) | NewcomerEvent::Gone => {}
        }
    }

    fn newcomer_connected(&mut self, id: NodeId, challenge: Challenge) {
        let known = self.config.options.authentication.clone().filter(|_| !seeded!(self, YieldsToStrangers));
        let now = self.now;
        let Some(peer) = self.peer_mut(id) else { return self.act_on_newcomer(id, NewcomerAct::Close) };
        match known {
            Some(known) if peer.link_up => {
                let (proving, message) = Proving::begin(known, challenge, now);
                peer.proving = Some(proving);
                self.send_to_stranger(id, message);
            }
            // What is there has proved nothing either.
            _ => {
                self.peer_gone(id, ConnectionState::BrokenPipe, CONNECTED_ANEW.into());
                if !self.is_connecting(id) {
                    return self.act_on_newcomer(id, NewcomerAct::Close);
                }
                self.act_on_newcomer(id, NewcomerAct::Admit);
                self.peer_connected(id, challenge);
            }
        }
    }

    /// It has proved who it is: the connection that stands is no more.
    pub(super) fn give_way_to_newcomer(&mut self, id: NodeId) {
        if self.has_newcomer(id) {
            self.peer_gone(id, ConnectionState::BrokenPipe, CONNECTED_ANEW.into());
        }
    }

    /// The connection is no more: whoever is about to prove who it is does so in its place.
    pub(super) fn let_newcomer_take_over(&mut self, id: NodeId) {
        if self.peer(id).is_none_or(|peer| peer.proving.is_none()) {
            return;
        }
        if self.is_connecting(id) {
            return self.act_on_newcomer(id, NewcomerAct::Admit);
        }
        self.dismiss_newcomer(id, "the peer is not wanted now");
    }

    /// The connection stays.
    pub(super) fn dismiss_newcomer(&mut self, id: NodeId, reason: &str) {
        self.act_on_newcomer(id, NewcomerAct::Close);
        self.forget_newcomer(id, &format!("sent somebody at the peer's address away: {reason}"));
    }

    fn forget_newcomer(&mut self, id: NodeId, what: &str) {
        if let Some(peer) = self.peer_mut(id) {
            peer.proving = None;
            self.note(Some(id), Level::Warn, what);
        }
    }

    /// Somebody wants the place of the connection that stands.
    pub(super) fn has_newcomer(&self, id: NodeId) -> bool {
        self.peer(id).is_some_and(|peer| peer.link_up && peer.proving.is_some())
    }

    fn is_connecting(&self, id: NodeId) -> bool {
        self.peer(id).is_some_and(|peer| peer.connection == ConnectionState::Connecting)
    }

    pub(super) fn act_on_newcomer(&mut self, peer: NodeId, act: NewcomerAct) {
        self.outputs.push_back(Output::Newcomer { peer, act });
    }
}
