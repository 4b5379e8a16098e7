//! Connecting, staying alive, losing a peer.

use super::Engine;
use super::peer::Peer;
use super::peer_reads::PeerReads;
use super::receiver::Burden;
use super::resync::PeerPause;
use crate::config::Terms;
use crate::io::{Event, Level, NewcomerAct, Output};
use crate::parting::{PEER_REFUSES, TERMS_DIFFER};
use crate::settings::Settings;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{NodeId, Timestamp};
use crate::wire::Message;

/// A handshake that takes longer is given up; both sides wait at most for a metadata write.
const HANDSHAKE_TIMEOUT_MS: u64 = 30_000;

impl Engine {
    // Connecting.

    pub(super) fn begin_connecting(&mut self, id: NodeId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.standalone_reason = None;
        }
        self.set_connection(id, ConnectionState::Unconnected);
        if self.peer(id).is_some_and(|p| p.retry_at.is_some()) {
            return;
        }
        self.set_connection(id, ConnectionState::Connecting);
        self.outputs.push_back(Output::Connect(id));
    }

    /// The streams stand, and the peer is who it should be.
    pub(super) fn begin_session(&mut self, id: NodeId) {
        let now = self.now;
        let (terms, settings) = (self.config.options.terms(), self.config.options.settings());
        let Some(peer) = self.peer_mut(id) else { return };
        peer.link_up = true;
        peer.session += 1;
        peer.writes_sent = 0;
        peer.writes_received = 0;
        peer.round = 0;
        peer.in_round = false;
        peer.receiver_stale = true;
        peer.last_received = now;
        peer.ping_sent = None;
        peer.ping_answered = false;
        peer.options_known = false;
        peer.peer_is_tentative = false;
        peer.assumes_clean = false;
        peer.was_measured_again = false;
        let tentative = peer.tentative;
        self.send(id, Message::Options { terms, settings, tentative });
        self.begin_handshake(id);
    }

    pub(super) fn options_received(
        &mut self,
        id: NodeId,
        theirs: Terms,
        settings: &Settings,
        tentative: bool,
    ) -> Result<(), String> {
        let (ours, chosen) = (self.config.options.terms(), self.config.options.settings());
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        peer.options_known = true;
        peer.peer_is_tentative = tentative;
        let must = ours.differences(&theirs);
        let differences = chosen.differences(settings, &peer.config.name);
        peer.differing_options = differences.iter().map(|(_, sentence)| sentence.clone()).collect();
        let (forbidden, unwise): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|(name, _)| must.contains(name));
        for (_, sentence) in unwise {
            let text = format!("{sentence}: {TERMS_DIFFER}");
            self.note(Some(id), Level::Warn, text);
        }
        if let Some(option) = must.first() {
            let sentences: Vec<String> = forbidden.into_iter().map(|(_, sentence)| sentence).collect();
            let text = format!("incompatible {option} settings: {}; {TERMS_DIFFER}", sentences.join(", "));
            // It reads our options before our handshake, and refuses as well.
            self.note_what_peer_makes_of_it(id, DiskState::Outdated, false);
            self.refuse(id, text);
        }
        Ok(())
    }

    // Leaving and refusing.

    /// We will not talk to this peer: tell it why, and stay StandAlone until the administrator says connect.
    pub(super) fn refuse(&mut self, id: NodeId, reason: String) {
        if self.is_tentative(id) {
            return self.end_tentative(id, &format!("Would be refused: {reason}"));
        }
        self.send(id, Message::Refuse { reason: reason.clone() });
        self.stand_alone(id, ConnectionState::Disconnecting, Some(reason));
    }

    pub(super) fn refused_by_peer(&mut self, id: NodeId, reason: &str) -> Result<(), String> {
        if self.take_refusal(id) {
            return Ok(());
        }
        self.stand_alone(id, ConnectionState::TearDown, Some(format!("{PEER_REFUSES}{reason}")));
        Ok(())
    }

    pub(super) fn peer_refused(&mut self, id: NodeId, reason: String) {
        if self.peer(id).is_some_and(|p| p.connection == ConnectionState::Connecting && !p.link_up) {
            self.outputs.push_back(Output::StopConnecting(id));
            self.stand_alone(id, ConnectionState::Disconnecting, Some(reason));
        }
    }

    /// Closes the connection, if there is one, for good.
    pub(super) fn stand_alone(&mut self, id: NodeId, how: ConnectionState, reason: Option<String>) {
        let Some(peer) = self.peer_mut(id) else { return };
        let (had_link, was_proving) = (std::mem::take(&mut peer.link_up), peer.proving.take().is_some());
        (peer.discard_my_data, peer.tentative) = (false, false);
        peer.retry_at = None;
        peer.standalone_reason.clone_from(&reason);
        if had_link || was_proving {
            self.outputs.push_back(Output::ClosePeer(id));
        }
        if had_link && was_proving {
            self.act_on_newcomer(id, NewcomerAct::Close);
        }
        if let Some(reason) = reason {
            self.note(Some(id), Level::Error, reason);
        }
        self.set_connection(id, how);
        self.set_connection(id, ConnectionState::StandAlone);
        self.forget_connection(id);
        self.end_question_if_answered();
    }

    pub(super) fn goodbye_received(&mut self, id: NodeId, outdated: bool) -> Result<(), String> {
        if outdated {
            self.note_outdated_peer(id);
        }
        self.lose_peer(id, ConnectionState::TearDown, "the peer disconnects");
        Ok(())
    }

    /// The last word on a connection that is given up on purpose. A Primary has clients, however old its data: its peer
    /// must not take its place as if it were out of the way.
    pub(super) fn say_goodbye(&mut self, id: NodeId) {
        let on_record = self.disk.metadata.as_ref().is_some_and(|m| !m.superblock.flags.up_to_date);
        let outdated = on_record && self.disk.persist.is_idle() && self.role != Role::Primary;
        self.send(id, Message::Goodbye { outdated });
    }

    // Losing a peer.

    pub(super) fn peer_gone(&mut self, id: NodeId, how: ConnectionState, reason: String) {
        match self.peer_mut(id).filter(|p| p.link_up) {
            Some(peer) => {
                peer.link_up = false;
                self.connection_lost(id, how, &reason);
            }
            None => self.stranger_gone(id, how, &reason),
        }
    }

    pub(super) fn protocol_error(&mut self, id: NodeId, violation: &str) {
        self.lose_peer(id, ConnectionState::ProtocolError, &format!("protocol error: {violation}"));
    }

    /// Closes the connection from our side and tries again.
    pub(super) fn lose_peer(&mut self, id: NodeId, how: ConnectionState, reason: &str) {
        if let Some(peer) = self.peer_mut(id).filter(|p| p.link_up) {
            peer.link_up = false;
            self.outputs.push_back(Output::ClosePeer(id));
            self.connection_lost(id, how, reason);
        }
    }

    fn connection_lost(&mut self, id: NodeId, how: ConnectionState, reason: &str) {
        self.note(Some(id), Level::Warn, reason);
        self.set_connection(id, how);
        let refused = self.take_refusal(id);
        self.forget_connection(id);
        if !refused {
            self.begin_connecting(id);
        }
        self.let_newcomer_take_over(id);
    }

    /// Everything that depended on the connection goes on without it.
    fn forget_connection(&mut self, id: NodeId) {
        self.fence_if_lost(id);
        let primary = self.role == Role::Primary;
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.replication != ReplicationState::Off {
            peer.parted_as_primary = primary;
        }
        peer.in_round = false;
        peer.round_again = false;
        peer.our_handshake = None;
        peer.their_handshake = None;
        peer.farewell = None;
        peer.stalled_until = None;
        peer.pause = PeerPause::default();
        peer.behind_question = None;
        peer.behind_early = None;
        peer.gives_up = false;
        peer.failed_by_ack = false;
        peer.ping_sent = None;
        // Never acknowledged, so nobody counts on them.
        peer.deferred.clear();
        peer.deferred_held = Burden::default();
        peer.reads = PeerReads::default();
        self.set_replication(id, ReplicationState::Off);
        self.set_peer_role(id, Role::Unknown);
        self.set_peer_disk(id, self.disk_of_absent_peer(id));
        self.abort_resync(id);
        self.abandon_transfer_log(id);
        if !self.peers.iter().any(|p| p.link_up) {
            self.end_negotiation(DiskState::UpToDate);
        }
    }

    // Staying alive.

    /// When [`crate::Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Timestamp> {
        let checks = self.peers.iter().filter(|p| p.link_up).filter_map(|p| self.next_check(p));
        checks
            .map(|(at, _)| at)
            .chain(self.proving_deadline())
            .chain(self.promotion_deadline())
            .chain(self.retry_deadline())
            .chain(self.step_down_deadline())
            .chain(self.resync_deadline())
            .chain(self.disk_deadline())
            .min()
    }

    pub(super) fn check_liveness(&mut self) {
        self.check_proofs();
        for id in self.peer_ids() {
            let due = self
                .peer(id)
                .filter(|p| p.link_up)
                .and_then(|p| self.next_check(p))
                .filter(|(at, _)| *at <= self.now);
            match due {
                Some((_, Check::SendPing)) => self.ping(id),
                Some((_, Check::PingTimeout)) => {
                    self.lose_peer(id, ConnectionState::NetworkFailure, "PingAck did not arrive in time.");
                }
                Some((_, Check::RequestTimeout)) => {
                    let (ko, timeout) = (self.config.options.ko_count, self.config.options.timeout_ms);
                    let text = format!(
                        "Remote failed to finish a request within {}ms > ko-count ({ko}) * timeout ({} * 0.1s)",
                        u64::from(ko) * timeout,
                        timeout / 100
                    );
                    self.lose_peer(id, ConnectionState::Timeout, &text);
                }
                Some((_, Check::HandshakeTimeout)) => {
                    self.lose_peer(id, ConnectionState::Timeout, "the handshake did not end in time");
                }
                None => {}
            }
        }
    }

    /// The next thing that falls due on a connection if nothing is heard.
    fn next_check(&self, peer: &Peer) -> Option<(Timestamp, Check)> {
        let ping = match peer.ping_sent {
            Some(sent) => (sent.plus_ms(self.config.options.ping_timeout_ms), Check::PingTimeout),
            None => (peer.last_received.plus_ms(self.config.options.ping_interval_ms), Check::SendPing),
        };
        let patience_ms = self.config.options.timeout_ms * u64::from(self.config.options.ko_count);
        let unmarked = peer.is_unmarked_target() && self.waits_for_target_mark();
        let oldest = peer
            .oldest_unanswered()
            .into_iter()
            .chain(peer.barriers.front().map(|b| b.sent_at))
            .chain(self.oldest_read_of(peer.id()))
            .chain(self.oldest_ask_of(peer))
            .chain(unmarked.then_some(peer.target_since))
            .min();
        let request =
            oldest.filter(|_| patience_ms > 0).map(|t| (t.plus_ms(patience_ms), Check::RequestTimeout));
        let handshake = peer
            .is_negotiating()
            .then(|| (peer.round_since.plus_ms(HANDSHAKE_TIMEOUT_MS), Check::HandshakeTimeout));
        let pulling = peer.pulling_ahead.filter(|_| patience_ms > 0);
        let pulling = pulling.map(|p| (p.asked_at.plus_ms(patience_ms), Check::RequestTimeout));
        [Some(ping), request, handshake, pulling].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self, id: NodeId) {
        let now = self.now;
        if let Some(peer) = self.peer_mut(id)
            && peer.ping_sent.is_none()
        {
            peer.ping_sent = Some(now);
            self.send(id, Message::Ping);
        }
    }

    pub(super) fn ping_answered(&mut self, id: NodeId) -> Result<(), String> {
        if let Some(peer) = self.peer_mut(id) {
            peer.ping_sent = None;
            peer.ping_answered = true;
        }
        Ok(())
    }

    // States, with their events.

    pub(super) fn set_connection(&mut self, id: NodeId, new: ConnectionState) {
        let Some(peer) = self.peer_mut(id) else { return };
        let old = std::mem::replace(&mut peer.connection, new);
        if old != new {
            self.event(Event::Connection { peer: id, old, new });
        }
    }

    pub(super) fn set_replication(&mut self, id: NodeId, new: ReplicationState) {
        let Some(peer) = self.peer_mut(id) else { return };
        let old = std::mem::replace(&mut peer.replication, new);
        if old != new {
            self.event(Event::Replication { peer: id, old, new });
        }
    }

    pub(super) fn set_peer_role(&mut self, id: NodeId, new: Role) {
        let Some(peer) = self.peer_mut(id) else { return };
        let old = std::mem::replace(&mut peer.role, new);
        if old != new {
            self.event(Event::PeerRole { peer: id, old, new });
        }
    }

    pub(super) fn set_peer_disk(&mut self, id: NodeId, new: DiskState) {
        let Some(peer) = self.peer_mut(id) else { return };
        let old = std::mem::replace(&mut peer.disk, new);
        if old != new {
            self.event(Event::PeerDisk { peer: id, old, new });
        }
    }
}

enum Check {
    SendPing,
    PingTimeout,
    RequestTimeout,
    HandshakeTimeout,
}
