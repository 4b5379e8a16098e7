//! A Primary that a policy makes lose steps down first: data under a running client is never overwritten.
//!
//! Both sides come to the same verdict. The loser's clients are cut off if the policy is violent, and otherwise there are none;
//! it becomes Secondary and begins another round, in which it says that it gives up. The other waits for that round.

use super::Engine;
use crate::config::RrConflict;
use crate::generation::{Decision, RoleConflict};
use crate::handler::Handler;
use crate::io::{Level, Output};
use crate::parting::JUST_OPENED;
use crate::seeded;
use crate::split_brain::{Outcome, SPLIT_BRAIN};
use crate::state::{ConnectionState, DiskState, Role};
use crate::units::{NodeId, Timestamp};

/// Pause before the next attempt where roles are in the way.
const RETRY_PAUSE_MS: u64 = 1000;

/// This node steps down as Primary for the sake of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteppingDown {
    peer: NodeId,
    session: u32,
    /// The demotion has begun.
    begun: bool,
    /// After a split brain, in which this node loses.
    gives_up: bool,
}

/// What a verdict asks of a Primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StepDown {
    /// This node is the one.
    pub(super) me: bool,
    /// Its clients are cut off.
    forced: bool,
    gives_up: bool,
}

impl Engine {
    /// Whether one of the two steps down, so that the other's data can come.
    pub(super) fn step_down_for(&self, decision: &Decision) -> Option<StepDown> {
        let me = match decision.conflict? {
            RoleConflict::IAmTarget => true,
            RoleConflict::PeerIsTarget => false,
            RoleConflict::BothPrimary => return None,
        };
        match decision.split_brain.map(|split| split.outcome) {
            Some(Outcome::PrimaryStepsDown { forced, .. }) => Some(StepDown { me, forced, gives_up: true }),
            None if self.config.options.rr_conflict == RrConflict::Violently => {
                Some(StepDown { me, forced: true, gives_up: false })
            }
            _ => None,
        }
    }

    pub(super) fn begin_to_step_down(&mut self, id: NodeId, step: StepDown) {
        if !step.me {
            return self.note(Some(id), Level::Warn, "waiting for the peer to step down as Primary");
        }
        if !step.forced && self.is_held_open() {
            self.tell_handler(Handler::PriLostAfterSb, Some(id));
            return self.refuse(id, format!("{SPLIT_BRAIN} {JUST_OPENED}"));
        }
        let session = self.peer(id).map_or(0, |p| p.session);
        let gives_up = step.gives_up;
        self.stepping_down = Some(SteppingDown { peer: id, session, begun: false, gives_up });
        if step.forced && !self.openers.is_empty() {
            let text =
                "stepping down as Primary, as a policy says that this node loses: its clients are cut off";
            self.note(Some(id), Level::Error, text);
            self.outputs.push_back(Output::DropClients);
        }
    }

    /// A client that is there already may go on, and so may one that comes.
    pub(super) fn is_held_open(&self) -> bool {
        !self.openers.is_empty() && !seeded!(self, StepsDownUnderClients)
    }

    pub(super) fn is_stepping_down(&self) -> bool {
        self.stepping_down.is_some()
    }

    /// Becomes Secondary when the last client has gone, then meets the peer anew.
    pub(super) fn progress_stepping_down(&mut self) {
        let Some(step) = self.stepping_down else { return };
        let there = self.peer(step.peer).is_some_and(|p| p.session == step.session && p.link_up);
        if self.role != Role::Primary {
            self.stepping_down = None;
            if step.gives_up {
                self.give_up(step.peer);
            }
            if there {
                self.begin_handshake(step.peer);
            }
        } else if !there && !step.begun {
            self.stepping_down = None;
        } else if !step.begun && !self.is_held_open() && self.begin_own_demotion() {
            self.stepping_down = Some(SteppingDown { begun: true, ..step });
        }
    }

    /// At once, when the last client has gone.
    pub(super) fn step_down_deadline(&self) -> Option<Timestamp> {
        let due = self.stepping_down.is_some_and(|step| !step.begun) && !self.is_held_open();
        (due && self.current_command.is_none()).then_some(self.now)
    }

    /// What was decided stands, whatever becomes of the connection.
    fn give_up(&mut self, id: NodeId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.gave_up = true;
        }
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.flags.up_to_date = false;
            self.disk.persist.request(false);
        }
        self.set_disk(self.disk.state.min(DiskState::Outdated));
    }

    /// Roles are in the way: another attempt, after a while.
    pub(super) fn retry_later(&mut self, id: NodeId, reason: &str) {
        let at = self.now.plus_ms(RETRY_PAUSE_MS);
        if let Some(peer) = self.peer_mut(id) {
            peer.retry_at = Some(at);
        }
        self.lose_peer(id, ConnectionState::NetworkFailure, reason);
        if let Some(peer) = self.peer_mut(id) {
            peer.standalone_reason = Some(reason.to_owned());
        }
    }

    pub(super) fn retry_connecting(&mut self) {
        let due: Vec<NodeId> = self
            .peers
            .iter_mut()
            .filter(|p| p.retry_at.is_some_and(|at| at <= self.now))
            .map(|p| {
                p.retry_at = None;
                p.id()
            })
            .collect();
        due.into_iter().for_each(|id| self.begin_connecting(id));
    }

    /// When the next attempt is due.
    pub(super) fn retry_deadline(&self) -> Option<Timestamp> {
        self.peers.iter().filter_map(|p| p.retry_at).min()
    }
}
