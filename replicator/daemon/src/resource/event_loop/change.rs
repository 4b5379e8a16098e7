//! A resource that is up becomes another one, as far as that is possible now.

use tandem_control::{Difference, NodeSpec, ResourceSpec};
use tandem_core::config::Takes;
use tandem_core::io::Command;
use tandem_core::refusal::{HAS_DISK, INVALID_REQUEST, NEED_STANDALONE};
use tandem_core::state::ConnectionState;

use super::{Effect, EventLoop};
use crate::failure::Failure;
use crate::resource::handlers_of;
use crate::resource::mailbox::CommandReply;

impl EventLoop {
    pub(super) fn change(&mut self, spec: Box<ResourceSpec>, reply: CommandReply) {
        match self.may_become(&spec) {
            Ok(()) => {
                let options = Box::new(spec.options.clone());
                let command = Command::SetOptions { options, handlers: handlers_of(&spec) };
                self.command(command, Effect::Changes(spec), reply);
            }
            Err(failure) => {
                // Whoever asked may have gone.
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// The engine's options are the engine's to judge.
    fn may_become(&self, spec: &ResourceSpec) -> Result<(), Failure> {
        let differences = self.spec.differences(spec);
        let is_attached = self.disks.is_some();
        let peers = self.engine.status(self.now()).peers;
        let is_connected = peers.iter().any(|peer| peer.connection != ConnectionState::StandAlone);
        let is_known =
            |wanted: &NodeSpec| peers.iter().any(|peer| (peer.id, &peer.name) == (wanted.id, &wanted.name));
        if let Some(stranger) = spec.peers.iter().find(|peer| !is_known(peer)) {
            let (number, text) = INVALID_REQUEST;
            let why = Takes::WithNextUp.refusal(&[&format!("peer {}", stranger.name)]);
            return Err(Failure::numbered(number, text).because(why));
        }
        let obstacles = [
            (Takes::WithNextUp, true, INVALID_REQUEST),
            (Takes::WithNextAttach, is_attached, HAS_DISK),
            (Takes::WithNextConnection, is_connected, NEED_STANDALONE),
        ];
        for (takes, in_the_way, (number, text)) in obstacles {
            let waiting = differences.iter().filter(|difference| difference.takes == takes);
            let waiting: Vec<&str> = waiting.map(|Difference { what, .. }| what.as_str()).collect();
            if in_the_way && !waiting.is_empty() {
                return Err(Failure::numbered(number, text).because(takes.refusal(&waiting)));
            }
        }
        Ok(())
    }
}
