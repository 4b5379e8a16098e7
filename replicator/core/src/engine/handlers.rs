//! Handlers: programs that the administrator has configured for some events. The driver runs them and reports how
//! they ended; what waits for one waits in its own room.

use std::collections::BTreeMap;

use super::Engine;
use crate::handler::{Handler, HandlerOutcome};
use crate::io::{Event, Level, Output};
use crate::state::{DiskState, Role};
use crate::units::{HandlerId, NodeId};

/// Handlers that run.
#[derive(Clone, Default, Debug)]
pub(super) struct Running {
    handlers: BTreeMap<HandlerId, (Handler, Option<NodeId>)>,
    last_id: u64,
}

impl Engine {
    /// Runs a handler and does not wait for it; nothing if it is not configured.
    pub(super) fn tell_handler(&mut self, handler: Handler, peer: Option<NodeId>) {
        self.run_handler(handler, peer);
    }

    /// Runs a handler; `None` if it is not configured.
    pub(super) fn run_handler(&mut self, handler: Handler, peer: Option<NodeId>) -> Option<HandlerId> {
        if !self.config.handlers.contains(&handler) {
            return None;
        }
        self.running.last_id += 1;
        let id = HandlerId(self.running.last_id);
        self.running.handlers.insert(id, (handler, peer));
        self.event(Event::HandlerCalled { handler, peer });
        self.outputs.push_back(Output::RunHandler { id, handler, peer });
        Some(id)
    }

    pub(super) fn handler_done(&mut self, id: HandlerId, outcome: HandlerOutcome) {
        let Some((handler, peer)) = self.running.handlers.remove(&id) else { return };
        self.event(Event::HandlerDone { handler, peer, outcome });
        let Some(peer) = peer else { return };
        match handler {
            Handler::BeforeResyncTarget | Handler::BeforeResyncSource => {
                self.before_resync_done(peer, id, handler, outcome);
            }
            Handler::FencePeer => self.fence_peer_done(peer, id, outcome),
            Handler::UnfencePeer => self.unfence_peer_done(peer, id, outcome),
            _ => {}
        }
    }

    // Moments at which a handler is told.

    /// The emergency of a Primary that has no good data to work on.
    pub(super) fn tell_of_degradation(&mut self) {
        let degraded = self.role == Role::Primary
            && self.disk.state < DiskState::UpToDate
            && !self.peers.iter().any(|p| p.has_good_data());
        let told = std::mem::replace(&mut self.told_of_degradation, degraded);
        if degraded && !told {
            self.note(None, Level::Error, "Primary, and no UpToDate data can be reached!");
            self.tell_handler(Handler::PriOnInconDegr, None);
        }
    }
}
