//! What the engine does where both copies went on, and where a connection only asks what would happen.

use super::Engine;
use super::stepping_down::StepDown;
use crate::config::RrConflict;
use crate::generation::{Decision, Verdict};
use crate::handler::Handler;
use crate::io::Level;
use crate::split_brain::Outcome;
use crate::state::ConnectionState;
use crate::units::{BLOCK_BYTES, NodeId};
use crate::wire::Handshake;

impl Engine {
    /// Tells handlers and the log of a split brain, and of a Primary that should have received data.
    pub(super) fn tell_of_conflicts(
        &mut self,
        id: NodeId,
        decision: &Decision,
        mine: &Handshake,
        theirs: &Handshake,
    ) {
        let lost = decision.primary_lost();
        let Some(split_brain) = decision.split_brain else {
            if lost && self.config.options.rr_conflict == RrConflict::CallPriLost {
                self.tell_handler(Handler::PriLost, Some(id));
            }
            return;
        };
        self.tell_handler(Handler::InitialSplitBrain, Some(id));
        if let Some(resolution) = split_brain.resolution(mine, theirs) {
            self.note(Some(id), Level::Warn, resolution);
        }
        if !matches!(decision.verdict, Verdict::Refuse(_)) {
            return;
        }
        self.tell_handler(Handler::SplitBrain, Some(id));
        if lost && matches!(split_brain.outcome, Outcome::PrimaryShouldGiveUp { .. }) {
            self.tell_handler(Handler::PriLostAfterSb, Some(id));
        }
    }

    /// Why these two will not talk, for the operator.
    pub(super) fn why_refused(
        &self,
        id: NodeId,
        decision: &Decision,
        mine: &Handshake,
        theirs: &Handshake,
    ) -> Option<String> {
        let Verdict::Refuse(reason) = &decision.verdict else { return None };
        let unresolved = |o: Outcome| matches!(o, Outcome::Unresolved | Outcome::PrimaryShouldGiveUp { .. });
        match (decision.split_brain, self.peer(id)) {
            (Some(split_brain), Some(peer)) if unresolved(split_brain.outcome) => {
                let (name, resource) = (&peer.config.name, &self.config.resource);
                Some(split_brain.explanation(mine, theirs, name, resource))
            }
            _ => Some(reason.clone()),
        }
    }

    /// This connection, or the peer's side of it, only asks what would happen: nothing follows but the answer.
    pub(super) fn is_tentative(&self, id: NodeId) -> bool {
        self.peer(id).is_some_and(|p| p.tentative || p.peer_is_tentative)
    }

    /// The side that asked leaves with the answer; the other waits until it has gone.
    pub(super) fn end_tentative(&mut self, id: NodeId, answer: &str) {
        let text = format!("dry-run connect: {answer}");
        if self.peer(id).is_some_and(|p| p.tentative) {
            return self.stand_alone(id, ConnectionState::Disconnecting, Some(text));
        }
        self.note(Some(id), Level::Info, format!("the peer asks what would happen; {text}"));
    }
}

/// What a connection would have led to.
pub(super) fn answer(
    verdict: &Verdict,
    step_down: Option<StepDown>,
    mine: &Handshake,
    theirs: &Handshake,
) -> String {
    if let Some(step_down) = step_down {
        let who = if step_down.me { "This node" } else { "The peer" };
        return format!("{who} would step down as Primary, and then become SyncTarget.");
    }
    let would = |role: &str, full: bool| {
        let (kind, blocks) = if full {
            ("full", mine.disk_bytes.min(theirs.disk_bytes) / BLOCK_BYTES)
        } else {
            ("bitmap based", mine.dirty_blocks.saturating_add(theirs.dirty_blocks))
        };
        let kib = blocks.saturating_mul(BLOCK_BYTES / 1024);
        format!("Would become {role}, doing a {kind} resync of at most {kib} KiB.")
    };
    match verdict {
        Verdict::Source { full } => would("SyncSource", *full),
        Verdict::Target { full } => would("SyncTarget", *full),
        Verdict::InSync | Verdict::BothFresh | Verdict::Begin { .. } => {
            "No resync, would become Connected immediately.".to_owned()
        }
        Verdict::Refuse(reason) => format!("Would be refused: {reason}"),
    }
}
