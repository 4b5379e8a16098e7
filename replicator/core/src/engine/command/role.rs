//! Promotion and demotion.

use super::{Asked, CurrentCommand, Promotion, Stage};
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::engine::resize::Size;
use crate::engine::{Engine, MAX_OPENERS_NAMED};
use crate::io::{ClientError, Level};
use crate::refusal::StateChangeRefusal;
use crate::seeded;
use crate::state::{DiskState, Role};
use crate::units::{CommandId, NodeId, Timestamp};
use crate::wire::Message;

/// A peer that answers heartbeats answers this at once, unless its data stream is stuck; DRBD's twopc-timeout.
const PROMOTE_REPLY_TIMEOUT_MS: u64 = 30_000;

impl Engine {
    // Primary.

    pub(super) fn start_promotion(&mut self, id: CommandId, force: bool) {
        if self.role == Role::Primary {
            return self.finish_command(id, Ok(()));
        }
        // A peer that looks like a Primary may have died unnoticed.
        for peer in self.peer_ids() {
            if let Some(p) = self.peer_mut(peer).filter(|p| p.link_up) {
                p.ping_answered = false;
                self.ping(peer);
            }
        }
        let promotion = Promotion { force, asked: None, refused: false, fenced: false };
        self.begin(id, Stage::Promoting(promotion));
    }

    pub(super) fn progress_promotion(&mut self, id: CommandId) {
        let handshaking = self.peers.iter().any(|p| p.is_negotiating());
        let applying = self.peers.iter().any(|p| !p.link_up && !p.receiver.is_drained());
        if handshaking || applying || !self.disk.persist.is_idle() {
            return;
        }
        let primary = self.peers.iter().find(|p| p.is_connected() && p.role == Role::Primary);
        if let Some(peer) = primary {
            // Alive, or on its way to being found dead.
            if peer.ping_answered {
                let text = format!("{} is Primary", peer.config.name);
                self.refuse_command(id, StateChangeRefusal::TwoPrimaries, vec![text]);
            } else {
                let peer = peer.id();
                self.ping(peer);
            }
            return;
        }
        let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
        else {
            return;
        };
        if promotion.refused {
            return self.refuse_command(id, StateChangeRefusal::PeerRefused, Vec::new());
        }
        let force = promotion.force;
        if !self.absent_peers_are_fenced(id, force) {
            return;
        }
        let good_then = self.disk.state == DiskState::UpToDate || force && self.disk.is_usable();
        if !self.has_quorum_with(good_then) && !seeded!(self, PromotesWithoutQuorum) {
            let detail = "too few nodes can be reached, or too few of them are UpToDate: see 'quorum' and \
                          'quorum-minimum-redundancy' in the configuration; --force does not help";
            return self.refuse_command(id, StateChangeRefusal::NoQuorum, vec![detail.into()]);
        }
        let good_data = self.disk.state == DiskState::UpToDate;
        let better_peer = self.peers.iter().find(|p| p.has_good_data()).map(|p| p.config.name.clone());
        let forced = force && better_peer.is_none() && self.disk.is_usable();
        if !good_data && !forced {
            let mut detail = vec![format!("the local disk is {}", self.disk.state)];
            detail.extend(
                better_peer.map(|name| format!("{name} is UpToDate: wait for the resync, or promote it")),
            );
            return self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, detail);
        }
        if self.all_peers_agree() {
            self.become_primary(id, !good_data);
        }
    }

    /// With fencing, an absent peer must be known to be outdated: if it is not, fence-peer is run, once. False as long as
    /// that is under way, and if the promotion was refused because of it.
    fn absent_peers_are_fenced(&mut self, id: CommandId, force: bool) -> bool {
        let at_large: Vec<NodeId> =
            self.peers.iter().filter(|p| self.is_at_large(p)).map(|p| p.id()).collect();
        let fit = self.disk.state >= DiskState::Consistent || force && self.disk.is_usable();
        if !self.fences() || at_large.is_empty() || !fit {
            return true;
        }
        if seeded!(self, PromotesConsistentWithoutFencing) {
            self.set_disk(DiskState::UpToDate);
            return true;
        }
        let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
        else {
            return false;
        };
        if !std::mem::replace(&mut promotion.fenced, true) {
            for peer in &at_large {
                self.want_fence(*peer);
                self.run_fence_peer(*peer);
            }
        }
        if at_large.iter().any(|peer| self.peer(*peer).is_some_and(|p| p.fence.is_under_way())) {
            return false;
        }
        if force && !self.has_quorum() {
            // Which is not had by force.
            return true;
        }
        if force {
            self.note(None, Level::Warn, "Forced into split brain situation!");
            at_large.into_iter().for_each(|peer| self.note_outdated_peer(peer));
            return true;
        }
        let (refusal, what) = match self.disk.state {
            DiskState::UpToDate => (StateChangeRefusal::PeerNotOutdated, "is UpToDate"),
            _ => (StateChangeRefusal::NoUpToDateDisk, "may be old"),
        };
        let name = |peer: &NodeId| self.peer(*peer).map_or(String::new(), |p| p.config.name.clone());
        let names: Vec<String> = at_large.iter().map(name).collect();
        let detail = format!(
            "the local disk {what}, and fence-peer has not made sure that {} does not go on: see the log; --force promotes \
             anyway, and risks a split brain",
            names.join(", ")
        );
        self.refuse_command(id, refusal, vec![detail]);
        false
    }

    /// Asks every connected peer once; true when all have said yes.
    fn all_peers_agree(&mut self) -> bool {
        let connected: Vec<NodeId> = self.peers.iter().filter(|p| p.is_connected()).map(|p| p.id()).collect();
        let (id, at) = (self.key(), self.now);
        let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
        else {
            return false;
        };
        match promotion.asked.as_mut() {
            None => {
                promotion.asked = Some(Asked { id, at, waiting: connected.clone() });
                for peer in &connected {
                    self.send(*peer, Message::PromoteRequest { id });
                }
                connected.is_empty()
            }
            Some(asked) => {
                asked.waiting.retain(|p| connected.contains(p));
                asked.waiting.is_empty()
            }
        }
    }

    /// When a promotion gives up waiting for the peers.
    pub(in crate::engine) fn promotion_deadline(&self) -> Option<Timestamp> {
        match &self.current_command.as_ref()?.stage {
            Stage::Promoting(Promotion { asked: Some(asked), .. }) => {
                Some(asked.at.plus_ms(PROMOTE_REPLY_TIMEOUT_MS))
            }
            _ => None,
        }
    }

    pub(in crate::engine) fn check_promotion_time(&mut self) {
        if self.promotion_deadline().is_some_and(|at| at <= self.now)
            && let Some(id) = self.current_command.as_ref().map(|c| c.id)
        {
            let text =
                "a peer that is alive has not answered whether this node may become Primary".to_owned();
            self.refuse_command(id, StateChangeRefusal::Timeout, vec![text]);
        }
    }

    /// Two that ask at the same time: the lower node id wins.
    pub(in crate::engine) fn promote_requested(&mut self, id: NodeId, question: u64) -> Result<(), String> {
        let promoting = match self.current_command.as_ref().map(|c| &c.stage) {
            Some(Stage::Promoting(p)) => match p.asked.as_ref() {
                Some(asked) => asked.waiting.is_empty() || self.config.node < id,
                None => false,
            },
            Some(Stage::Forcing) => true,
            _ => false,
        };
        let granted = self.role != Role::Primary && !promoting;

        self.send(id, Message::PromoteReply { id: question, granted });
        Ok(())
    }

    pub(in crate::engine) fn promote_answered(
        &mut self,
        id: NodeId,
        question: u64,
        granted: bool,
    ) -> Result<(), String> {
        if let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
            && let Some(asked) = promotion.asked.as_mut().filter(|a| a.id == question)
        {
            asked.waiting.retain(|p| *p != id);
            promotion.refused |= !granted;
        }
        Ok(())
    }

    /// A force is on disk first: what it makes of the data, and the generation that begins with it.
    fn become_primary(&mut self, id: CommandId, convert: bool) {
        let crashed = self.disk.metadata.as_ref().is_some_and(|m| m.superblock.flags.crashed_primary);
        if !convert && crashed && self.peers.iter().any(|p| !p.replicates()) {
            // The administrator decides between two copies that look alike: for this one, from now on.
            self.begin_reign();
            self.begin(id, Stage::Forcing);
            self.disk.persist.request_then(false, Then::Promoted(id));
            return;
        }
        if !convert {
            return self.promoted(id);
        }

        self.note(None, Level::Warn, "Forced to consider local data as UpToDate!");
        self.set_size(&Size { bytes: self.size_bytes(), layout: self.layout().clone() });
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let flags = &mut metadata.superblock.flags;
            (flags.consistent, flags.up_to_date, flags.crashed_primary) = (true, true, false);
            metadata.superblock.peers.iter_mut().for_each(|slot| slot.gave_up = false);
        }
        self.set_disk(DiskState::UpToDate);
        self.begin_generation();
        self.begin(id, Stage::Forcing);
        let version = self.disk.persist.request_then(false, Then::Promoted(id));
        self.end_undo_log(version);
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
    }

    pub(in crate::engine) fn promoted(&mut self, id: CommandId) {
        self.set_role(Role::Primary);
        for peer in self.peer_ids() {
            if self.peer(peer).is_some_and(|p| self.is_at_large(p)) {
                // It was lost while the promotion was written down.
                self.fence_as_primary(peer);
            }
        }
        self.finish_command(id, Ok(()));
    }

    // Secondary.

    pub(super) fn start_demotion(&mut self, id: CommandId) {
        if self.role != Role::Primary {
            return self.finish_command(id, Ok(()));
        }
        if !self.openers.is_empty() {
            let mut detail: Vec<String> =
                self.openers.iter().take(MAX_OPENERS_NAMED).map(|o| format!("opened by {o}")).collect();
            if self.openers.len() > MAX_OPENERS_NAMED {
                detail.push(format!("and {} more", self.openers.len() - MAX_OPENERS_NAMED));
            }
            return self.refuse_command(id, StateChangeRefusal::HeldOpen, detail);
        }
        self.begin(id, Stage::Demoting);
    }

    /// New requests are refused from here on.
    pub(in crate::engine) fn is_demoting(&self) -> bool {
        let stage = self.current_command.as_ref().map(|c| &c.stage);
        self.role == Role::Primary && matches!(stage, Some(Stage::Demoting | Stage::Demoted))
    }

    /// Everything written is on every disk, or marked; then the disk says that nobody is Primary.
    pub(super) fn progress_demotion(&mut self, id: CommandId) {
        self.fail_what_was_put_back(ClientError::NotPrimary);
        for (request, _) in self.take_requests() {
            self.fail_client(request, ClientError::NotPrimary);
        }
        if !self.clients_are_idle() {
            return;
        }
        self.close_epoch_if_begun(true);
        // A peer that was asked to fall behind must not find this node Secondary, and itself Primary, when it hears of it.
        let open =
            |p: &Peer| !p.transfer_log.is_empty() || !p.barriers.is_empty() || p.pulling_ahead.is_some();
        if self.peers.iter().any(open) {
            return;
        }
        let Some(metadata) = self.disk.metadata.as_mut() else { return self.demoted(id) };
        metadata.superblock.flags.primary = false;
        self.close_log();
        self.begin(id, Stage::Demoted);
        let with_bitmap = !seeded!(self, DemotesWithoutBitmap);
        self.disk.persist.request_then(with_bitmap, Then::Demoted(id));
    }

    pub(in crate::engine) fn demoted(&mut self, id: CommandId) {
        self.set_role(Role::Secondary);
        self.release_held();
        self.finish_command(id, Ok(()));
    }
}
