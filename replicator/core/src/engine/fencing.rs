//! Fencing (docs/guarantees.md): a node goes on without a peer only once that one is known not to.
//!
//! A Primary that loses its peer runs fence-peer; with resource-and-stonith, requests are frozen until it has succeeded
//! or the peer is back and has noted that it lacks data. A Secondary without its peer is only Consistent, and is promoted
//! once fence-peer has succeeded.
//!
//! What is known of an absent peer is on disk, and is forgotten there before the next handshake: from then on it may become
//! UpToDate. That it was outdated is noted again when the connection ends if it cannot have: every handshake that it was
//! sent has ended here, in a refusal, which both nodes come to alike, or without a disk on one side; and it has never called
//! its data better than Outdated.

use super::Engine;
use super::peer::Peer;
use crate::config::Fencing;
use crate::handler::{Handler, HandlerOutcome};
use crate::io::Level;
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{HandlerId, NodeId};

/// What is done about a peer that may go on by itself.
#[derive(Clone, Default, Debug)]
pub(super) struct Fence {
    /// It has our handshake: it may be UpToDate since.
    met: bool,
    /// It was known to be outdated before that.
    was_outdated: bool,
    /// It has a handshake of ours, and what it makes of that is not known.
    weighs: bool,
    /// On this connection it may have become, or has said that it is, better than Outdated.
    may_have_risen: bool,
    /// Counts the handshakes, so that outcomes of older fencing are told apart.
    meetings: u64,
    /// fence-peer is to be run.
    wanted: bool,
    /// fence-peer runs; how often the peer had been met then.
    running: Option<(HandlerId, u64)>,
    /// Requests are frozen because of it.
    freezes: bool,
    /// It was lost while this node was Primary, and has not come so far since that it may be counted on.
    unsettled: bool,
    /// unfence-peer runs: fence-peer waits, lest what it does is undone.
    unfencing: Option<HandlerId>,
    /// unfence-peer was run on this connection.
    unfenced: bool,
}

impl Fence {
    /// It was lost under a Primary, and what it lacks since is not noted on its disk.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// The peer is being met, and was known to be outdated before that.
    pub(super) fn is_met_as_outdated(&self, link_up: bool) -> bool {
        link_up && self.was_outdated
    }

    /// fence-peer runs, or will.
    pub(super) fn is_under_way(&self) -> bool {
        self.wanted || self.running.is_some()
    }

    /// The connection ends: the peer was known to be outdated before, and still is.
    fn take_outdated(&mut self, only_asked: bool) -> bool {
        let weighs = std::mem::take(&mut self.weighs);
        let may_have_risen = std::mem::take(&mut self.may_have_risen) || weighs;
        std::mem::take(&mut self.was_outdated) && (only_asked || !may_have_risen)
    }
}

impl Engine {
    pub(super) fn fences(&self) -> bool {
        self.config.options.fencing != Fencing::DontCare
    }

    /// Clients' requests wait because a lost peer has to be fenced.
    pub(super) fn waits_for_fencing(&self) -> bool {
        self.peers.iter().any(|p| p.fence.freezes)
    }

    /// Clients' requests wait for what becomes of a lost peer.
    pub(super) fn is_frozen(&self) -> bool {
        self.waits_for_fencing() || self.waits_for_quorum()
    }

    /// Clients' requests wait.
    pub(super) fn is_suspended(&self) -> bool {
        self.user_suspends || self.is_frozen() && !seeded!(self, WritesWhileFrozen) || self.waits_for_data()
    }

    /// An absent peer may have newer data, and nothing is known of it.
    pub(super) fn may_be_superseded(&self) -> bool {
        self.fences() && self.peers.iter().any(|p| self.is_at_large(p))
    }

    /// Not connected, and not known to be outdated.
    pub(super) fn is_at_large(&self, peer: &Peer) -> bool {
        !peer.is_connected() && !self.slot(peer.id()).is_some_and(|s| s.outdated)
    }

    // Meeting and losing a peer.

    /// What is known of a peer is forgotten, on disk too, before it is told anything that may make it UpToDate.
    pub(super) fn is_ready_to_meet(&mut self, id: NodeId) -> bool {
        if self.is_tentative(id) {
            // Nothing will come of it.
            return true;
        }
        let keep = seeded!(self, RemembersOutdatedPeer);
        if let Some(slot) = self.slot_mut(id)
            && !keep
            && std::mem::take(&mut slot.outdated)
        {
            self.disk.persist.request(false);
            self.has_changed = true;
            if let Some(peer) = self.peer_mut(id) {
                peer.fence.was_outdated = !peer.is_connected() || peer.disk <= DiskState::Outdated;
            }
            return false;
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.fence.met = true;
            peer.fence.weighs = true;
            peer.fence.meetings += 1;
            peer.fence.wanted = false;
        }
        true
    }

    /// A handshake has ended: the peer says that its data is worth so much, and may make more of it.
    pub(super) fn note_what_peer_makes_of_it(&mut self, id: NodeId, worth: DiskState, rises: bool) {
        if let Some(peer) = self.peer_mut(id) {
            peer.fence.weighs = false;
            peer.fence.may_have_risen |= rises || worth > DiskState::Outdated;
        }
    }

    /// The peer is gone, and with what it has been told it may go on by itself. That it was the target of a resync proves
    /// nothing: it may be complete.
    pub(super) fn fence_if_lost(&mut self, id: NodeId) {
        let primary = self.role == Role::Primary;
        let believe = seeded!(self, BelievesThatPeerStaysOutdated);
        let Some(peer) = self.peer_mut(id) else { return };
        peer.fence.unsettled = primary;
        let met = std::mem::take(&mut peer.fence.met);
        let only_asked = peer.peer_is_tentative;
        if peer.fence.take_outdated(only_asked || believe) {
            return self.note_outdated_peer(id);
        }
        if only_asked {
            return;
        }
        peer.fence.unfenced = false;
        if met {
            self.fence_as_primary(id);
        }
    }

    /// A Primary with good data goes on without this peer: it has to be fenced, unless it is known to be outdated.
    pub(super) fn fence_as_primary(&mut self, id: NodeId) {
        let goes_on = self.role == Role::Primary && self.disk.state >= DiskState::Consistent;
        let freezes = self.config.options.fencing == Fencing::ResourceAndStonith;
        if goes_on && self.fences() && self.slot(id).is_some_and(|s| !s.outdated) {
            self.want_fence(id);
            if let Some(peer) = self.peer_mut(id) {
                peer.fence.freezes |= freezes;
            }
        }
    }

    /// fence-peer shall be run once the peer cannot be met.
    pub(super) fn want_fence(&mut self, id: NodeId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.fence.wanted = true;
        }
    }

    /// The role is given up, or the administrator lets requests go on: nothing waits for fencing any more.
    pub(super) fn forget_fences(&mut self) {
        let primary = self.role == Role::Primary;
        for peer in &mut self.peers {
            (peer.fence.wanted, peer.fence.freezes) = (false, false);
            peer.fence.unsettled &= primary;
        }
    }

    /// The peer's disk says that its data is old, or it is dead.
    pub(super) fn note_outdated_peer(&mut self, id: NodeId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.outdated = true;
            self.disk.persist.request(false);
        }
        if let Some(peer) = self.peer_mut(id) {
            (peer.fence.wanted, peer.fence.freezes) = (false, false);
        }
        if self.peer(id).is_some_and(|p| !p.is_connected()) {
            self.set_peer_disk(id, self.disk_of_absent_peer(id));
        }
    }

    /// What is shown of a peer that is not connected.
    pub(super) fn disk_of_absent_peer(&self, id: NodeId) -> DiskState {
        if self.slot(id).is_some_and(|s| s.outdated) { DiskState::Outdated } else { DiskState::DUnknown }
    }

    // What follows from the states.

    /// Runs what is to be run, thaws what may thaw, and doubts what is to be doubted.
    pub(super) fn progress_fencing(&mut self) {
        for id in self.peer_ids() {
            self.run_fence_peer(id);
            self.run_unfence_peer(id);
            // Without a disk there is nothing that could complete here alone.
            if (self.is_settled_with(id) || !self.has_good_disk())
                && let Some(peer) = self.peer_mut(id)
            {
                peer.fence.freezes = false;
                peer.fence.unsettled = false;
            }
            if let Some(peer) = self.peer_mut(id).filter(|p| p.is_connected() && p.lost_disk()) {
                // It takes no writes: a generation begins without it.
                peer.fence.unsettled = false;
            }
        }
        self.doubt_own_data();
        if !self.is_frozen() && !self.lacks_quorum() {
            self.thaw();
        }
    }

    /// What was frozen completes; without the peer, in a new generation.
    fn thaw(&mut self) {
        if std::mem::take(&mut self.generation_deferred) {
            self.begin_generation_if_alone();
        }
        self.release_held_completions();
    }

    pub(super) fn run_fence_peer(&mut self, id: NodeId) {
        let due = |p: &&mut Peer| {
            p.fence.wanted && p.fence.running.is_none() && p.fence.unfencing.is_none() && !p.link_up
        };
        let Some(peer) = self.peer_mut(id).filter(due) else { return };
        peer.fence.wanted = false;
        let meetings = peer.fence.meetings;
        let run = self.run_handler(Handler::FencePeer, Some(id));
        match (run, self.peer_mut(id)) {
            (Some(run), Some(peer)) => peer.fence.running = Some((run, meetings)),
            _ => self.note(
                Some(id),
                Level::Error,
                "no fence-peer handler is configured: the peer is not fenced",
            ),
        }
    }

    /// A peer that was lost is back, and gets all writes or has noted on disk that it lacks some.
    fn is_settled_with(&self, id: NodeId) -> bool {
        self.peer(id).filter(|p| p.is_connected()).is_some_and(|p| match p.replication {
            ReplicationState::Established => p.has_good_data(),
            source if source.is_source() => p.target_is_marked,
            _ => false,
        })
    }

    /// With fencing, a Secondary that is alone does not know whether its data is the newest. Once all peers are out of the way
    /// it is; and if a Primary without a disk has found here what its clients have seen.
    fn doubt_own_data(&mut self) {
        if self.role == Role::Primary || self.is_forcing() {
            return;
        }
        let supported = self.peers.iter().any(|p| p.has_good_data());
        let out_of_the_way = self.peers.iter().all(|p| !p.link_up);
        let needed = |p: &Peer| p.is_connected() && !p.in_round && p.role == Role::Primary && p.lost_disk();
        match (self.disk.state, self.may_be_superseded()) {
            (DiskState::UpToDate, true) if !supported => self.set_disk(DiskState::Consistent),
            (DiskState::Consistent, false) if out_of_the_way || self.peers.iter().any(needed) => {
                self.set_disk(DiskState::UpToDate);
            }
            _ => {}
        }
    }

    // The handlers' words.

    /// DRBD's exit codes of fence-peer.
    pub(super) fn fence_peer_done(&mut self, id: NodeId, run: HandlerId, outcome: HandlerOutcome) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some((_, meetings)) = peer.fence.running.take_if(|(running, _)| *running == run) else { return };
        if peer.link_up || peer.fence.meetings != meetings {
            // It is there again, or was; but what was done must be undone.
            peer.fence.wanted |= peer.link_up && !peer.fence.met;
            if matches!(outcome, HandlerOutcome::Exited(3..=5 | 7)) {
                self.remember_that_peer_was_fenced(id);
            }
            return self.note(
                Some(id),
                Level::Warn,
                "ignored the outcome of fence-peer: the connection came back",
            );
        }
        let up_to_date = self.disk.state == DiskState::UpToDate;
        let lenient = match self.role {
            Role::Primary => seeded!(self, ThawsOnFailedFencing),
            _ => seeded!(self, PromotesOnFailedFencing),
        };
        match outcome {
            HandlerOutcome::Exited(3) => {
                self.peer_is_fenced(id, DiskState::Inconsistent, "is inconsistent or worse")
            }
            HandlerOutcome::Exited(4) => self.peer_is_fenced(id, DiskState::Outdated, "was outdated"),
            HandlerOutcome::Exited(5) if up_to_date => {
                self.peer_is_fenced(id, DiskState::Outdated, "is unreachable, assumed to be dead");
            }
            HandlerOutcome::Exited(5) => {
                self.note(Some(id), Level::Warn, "peer unreachable, doing nothing since disk != UpToDate");
            }
            HandlerOutcome::Exited(6) => self.peer_is_primary(id),
            HandlerOutcome::Exited(7) => self.peer_is_fenced(id, DiskState::Outdated, "was stonithed"),
            _ if lenient => self.peer_is_fenced(id, DiskState::Outdated, "is as it is"),
            HandlerOutcome::Exited(code) => {
                self.note(Some(id), Level::Error, format!("fence-peer helper broken, returned {code}"));
            }
            HandlerOutcome::NotStarted | HandlerOutcome::TimedOut => {
                self.note(Some(id), Level::Error, format!("fence-peer helper broken, it {outcome}"));
            }
        }
    }

    fn peer_is_fenced(&mut self, id: NodeId, disk: DiskState, what: &str) {
        self.note(Some(id), Level::Info, format!("fence-peer: the peer {what}"));
        self.remember_that_peer_was_fenced(id);
        self.note_outdated_peer(id);
        self.set_peer_disk(id, disk);
    }

    fn remember_that_peer_was_fenced(&mut self, id: NodeId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.fenced = true;
            self.disk.persist.request(false);
        }
    }

    fn peer_is_primary(&mut self, id: NodeId) {
        if self.role == Role::Primary {
            return self.note(
                Some(id),
                Level::Error,
                "fence-peer: the peer is Primary, and so is this node!",
            );
        }
        self.note(Some(id), Level::Warn, "Peer is primary, outdating myself.");
        self.outdate_now();
    }

    /// The data here is old, for good.
    pub(super) fn outdate_now(&mut self) {
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        metadata.superblock.flags.up_to_date = false;
        self.disk.persist.request(false);
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
    }

    /// A peer that was fenced is UpToDate again. It is remembered on disk until the handler has succeeded.
    fn run_unfence_peer(&mut self, id: NodeId) {
        let good = self.disk.state == DiskState::UpToDate
            && self.peer(id).is_some_and(|p| {
                p.has_good_data()
                    && p.replication == ReplicationState::Established
                    && p.fence.unfencing.is_none()
                    && p.fence.running.is_none()
                    && !p.fence.unfenced
            });
        if !good || !self.slot(id).is_some_and(|s| s.fenced) {
            return;
        }
        match self.run_handler(Handler::UnfencePeer, Some(id)) {
            run @ Some(_) => {
                if let Some(peer) = self.peer_mut(id) {
                    (peer.fence.unfencing, peer.fence.unfenced) = (run, true);
                }
            }
            None => self.forget_that_peer_was_fenced(id),
        }
    }

    pub(super) fn unfence_peer_done(&mut self, id: NodeId, run: HandlerId, outcome: HandlerOutcome) {
        let Some(peer) = self.peer_mut(id) else { return };
        let ended = peer.fence.unfencing.take_if(|running| *running == run);
        if ended.is_some() && outcome == HandlerOutcome::Exited(0) {
            self.forget_that_peer_was_fenced(id);
        }
    }

    fn forget_that_peer_was_fenced(&mut self, id: NodeId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.fenced = false;
            self.disk.persist.request(false);
        }
    }
}
