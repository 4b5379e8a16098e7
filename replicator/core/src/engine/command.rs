//! What the administrator asks: one command at a time, in order, but for `disconnect`, which may end a wait.
//!
//! A command that cannot go on is looked at again after every input, until it ends well or is refused.

use super::MAX_OPENERS_NAMED;
use super::disk::{DiskWork, volume_bytes};
use super::persist::Then;
use super::{Engine, Reign};
use crate::io::{ClientError, Command, Device, DiskOpKind, Level, Output};
use crate::metadata::Metadata;
use crate::refusal::{CommandError, HAS_DISK, HAS_NET, StateChangeRefusal};
use crate::seeded;
use crate::state::{ConnectionState, DiskState, Role};
use crate::units::{CommandId, NodeId};
use crate::wire::Message;

/// The command being carried out.
#[derive(Debug)]
pub(super) struct CurrentCommand {
    id: CommandId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waits for the metadata; [`Then`] ends it.
    Persisting,
    Promoting(Promotion),
    /// A forced promotion waits for the metadata.
    Forcing,
    Demoting,
    Detaching {
        flushing: bool,
    },
}

#[derive(Debug)]
struct Promotion {
    force: bool,
    /// Connected peers whose word is awaited.
    asked: Option<Vec<NodeId>>,
    refused: bool,
}

impl Engine {
    pub(super) fn progress_commands(&mut self) {
        self.disconnect_at_once();
        loop {
            match self.current_command.as_ref().map(|c| (c.id, &c.stage)) {
                Some((id, Stage::Promoting(_))) => self.progress_promotion(id),
                Some((id, Stage::Demoting)) => self.progress_demotion(id),
                Some((id, Stage::Detaching { flushing: false })) => self.progress_detach(id),
                Some((_, Stage::Persisting | Stage::Forcing | Stage::Detaching { flushing: true }))
                | None => {}
            }
            if self.current_command.is_some() {
                return;
            }
            let Some((id, command)) = self.commands.pop_front() else { return };
            self.start_command(id, command);
        }
    }

    /// A peer that does not answer may be what another command waits for.
    fn disconnect_at_once(&mut self) {
        if self.current_command.is_some()
            && let Some(at) = self.commands.iter().position(|(_, c)| matches!(c, Command::Disconnect))
            && let Some((id, _)) = self.commands.remove(at)
        {
            for peer in self.peer_ids() {
                self.leave_now(peer);
            }
            self.outputs.push_back(Output::CommandDone { id, result: Ok(()) });
        }
    }

    fn start_command(&mut self, id: CommandId, command: Command) {
        match command {
            Command::Attach { metadata } => self.attach(id, *metadata),
            Command::Detach => self.start_detach(id),
            Command::Connect => self.connect(id),
            Command::Disconnect => self.disconnect(id),
            Command::Primary { force } => self.start_promotion(id, force),
            Command::Secondary => self.start_demotion(id),
        }
    }

    fn begin(&mut self, id: CommandId, stage: Stage) {
        self.current_command = Some(CurrentCommand { id, stage });
    }

    pub(super) fn finish_command(&mut self, id: CommandId, result: Result<(), CommandError>) {
        if self.current_command.as_ref().is_some_and(|c| c.id == id) {
            self.current_command = None;
        }
        self.outputs.push_back(Output::CommandDone { id, result });
    }

    fn refuse_command(&mut self, id: CommandId, refusal: StateChangeRefusal, detail: Vec<String>) {
        self.finish_command(id, Err(CommandError::Refused { refusal, detail }));
    }

    // Attach and detach.

    fn attach(&mut self, id: CommandId, metadata: Metadata) {
        if self.disk.open || self.disk.is_usable() {
            return self.finish_command(id, Err(failure(HAS_DISK)));
        }
        if self.role == Role::Primary {
            let text =
                "this node is a Primary without a disk: make it Secondary first, then attach".to_owned();
            return self.refuse_command(id, StateChangeRefusal::InTransientState, vec![text]);
        }
        self.disk.open = true;
        self.reign = Reign::Idle;
        self.disk.generation_version = 0;
        self.disk.metadata = Some(metadata);
        if let Err(text) = self.assign_slots() {
            self.disk.metadata = None;
            self.disk.release_when_idle = true;
            let error = CommandError::Failure {
                number: 166,
                text: "Not enough bitmap slots in the meta-data",
                detail: vec![text],
            };
            return self.finish_command(id, Err(error));
        }
        self.begin(id, Stage::Persisting);
        self.set_disk(DiskState::Attaching);
        self.recover_after_crash();
        let node = self.config.node;
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.node = Some(node);
        }
        self.disk.persist.request_then(true, Then::Attached(id));
    }

    /// Every peer gets the slot that bears its name, or a free one.
    fn assign_slots(&mut self) -> Result<(), String> {
        let Some(metadata) = self.disk.metadata.as_mut() else { return Ok(()) };
        let slots = &mut metadata.superblock.peers;
        for peer in &mut self.peers {
            let named = slots.iter().position(|s| s.node == Some(peer.id()));
            let Some(slot) = named.or_else(|| slots.iter().position(|s| s.node.is_none())) else {
                return Err(format!(
                    "the meta-data has {} slots, none is left for {}; create it anew with a larger --max-peers",
                    slots.len(),
                    peer.config.name
                ));
            };
            slots[slot].node = Some(peer.id());
            peer.slot = slot;
        }
        Ok(())
    }

    /// What may have been written to one copy only, and was not noted on disk, counts as different.
    fn recover_after_crash(&mut self) {
        let forget = seeded!(self, ForgetsCrash);
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let flags = &mut metadata.superblock.flags;
        let crashed = std::mem::take(&mut flags.primary) && !forget;
        flags.crashed_primary |= crashed;
        for (slot, bitmap) in metadata.superblock.peers.iter_mut().zip(&mut metadata.bitmaps) {
            if std::mem::take(&mut slot.bits_volatile) || crashed {
                bitmap.set_all();
            }
        }
        if crashed {
            let text = "this node crashed as Primary: its whole disk counts as out of sync";
            self.note(None, Level::Warn, text);
        }
    }

    pub(super) fn attached(&mut self, id: CommandId) {
        if let Some(metadata) = self.disk.metadata.as_ref() {
            self.last_size_bytes = volume_bytes(metadata);
        }
        // A peer that is connected has a say in what the data is worth.
        self.set_disk(DiskState::Negotiating);
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
        if !self.peers.iter().any(|p| p.link_up) {
            self.end_negotiation();
        }
        self.finish_command(id, Ok(()));
    }

    fn start_detach(&mut self, id: CommandId) {
        if !self.disk.is_usable() {
            return if self.disk.open {
                self.refuse_command(id, StateChangeRefusal::InTransientState, Vec::new())
            } else {
                self.finish_command(id, Ok(()))
            };
        }
        if self.role == Role::Primary && !self.peers.iter().any(|p| p.has_good_data()) {
            return self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, Vec::new());
        }
        if self.role == Role::Primary {
            let text = "detach on a Primary is not possible in this version: move the role to the peer first"
                .to_owned();
            return self.refuse_command(id, StateChangeRefusal::InTransientState, vec![text]);
        }
        self.begin(id, Stage::Detaching { flushing: false });
    }

    fn progress_detach(&mut self, id: CommandId) {
        if !self.disk.is_usable() {
            return self.finish_command(id, Ok(()));
        }
        if !self.disk.leaving {
            // A handshake that is under way counts on the disk.
            if self.peers.iter().any(|p| p.our_handshake.is_some()) {
                return;
            }
            for peer in self.peer_ids() {
                self.abort_resync(peer);
            }
            // Peers are told and stop sending; what has begun is applied first, what comes late is dropped.
            self.disk.leaving = true;
            self.peers.iter_mut().for_each(|p| p.receiver_stale = true);
            self.announce_state();
        }
        if !self.peers.iter().all(|p| p.receiver.is_drained()) || !self.disk.persist.is_idle() {
            return;
        }
        self.begin(id, Stage::Detaching { flushing: true });
        self.start_disk_op(Device::Data, DiskOpKind::Flush, DiskWork::DetachFlush);
    }

    pub(super) fn detach_flushed(&mut self, ok: bool) {
        let Some(CurrentCommand { id, stage: Stage::Detaching { .. } }) = self.current_command else {
            return;
        };
        if ok {
            self.begin(id, Stage::Persisting);
            self.disk.persist.request_then(true, Then::Detached(id));
        } else {
            self.finish_command(id, Ok(()));
        }
    }

    pub(super) fn detached(&mut self, id: CommandId) {
        self.forget_metadata();
        self.abandon_persist();
        self.abort_resyncs_without_disk();
        self.set_disk(DiskState::Diskless);
        self.disk.release_when_idle = true;
        self.release_disk_if_idle();
        self.finish_command(id, Ok(()));
    }

    // Connect and disconnect.

    fn connect(&mut self, id: CommandId) {
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
        for peer in standing {
            self.begin_connecting(peer);
        }
        self.finish_command(id, Ok(()));
    }

    /// A Secondary that leaves a Primary on purpose knows that its data grows old, and says so on disk.
    fn disconnect(&mut self, id: CommandId) {
        if self.peers.iter().all(|p| p.connection == ConnectionState::StandAlone) {
            return self.refuse_command(id, StateChangeRefusal::AlreadyStandAlone, Vec::new());
        }
        let primary = self.peers.iter().find(|p| p.is_connected() && p.role == Role::Primary).map(|p| p.id());
        let leaving = self.role == Role::Secondary && self.disk.state == DiskState::UpToDate;
        for peer in self.peer_ids() {
            if primary != Some(peer) || !leaving {
                self.leave_now(peer);
            }
        }
        match (primary.filter(|_| leaving), self.disk.metadata.as_mut()) {
            (Some(peer), Some(metadata)) => {
                metadata.superblock.flags.up_to_date = false;
                self.begin(id, Stage::Persisting);
                self.disk.persist.request_then(false, Then::Leave(peer, id));
            }
            _ => self.finish_command(id, Ok(())),
        }
    }

    pub(super) fn leave(&mut self, peer: NodeId, id: CommandId) {
        self.leave_now(peer);
        // Unless it has become a target meanwhile.
        if self.disk.state > DiskState::Outdated {
            self.set_disk(DiskState::Outdated);
        }
        self.finish_command(id, Ok(()));
    }

    fn leave_now(&mut self, id: NodeId) {
        let Some(peer) = self.peer(id) else { return };
        if peer.connection == ConnectionState::StandAlone {
            return;
        }
        if peer.link_up {
            self.send(id, Message::Goodbye);
        } else {
            self.outputs.push_back(Output::StopConnecting(id));
        }
        self.stand_alone(id, ConnectionState::Disconnecting, None);
    }

    // Primary.

    fn start_promotion(&mut self, id: CommandId, force: bool) {
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
        let promotion = Promotion { force, asked: None, refused: false };
        self.begin(id, Stage::Promoting(promotion));
    }

    fn progress_promotion(&mut self, id: CommandId) {
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

    /// Asks every connected peer once; true when all have said yes.
    fn all_peers_agree(&mut self) -> bool {
        let connected: Vec<NodeId> = self.peers.iter().filter(|p| p.is_connected()).map(|p| p.id()).collect();
        let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
        else {
            return false;
        };
        match promotion.asked.as_mut() {
            None => {
                promotion.asked = Some(connected.clone());
                for peer in &connected {
                    self.send(*peer, Message::PromoteRequest);
                }
                connected.is_empty()
            }
            Some(waiting) => {
                waiting.retain(|p| connected.contains(p));
                waiting.is_empty()
            }
        }
    }

    /// Two that ask at the same time: the lower node id wins.
    pub(super) fn promote_requested(&mut self, id: NodeId) -> Result<(), String> {
        let promoting = match self.current_command.as_ref().map(|c| &c.stage) {
            Some(Stage::Promoting(p)) => match p.asked.as_ref() {
                Some(waiting) => waiting.is_empty() || self.config.node < id,
                None => false,
            },
            Some(Stage::Forcing) => true,
            _ => false,
        };
        let granted = self.role != Role::Primary && !promoting;

        self.send(id, Message::PromoteReply { granted });
        Ok(())
    }

    pub(super) fn promote_answered(&mut self, id: NodeId, granted: bool) -> Result<(), String> {
        if let Some(CurrentCommand { stage: Stage::Promoting(promotion), .. }) = self.current_command.as_mut()
            && let Some(waiting) = promotion.asked.as_mut()
        {
            waiting.retain(|p| *p != id);
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
        self.set_size(self.size_bytes());
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let flags = &mut metadata.superblock.flags;
            (flags.consistent, flags.up_to_date, flags.crashed_primary) = (true, true, false);
        }
        self.set_disk(DiskState::UpToDate);
        self.begin_generation();
        self.begin(id, Stage::Forcing);
        self.disk.persist.request_then(false, Then::Promoted(id));
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
    }

    pub(super) fn promoted(&mut self, id: CommandId) {
        self.set_role(Role::Primary);
        self.finish_command(id, Ok(()));
    }

    // Secondary.

    fn start_demotion(&mut self, id: CommandId) {
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
    pub(super) fn is_demoting(&self) -> bool {
        let stage = self.current_command.as_ref().map(|c| &c.stage);
        self.role == Role::Primary && matches!(stage, Some(Stage::Demoting | Stage::Persisting))
    }

    /// Everything written is on every disk, or marked; then the disk says that nobody is Primary.
    fn progress_demotion(&mut self, id: CommandId) {
        for (request, _) in std::mem::take(&mut self.admission) {
            self.fail_client(request, ClientError::NotPrimary);
        }
        if !self.clients_are_idle() {
            return;
        }
        self.close_epoch_if_begun(true);
        if self.peers.iter().any(|p| !p.transfer_log.is_empty() || !p.barriers.is_empty()) {
            return;
        }
        let Some(metadata) = self.disk.metadata.as_mut() else { return self.demoted(id) };
        metadata.superblock.flags.primary = false;
        metadata.superblock.peers.iter_mut().for_each(|slot| slot.bits_volatile = false);
        self.begin(id, Stage::Persisting);
        let with_bitmap = !seeded!(self, DemotesWithoutBitmap);
        self.disk.persist.request_then(with_bitmap, Then::Demoted(id));
    }

    pub(super) fn demoted(&mut self, id: CommandId) {
        self.set_role(Role::Secondary);
        self.finish_command(id, Ok(()));
    }
}

/// The disk failed while the command waited for it.
pub(super) fn disk_lost() -> CommandError {
    CommandError::Failure {
        number: 118,
        text: "IO error(s) occurred during access to meta-data",
        detail: vec!["the disk was detached; see the daemon's log".into()],
    }
}

fn failure((number, text): (u16, &'static str)) -> CommandError {
    CommandError::Failure { number, text, detail: Vec::new() }
}
