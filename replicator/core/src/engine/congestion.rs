//! Congestion: a peer that cannot keep up makes writes wait, or is left behind.
//!
//! What a peer was sent and has not confirmed is bounded in bytes, so that a slow link costs bounded memory on both
//! sides. With `on-congestion block` writes wait at that bound. With `pull-ahead` (protocol A) this node asks the peer,
//! on the stream that is not congested, to note that its data grows old. Once that is on the peer's disk, so that it may
//! not be promoted, this node is Ahead: it marks writes in the bitmap instead of sending them, and writes of a new
//! generation. What the peer was sent before it still applies in order, and nothing after: it holds a causal cut. When
//! it has confirmed all of that, a handshake on the same connection decides, as after any parting, that it is the target
//! of a resync.

use super::peer::Peer;
use super::persist::Then;
use super::{Engine, MAX_TRANSFER_LOG};
use crate::config::{OnCongestion, Protocol};
use crate::io::Level;
use crate::seeded;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{NodeId, Timestamp};
use crate::wire::Message;

/// The question whether a peer knows that its data grows old.
#[derive(Clone, Copy, Debug)]
pub(super) struct PullingAhead {
    id: u64,
    pub(super) asked_at: Timestamp,
}

impl Peer {
    /// True if another write would take it over what it may be sent unconfirmed. One larger write is let through alone.
    pub(super) fn is_full_for(&self, bytes: u64, limit_bytes: u64) -> bool {
        let full_of_bytes = self.unconfirmed_bytes > 0 && self.unconfirmed_bytes + bytes > limit_bytes;
        self.replicates() && (full_of_bytes || self.transfer_log.len() >= MAX_TRANSFER_LOG)
    }
}

impl Engine {
    // The Primary.

    /// Before a write of `bytes` is let in: true if it must wait because of a peer that cannot keep up.
    pub(super) fn must_wait_for_peers(&mut self, bytes: u64) -> bool {
        let congested: Vec<NodeId> =
            self.peers.iter().filter(|p| self.is_congested(p, bytes)).map(Peer::id).collect();
        for id in congested {
            match self.config.options.congestion.policy {
                OnCongestion::Block => {}
                OnCongestion::PullAhead => self.ask_to_pull_ahead(id),
                OnCongestion::Disconnect => self.drop_congested(id),
            }
        }
        let limit_bytes = self.config.options.congestion.send_buffer_bytes;
        let full = self.peers.iter().any(|p| p.pulling_ahead.is_some() || p.is_full_for(bytes, limit_bytes));
        if full {
            // Only a barrier lets the peer confirm what it has.
            self.close_epoch_if_begun(false);
        }
        full
    }

    /// Only a peer that could be promoted is worth the trouble: another is behind already.
    fn is_congested(&self, peer: &Peer, bytes: u64) -> bool {
        let options = &self.config.options.congestion;
        let threshold_bytes = match options.fill_bytes {
            0 => options.send_buffer_bytes,
            fill => fill.min(options.send_buffer_bytes),
        };
        let idle = peer.replication == ReplicationState::Established || peer.replication.is_verify();
        let in_sync = idle && peer.disk == DiskState::UpToDate;
        let holds_log =
            !peer.transfer_log.is_empty() && self.disk.log.held_extents() >= usize::from(options.extents);
        self.effective_protocol() == Protocol::A
            && in_sync
            && !peer.in_round
            && (peer.is_full_for(bytes, threshold_bytes) || holds_log)
    }

    fn ask_to_pull_ahead(&mut self, id: NodeId) {
        let (question, asked_at) = (self.key(), self.now);
        let Some(peer) = self.peer_mut(id).filter(|p| p.pulling_ahead.is_none()) else { return };
        peer.pulling_ahead = Some(PullingAhead { id: question, asked_at });
        let round = peer.round;
        self.abort_verify(id);
        self.note(Some(id), Level::Warn, "Congestion-fill threshold reached");
        self.send(id, Message::Behind { id: question, round });
    }

    fn drop_congested(&mut self, id: NodeId) {
        let reason = "Congestion-fill threshold reached: disconnected, as on-congestion asks";
        self.leave_because(id, reason.into());
    }

    /// The peer's disk says that its data is old: from here on it gets no writes.
    pub(super) fn behind_answered(&mut self, id: NodeId, question: u64) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if peer.pulling_ahead.is_none_or(|p| p.id != question) {
            return Ok(());
        }
        // A handshake that is under way counts on what both had.
        if peer.in_round || peer.replication != ReplicationState::Established {
            peer.pulling_ahead = None;
            return Ok(());
        }
        self.close_epoch_if_begun(false);
        if let Some(peer) = self.peer_mut(id) {
            peer.pulling_ahead = None;
        }
        self.set_replication(id, ReplicationState::Ahead);
        self.set_peer_disk(id, DiskState::Outdated);
        // Writes that wait for their range were let in already.
        if !self.writes.is_empty() {
            self.begin_generation_if_alone();
        }
        Ok(())
    }

    /// A peer that has confirmed all that it was sent catches up.
    pub(super) fn catch_up(&mut self) {
        for id in self.peer_ids() {
            let drained = self.peer(id).is_some_and(|p| {
                let confirmed = p.transfer_log.is_empty() && p.barriers.is_empty();
                p.replication == ReplicationState::Ahead && confirmed && !p.in_round
            });
            if drained {
                self.begin_handshake(id);
            }
        }
    }

    /// Without a disk nothing is marked any more: a peer that is behind must not get later writes on top of a gap.
    pub(super) fn part_from_peers_behind(&mut self) {
        for id in self.peer_ids() {
            if self.peer(id).is_some_and(|p| p.replication == ReplicationState::Ahead) {
                let text = "the local disk was lost while the peer was behind";
                self.lose_peer(id, ConnectionState::NetworkFailure, text);
            }
        }
    }

    // The Secondary.

    /// The Primary pulls ahead: that is on disk before it hears of it.
    pub(super) fn behind_received(&mut self, id: NodeId, question: u64, round: u32) -> Result<(), String> {
        if self.role == Role::Primary {
            return Err("the peer pulls ahead, but this node is Primary".into());
        }
        match self.peer_mut(id) {
            // It has overtaken the handshake that it follows, and by which the data here may become good.
            Some(peer) if peer.in_round && peer.round == round => peer.behind_early = Some(question),
            _ => self.note_behind(id, question),
        }
        Ok(())
    }

    /// What came before the handshake that has just ended counts behind it.
    pub(super) fn hear_early_question(&mut self, id: NodeId) {
        if let Some(question) = self.peer_mut(id).and_then(|p| p.behind_early.take()) {
            self.note_behind(id, question);
        }
    }

    fn note_behind(&mut self, id: NodeId, question: u64) {
        let Some(session) = self.peer(id).map(|p| p.session) else { return };
        if seeded!(self, AheadStaysUpToDate) {
            self.send(id, Message::BehindAck { id: question });
            return;
        }
        self.abort_verify(id);
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        metadata.superblock.flags.up_to_date = false;
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
        if self.peer(id).is_some_and(|p| p.replication == ReplicationState::Established) {
            self.set_replication(id, ReplicationState::Behind);
        }
        if let Some(peer) = self.peer_mut(id)
            && peer.behind_question.replace(question).is_none()
        {
            self.disk.persist.request_then(false, Then::Behind(id, session));
        }
    }

    /// The disk says so now. If a handshake has found the data to be good since, there is nothing to answer.
    pub(super) fn behind_noted(&mut self, id: NodeId, session: u32) {
        let still_behind = self.disk.state <= DiskState::Outdated;
        let Some(peer) = self.peer_mut(id).filter(|p| p.session == session && p.link_up) else { return };
        if let Some(question) = peer.behind_question.take()
            && still_behind
        {
            self.send(id, Message::BehindAck { id: question });
        }
    }
}
