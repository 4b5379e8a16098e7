//! Holding back clients' requests, letting them go on, and calling the data old.

use super::Stage;
use crate::engine::Engine;
use crate::engine::persist::Then;
use crate::refusal::StateChangeRefusal;
use crate::state::{DiskState, Role};
use crate::units::CommandId;

impl Engine {
    /// From now on requests wait; the command ends when what was let in is done, here and on the peers.
    pub(super) fn start_suspension(&mut self, id: CommandId) {
        self.user_suspends = true;
        self.begin(id, Stage::Suspending);
    }

    pub(super) fn progress_suspension(&mut self, id: CommandId) {
        if !self.admitted_are_done() {
            return;
        }
        self.close_epoch_if_begun(true);
        if self.peers.iter().all(|p| p.transfer_log.is_empty() && p.barriers.is_empty()) {
            self.finish_command(id, Ok(()));
        }
    }

    /// Requests go on, even if a peer should be fenced: the administrator has seen to that. Those that wait for a copy of the
    /// data fail.
    pub(super) fn resume_io(&mut self, id: CommandId) {
        self.user_suspends = false;
        self.forget_fences();
        self.go_on_without_data();
        self.finish_command(id, Ok(()));
    }

    /// The data here is old: somebody knows that it has gone on elsewhere.
    pub(super) fn outdate(&mut self, id: CommandId) {
        let refusal = match self.disk.state {
            _ if self.role == Role::Primary => Some(StateChangeRefusal::NoUpToDateDisk),
            _ if self.peers.iter().any(|p| p.is_connected()) => Some(StateChangeRefusal::OutdateConnected),
            _ if self.peers.iter().any(|p| p.link_up) => Some(StateChangeRefusal::InTransientState),
            DiskState::Attaching | DiskState::Negotiating => Some(StateChangeRefusal::InTransientState),
            state if state < DiskState::Outdated => Some(StateChangeRefusal::LowerThanOutdated),
            _ => None,
        };
        match (refusal, self.disk.metadata.as_mut()) {
            (None, Some(metadata)) => {
                metadata.superblock.flags.up_to_date = false;
                self.begin(id, Stage::Persisting);
                self.disk.persist.request_then(false, Then::OutdateDone(id));
            }
            (refusal, _) => {
                let refusal = refusal.unwrap_or(StateChangeRefusal::Diskless);
                self.refuse_command(id, refusal, Vec::new());
            }
        }
    }

    pub(in crate::engine) fn outdated(&mut self, id: CommandId) {
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
        self.finish_command(id, Ok(()));
    }
}
