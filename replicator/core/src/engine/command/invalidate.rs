//! Giving one copy up, to be had anew from the other: `invalidate` and `invalidate-remote`.
//!
//! The copy is Inconsistent, and all its blocks count as different, on disk before anything else happens. A round of
//! the handshake then finds that the other node has to send everything; without a connection, the next one does. Both
//! nodes agree beforehand, so that they never give up both copies at once.

use super::{CurrentCommand, Heard, Question, Stage, failure};
use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::io::Level;
use crate::refusal::{NO_DISK, StateChangeRefusal};
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{CommandId, NodeId};
use crate::wire::Message;

/// Which copy is given up, and how much of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Invalidation {
    /// The peer's, not ours.
    remote: bool,
    /// Every block counts as different, not only those that are marked.
    reset_bitmap: bool,
    question: Option<Question>,
}

/// What a verify has found is to be had anew, and the peer was asked.
#[derive(Clone, Debug)]
pub(in crate::engine) struct PendingRepair {
    question: Question,
    remote: bool,
}

impl Engine {
    pub(super) fn start_invalidation(&mut self, id: CommandId, remote: bool, reset_bitmap: bool) {
        let invalidation = Invalidation { remote, reset_bitmap, question: None };
        self.begin(id, Stage::Invalidating(invalidation));
    }

    pub(super) fn progress_invalidation(&mut self, id: CommandId) {
        if self.peers.iter().any(Peer::is_negotiating) {
            return;
        }
        let Some(CurrentCommand { stage: Stage::Invalidating(invalidation), .. }) = self.current_command
        else {
            return;
        };
        let Invalidation { remote, reset_bitmap, question } = invalidation;
        if !self.disk.is_usable() {
            return self.finish_command(id, Err(failure(NO_DISK)));
        }
        let connected = self.peers.iter().find(|p| p.is_connected()).map(Peer::id);
        let may = match (self.heard(question), connected) {
            (Heard::Waiting, _) => return,
            (Heard::Yes, _) if remote => Ok(()),
            // Unless a resync has begun since the question.
            (Heard::Yes, Some(peer)) => self.may_invalidate_with(peer, remote),
            (Heard::Yes, None) => return,
            (Heard::Refused(refusal), _) => Err((refusal, Vec::new())),
            (Heard::NotAsked, Some(peer)) => self.may_invalidate_with(peer, remote),
            (Heard::NotAsked, None) => self.may_invalidate_alone(remote),
        };
        match (may, connected) {
            (Err((refusal, detail)), _) => self.refuse_command(id, refusal, detail),
            (Ok(()), Some(peer)) if question.is_none() => {
                let question = self.ask(peer);
                let asking = Invalidation { question: Some(question), ..invalidation };
                self.begin(id, Stage::Invalidating(asking));
                self.send(peer, Message::InvalidateRequest { id: question.id, remote, reset_bitmap });
            }
            (Ok(()), _) if remote => self.finish_command(id, Ok(())),
            (Ok(()), _) => {
                self.begin(id, Stage::Persisting);
                self.give_up_data(reset_bitmap, Then::Invalidated(id));
            }
        }
    }

    fn may_invalidate_alone(&self, remote: bool) -> Result<(), (StateChangeRefusal, Vec<String>)> {
        if remote {
            return Err((StateChangeRefusal::NeedConnection, Vec::new()));
        }
        if self.role == Role::Primary {
            let text = "this node is Primary and no peer is connected whose data could replace its own";
            return Err((StateChangeRefusal::NoUpToDateDisk, vec![text.into()]));
        }
        Ok(())
    }

    fn may_invalidate_with(
        &self,
        peer: NodeId,
        remote: bool,
    ) -> Result<(), (StateChangeRefusal, Vec<String>)> {
        let Some(peer) = self.peer(peer) else { return Ok(()) };
        // Peers were told that it is gone: they write without it, and must not hear that it is there again.
        if self.disk.leaving || !self.disk.is_usable() {
            let text = "the local disk is gone, or is being detached";
            return Err((StateChangeRefusal::InTransientState, vec![text.into()]));
        }
        let name = &peer.config.name;
        let source = if remote { self.disk.state } else { peer.disk };
        let exposed = if remote { peer.role } else { self.role };
        if peer.gives_up {
            let text = format!("{name} is about to give its copy up");
            return Err((StateChangeRefusal::InTransientState, vec![text]));
        }
        if peer.lost_disk() {
            return Err((StateChangeRefusal::NoRemoteDisk, vec![format!("{name} is {}", peer.disk)]));
        }
        if peer.replication != ReplicationState::Established {
            let text = format!("replication with {name} is in state {}", peer.replication);
            return Err((StateChangeRefusal::ResyncRunning, vec![text]));
        }
        if source != DiskState::UpToDate {
            let text = format!("the copy to take the data from is {source}");
            return Err((StateChangeRefusal::NoUpToDateDisk, vec![text]));
        }
        if exposed == Role::Primary {
            let text = "the copy of a Primary is not given up in this version: move the role to the other node first";
            return Err((StateChangeRefusal::InTransientState, vec![text.into()]));
        }
        Ok(())
    }

    /// The peer wants to give up its copy, and rely on ours; or ours, and send us its own.
    pub(in crate::engine) fn invalidate_requested(
        &mut self,
        id: NodeId,
        question: u64,
        remote: bool,
        reset_bitmap: bool,
    ) -> Result<(), String> {
        let busy = self.current_command.is_some();
        let settled = self.peer(id).is_some_and(|p| p.is_connected() && !p.in_round);
        // What is remote for the peer is local for us.
        if busy || !settled || self.may_invalidate_with(id, !remote).is_err() {
            self.send(id, Message::InvalidateReply { id: question, granted: false });
        } else if remote {
            let session = self.peer(id).map_or(0, |p| p.session);
            self.give_up_data(reset_bitmap, Then::InvalidatedFor(id, session, Some(question)));
        } else {
            // From now on ours is the only copy: nobody may give it up. The peer gets all writes until its disk says what it is.
            if let Some(peer) = self.peer_mut(id) {
                peer.gives_up = true;
            }
            self.send(id, Message::InvalidateReply { id: question, granted: true });
        }
        Ok(())
    }

    pub(in crate::engine) fn invalidate_answered(
        &mut self,
        id: NodeId,
        question: u64,
        granted: bool,
    ) -> Result<(), String> {
        if let Some(CurrentCommand { stage: Stage::Invalidating(invalidation), .. }) =
            self.current_command.as_mut()
            && let Some(asked) = invalidation.question.as_mut().filter(|q| q.is(id, question))
        {
            asked.answer = Some(granted);
            return Ok(());
        }
        let repair = self.repair.take_if(|r| r.question.is(id, question));
        match repair {
            // The command was given up: the peer need not guard its copy any longer.
            None if granted => self.announce_to(id),
            None => {}
            Some(_) if !granted => {
                let text = "the peer does not agree to the repair: what was found stays out of sync";
                self.note(Some(id), Level::Error, text);
            }
            Some(repair) if repair.remote => {}
            Some(_) if self.may_invalidate_with(id, false).is_err() => self.announce_to(id),
            Some(_) => {
                let session = self.peer(id).map_or(0, |p| p.session);
                self.give_up_data(false, Then::InvalidatedFor(id, session, None));
            }
        }
        Ok(())
    }

    /// Without a command: what a verify has found is had anew from one of the copies.
    pub(in crate::engine) fn replace_marked_blocks(&mut self, peer: NodeId, remote: bool) {
        let question = self.ask(peer);
        self.repair = Some(PendingRepair { question, remote });
        self.send(peer, Message::InvalidateRequest { id: question.id, remote, reset_bitmap: false });
    }

    fn give_up_data(&mut self, reset_bitmap: bool, then: Then) {
        self.note(None, Level::Warn, "the local data is given up: Inconsistent until it was resynced");
        let forgetful = seeded!(self, InvalidateWithoutPersist);
        if let Some(metadata) = self.disk.metadata.as_mut() {
            if !forgetful {
                metadata.superblock.flags.consistent = false;
                metadata.superblock.flags.up_to_date = false;
            }
            if reset_bitmap {
                metadata.bitmaps.iter_mut().for_each(|b| b.set_all());
            }
        }
        // A Primary that goes on without this copy must not find it UpToDate again after a crash.
        self.disk.told_instead = Some(self.disk.state);
        self.set_disk(DiskState::Inconsistent);
        let version = self.disk.persist.request_then(!forgetful, then);
        self.end_undo_log(version);
    }

    /// The disk says that the data was given up: peers may hear of it.
    fn tell_of_loss(&mut self) {
        self.disk.told_instead = None;
        self.announce_state();
    }

    pub(in crate::engine) fn invalidated(&mut self, id: CommandId) {
        self.tell_of_loss();
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
        self.finish_command(id, Ok(()));
    }

    pub(in crate::engine) fn invalidated_for(&mut self, peer: NodeId, session: u32, question: Option<u64>) {
        self.tell_of_loss();
        if self.peer(peer).is_some_and(|p| p.session == session && p.link_up) {
            if let Some(id) = question {
                self.send(peer, Message::InvalidateReply { id, granted: true });
            }
            self.begin_handshake(peer);
        }
    }
}
