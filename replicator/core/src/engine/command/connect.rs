//! Connecting and disconnecting on purpose.

use super::{CurrentCommand, Stage, failure};
use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::io::Output;
use crate::refusal::{DISCARD_ON_PRIMARY, HAS_NET, StateChangeRefusal};
use crate::state::{ConnectionState, DiskState, Role};
use crate::units::{CommandId, NodeId};
use crate::wire::Message;

impl Engine {
    pub(super) fn connect(&mut self, id: CommandId, discard_my_data: bool, tentative: bool) {
        if self.peers.is_empty() {
            return self.refuse_command(id, StateChangeRefusal::NoNetConfig, Vec::new());
        }
        let standing: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|p| p.connection == ConnectionState::StandAlone)
            .map(|p| p.id())
            .collect();
        if standing.is_empty() {
            return self.finish_command(id, Err(failure(HAS_NET)));
        }
        if discard_my_data && self.role == Role::Primary {
            return self.finish_command(id, Err(failure(DISCARD_ON_PRIMARY)));
        }
        for peer in standing {
            if let Some(p) = self.peer_mut(peer) {
                (p.discard_my_data, p.tentative) = (discard_my_data, tentative);
            }
            self.begin_connecting(peer);
        }
        if tentative {
            return self.begin(id, Stage::Asking);
        }
        self.finish_command(id, Ok(()));
    }

    /// Ends once every peer has been asked; why it stands alone is the answer.
    pub(in crate::engine) fn end_question_if_answered(&mut self) {
        if let Some(CurrentCommand { id, stage: Stage::Asking }) = self.current_command
            && !self.peers.iter().any(|p| p.tentative)
        {
            self.finish_command(id, Ok(()));
        }
    }

    /// Nobody waits for the answer any longer.
    pub(super) fn stop_asking(&mut self) {
        for peer in self.peer_ids() {
            if self.peer(peer).is_some_and(|p| p.tentative) {
                self.leave_now(peer);
            }
        }
    }

    /// A Secondary that leaves a Primary on purpose knows that its data grows old, and says so on disk. With fencing or quorum,
    /// a Primary that leaves has its peers do so.
    pub(super) fn disconnect(&mut self, id: CommandId) {
        if self.peers.is_empty() {
            return self.refuse_command(id, StateChangeRefusal::NoNetConfig, Vec::new());
        }
        if self.peers.iter().all(|p| p.connection == ConnectionState::StandAlone) {
            return self.finish_command(id, Ok(()));
        }
        if let Some(detail) = self.why_not_disconnect() {
            return self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, vec![detail]);
        }
        let quorum = self.config.options.quorum.is_needed();
        // With quorum, a Secondary may go on alone whom all others have left as outdated.
        let goes_on =
            |p: &&Peer| p.is_connected() && (p.role == Role::Primary || quorum && p.has_good_data());
        let heir = self.peers.iter().find(goes_on).map(|p| p.id());
        let leaving = self.role == Role::Secondary && self.disk.state == DiskState::UpToDate;
        let abandoning = self.role == Role::Primary && (self.fences() || quorum);
        for peer in self.peer_ids() {
            // The target of a resync may have all at any moment.
            if abandoning && self.peer(peer).is_some_and(|p| p.is_connected() && !p.lost_disk()) {
                self.send(peer, Message::OutdateRequest);
            } else if heir != Some(peer) || !leaving {
                self.leave_now(peer);
            }
        }
        if abandoning {
            return self.begin(id, Stage::Leaving);
        }
        match (heir.filter(|_| leaving), self.disk.metadata.as_mut()) {
            (Some(peer), Some(metadata)) => {
                metadata.superblock.flags.up_to_date = false;
                self.begin(id, Stage::Persisting);
                self.disk.persist.request_then(false, Then::Leave(peer, id));
            }
            _ => self.finish_command(id, Ok(())),
        }
    }

    /// A Primary, here or there, works with the data of the other node.
    pub(super) fn why_not_disconnect(&self) -> Option<String> {
        let relied_on = self
            .peers
            .iter()
            .find(|p| self.relies_on(p))
            .map(|p| format!("{} has the only good data that this Primary can reach", p.config.name));
        let why = relied_on.or_else(|| self.served_primary().map(|p| p.is_served()))?;
        Some(format!("{why}: --force leaves it all the same"))
    }

    /// This node is Primary and works through the peer's data.
    fn relies_on(&self, peer: &Peer) -> bool {
        self.role == Role::Primary && self.disk.state < DiskState::UpToDate && peer.has_good_data()
    }

    /// Whose data a Primary works through stays as good as it is: nothing can be written without it.
    pub(super) fn force_disconnect(&mut self, id: CommandId) {
        let served = self.served_primary().map(Peer::id);
        let tied = |p: &&Peer| self.relies_on(p) || served == Some(p.id());
        let tied: Vec<_> = self.peers.iter().filter(tied).map(Peer::id).collect();
        tied.iter().for_each(|peer| self.leave_now(*peer));
        self.disconnect(id);
    }

    pub(in crate::engine) fn leave(&mut self, peer: NodeId, id: CommandId) {
        self.leave_now(peer);
        // Unless it has become a target, or was lost, meanwhile.
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
        self.finish_command(id, Ok(()));
    }

    /// A Primary wants to leave: it is told when the disk says that the data grows old.
    pub(in crate::engine) fn outdate_requested(&mut self, id: NodeId) -> Result<(), String> {
        if self.role == Role::Primary || self.disk.persist.is_outdating_for(id) {
            return Err("a Primary was asked to outdate itself, or a Secondary twice".into());
        }
        let session = self.peer(id).map_or(0, |p| p.session);
        match self.disk.metadata.as_mut() {
            Some(metadata) => {
                metadata.superblock.flags.up_to_date = false;
                self.disk.persist.request_then(false, Then::Outdated(id, session));
            }
            None => self.dismissed(id, session),
        }
        Ok(())
    }

    pub(in crate::engine) fn dismissed(&mut self, id: NodeId, session: u32) {
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
        if self.peer(id).is_some_and(|p| p.session == session && p.link_up) {
            // Whatever else is being written: that is on the disk since it was asked for, and stays there.
            let outdated = self.disk.metadata.as_ref().is_some_and(|m| !m.superblock.flags.up_to_date);
            self.send(id, Message::Goodbye { outdated });
            self.lose_peer(id, ConnectionState::TearDown, "the peer disconnects");
        }
    }

    /// The peers that were asked have said goodbye, or are lost.
    pub(super) fn progress_leaving(&mut self, id: CommandId) {
        for peer in self.peer_ids() {
            if self.peer(peer).is_some_and(|p| !p.link_up) {
                self.leave_now(peer);
            }
        }
        if self.peers.iter().all(|p| p.connection == ConnectionState::StandAlone) {
            self.finish_command(id, Ok(()));
        }
    }

    pub(super) fn leave_now(&mut self, id: NodeId) {
        let Some(peer) = self.peer(id) else { return };
        if peer.connection == ConnectionState::StandAlone {
            return;
        }
        if peer.link_up {
            self.say_goodbye(id);
        } else if peer.proving.is_none() {
            self.outputs.push_back(Output::StopConnecting(id));
        }
        self.stand_alone(id, ConnectionState::Disconnecting, None);
    }

    /// Leaves a connected peer, which may go on trying, until the administrator says connect.
    pub(in crate::engine) fn leave_because(&mut self, id: NodeId, reason: String) {
        self.say_goodbye(id);
        self.stand_alone(id, ConnectionState::Disconnecting, Some(reason));
    }
}
