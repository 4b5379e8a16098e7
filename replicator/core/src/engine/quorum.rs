//! Quorum (drbd.conf(5), quorum): a Primary serves only while enough of the nodes are with it.
//!
//! Whether that is so follows from the states alone, on every node. Who is connected is reachable. Who is not, and is not
//! known to be outdated, may be at work without us: then all nodes vote. Otherwise only those that can be reached do, so that
//! the last one, which everybody else has left in good order, goes on. A peer that was never met may be at work, too.
//!
//! What is frozen or fails is what completes here alone: where the disk here is not good, only a peer completes anything, and
//! then it is reachable.

use super::Engine;
use super::peer::Peer;
use crate::config::OnNoQuorum;
use crate::handler::Handler;
use crate::io::{ClientError, Level};
use crate::seeded;
use crate::state::{DiskState, Role};

impl Engine {
    /// Enough nodes can be reached, and enough of them have good data.
    pub(super) fn has_quorum(&self) -> bool {
        self.has_quorum_with(self.disk.state == DiskState::UpToDate)
    }

    /// The same, if the data here were good, or were not.
    pub(super) fn has_quorum_with(&self, good_here: bool) -> bool {
        let quorum = self.config.options.quorum;
        let all = 1 + self.peers.len();
        // Who was lost counts again once nothing that completed meanwhile can be lost with this node.
        let reached = || self.peers.iter().filter(|p| p.is_connected() && !p.fence.is_unsettled());
        let reachable = 1 + reached().count();
        let good = reached().filter(|p| p.has_good_data()).count();
        let good = good + usize::from(good_here);
        if self.disk.state <= DiskState::Failed {
            // Who has a disk and is quorate lends it.
            return !quorum.is_needed()
                || self.good_peer().is_some()
                    && quorum.votes.at(all) <= reachable
                    && quorum.minimum_redundancy.at(all) <= good;
        }
        let voters = if self.peers.iter().any(|p| self.may_be_at_work(p)) { all } else { reachable };
        quorum.votes.at(voters) <= reachable && quorum.minimum_redundancy.at(voters) <= good
    }

    /// As [`Engine::is_at_large`]. That a peer was outdated holds until it is met: whatever the handshake makes of it, this node
    /// is not outdated in its eyes.
    fn may_be_at_work(&self, peer: &Peer) -> bool {
        let uncounted = peer.is_connected() && peer.fence.is_unsettled();
        (uncounted || self.is_at_large(peer)) && !peer.fence.is_met_as_outdated(peer.link_up)
    }

    /// Whatever would complete here alone must not.
    pub(super) fn lacks_quorum(&self) -> bool {
        self.role == Role::Primary
            && self.config.options.quorum.is_needed()
            && self.has_good_disk()
            && !self.has_quorum()
            && !seeded!(self, ServesWithoutQuorum)
    }

    /// Clients' requests wait for quorum.
    pub(super) fn waits_for_quorum(&self) -> bool {
        self.config.options.quorum.on_loss == OnNoQuorum::SuspendIo && self.lacks_quorum()
    }

    /// Clients' requests fail for want of quorum.
    pub(super) fn fails_without_quorum(&self) -> bool {
        self.config.options.quorum.on_loss == OnNoQuorum::IoError && self.lacks_quorum()
    }

    /// Tells of quorum that comes and goes, and fails what is not to wait for it.
    pub(super) fn progress_quorum(&mut self) {
        let has = self.has_quorum();
        if std::mem::replace(&mut self.had_quorum, has) != has {
            let (level, text) = match has {
                true => (Level::Info, "quorum( no -> yes )"),
                false => (Level::Warn, "quorum( yes -> no )"),
            };
            self.note(None, level, text);
            if !has && self.role == Role::Primary {
                self.tell_handler(Handler::QuorumLost, None);
            }
        }
        if self.fails_without_quorum() {
            self.fail_what_waits(ClientError::Io);
        }
    }
}
