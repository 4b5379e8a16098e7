//! Taking a disk into use, and giving it up.

use super::{CurrentCommand, Stage, failure};
use crate::engine::disk::DiskWork;
use crate::engine::peer::Peer;
use crate::engine::persist::Then;
use crate::engine::resize::Size;
use crate::engine::{Engine, Reign};
use crate::io::{Device, DiskOpKind, Level};
use crate::metadata::Metadata;
use crate::refusal::{
    CommandError, DATA_NOT_CURRENT, DISK_TOO_SMALL, HAS_DISK, INVALID_REQUEST, StateChangeRefusal,
};
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::CommandId;

impl Engine {
    pub(super) fn attach(&mut self, id: CommandId, metadata: Metadata) {
        if self.disk.open || self.disk.is_usable() {
            return self.finish_command(id, Err(failure(HAS_DISK)));
        }
        let alone = self.role == Role::Primary && self.good_peer().is_none();
        if alone && !self.has_what_was_exposed(&metadata) {
            return self.finish_command(id, Err(not_what_was_exposed()));
        }
        if self.role == Role::Primary
            && let Err(detail) = self.fits_exposed_size(&metadata)
        {
            let (number, text) = DISK_TOO_SMALL;
            return self
                .finish_command(id, Err(CommandError::Failure { number, text, detail: vec![detail] }));
        }
        let (exposed_bytes, exposed_layout) = (self.size_bytes(), self.layout().clone());
        self.reign = Reign::Idle;
        let attachment = self.attachment_of(&metadata);
        self.disk.begin_attachment(metadata, attachment);
        if self.role == Role::Primary {
            let exposed = Size { bytes: exposed_bytes, layout: exposed_layout };
            self.set_size(&self.size_with(exposed));
            self.show_later(exposed_bytes, 0);
        }
        if let Err(text) = self.assign_slots() {
            self.disk.metadata = None;
            self.disk.release_when_idle = true;
            let (number, refused) = INVALID_REQUEST;
            let error = CommandError::Failure { number, text: refused, detail: vec![text] };
            return self.finish_command(id, Err(error));
        }
        self.begin(id, Stage::Persisting);
        self.set_disk(DiskState::Attaching);
        self.recover_after_crash();
        let node = self.config.node;
        let failed = std::mem::take(&mut self.disk.has_failed) && self.disk.left_behind;
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.node = Some(node);
            metadata.superblock.flags.failed |= failed;
            metadata.superblock.flags.up_to_date &=
                alone || !self.disk.left_behind && self.role != Role::Primary;
        }
        self.disk.attaches_alone = alone;
        // From here on it counts whether somebody goes on without it.
        self.disk.left_behind &= !alone;
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

    fn recover_after_crash(&mut self) {
        self.recover_log();
        let forget = seeded!(self, ForgetsCrash);
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let flags = &mut metadata.superblock.flags;
        let crashed = std::mem::take(&mut flags.primary) && !forget;
        flags.crashed_primary |= crashed;
        let died_as_primary = flags.crashed_primary;
        self.peers.iter_mut().for_each(|p| p.parted_as_primary = died_as_primary);
        if crashed {
            self.note(None, Level::Warn, "this node crashed as Primary");
        }
    }

    /// What clients have seen, or what it has become on the disk that is being attached.
    fn size_with(&self, exposed: Size) -> Size {
        match exposed.layout.is_single() {
            true => Size { bytes: exposed.bytes.max(self.size_agreed()), ..exposed },
            false if exposed.layout.begins(self.layout()) => {
                Size { bytes: self.layout().space_bytes(), layout: self.layout().clone() }
            }
            false => exposed,
        }
    }

    /// Clients have seen a volume of a size that this disk must have.
    fn fits_exposed_size(&self, metadata: &Metadata) -> Result<(), String> {
        let (exposed, room) = (self.last_size_bytes, metadata.geometry.data_bytes);
        let agreed = metadata.superblock.agreed_bytes;
        let layout = &metadata.superblock.layout;
        let has_no_data =
            metadata.superblock.generations.is_fresh() && self.last_layout.has_same_volumes(layout);
        if !self.last_layout.begins(layout) && !has_no_data {
            return Err("this disk was made for other volumes than those that clients use".into());
        }
        if !layout.is_single() {
            let used = Size { bytes: exposed, layout: self.last_layout.clone() };
            return used.fits(metadata.geometry.covered_bytes(), &metadata.rooms);
        }
        if room < exposed {
            return Err(format!(
                "the volume that clients use has {exposed} bytes, the disk has room for {room}"
            ));
        }
        if agreed != 0 && agreed < exposed {
            return Err(format!(
                "the volume that clients use has {exposed} bytes, this disk was one of {agreed}"
            ));
        }
        Ok(())
    }

    pub(in crate::engine) fn attached(&mut self, id: CommandId) {
        self.begin(id, Stage::Attaching);
        self.progress_attach(id);
    }

    /// The data meets the peers' when no client is at work here.
    pub(super) fn progress_attach(&mut self, id: CommandId) {
        if !self.disk.is_usable() {
            return self.finish_command(id, Err(super::disk_lost()));
        }
        let alone = std::mem::take(&mut self.disk.attaches_alone);
        if alone && (self.peers.iter().any(|p| p.link_up) || self.disk.left_behind) {
            self.give_up_disk("a peer came while it was attached to a Primary");
            return self.finish_command(id, Err(not_what_was_exposed()));
        }
        self.disk.attaches_alone = alone;
        if !self.clients_are_drained() && !seeded!(self, WritesWhileAttaching) {
            return;
        }
        if let Some(metadata) = self.disk.metadata.as_ref() {
            self.last_size_bytes = metadata.volume_bytes();
            self.last_layout = metadata.superblock.layout.clone();
        }
        for peer in self.peer_ids() {
            if self.peer(peer).is_some_and(|p| !p.is_connected()) {
                self.set_peer_disk(peer, self.disk_of_absent_peer(peer));
            }
        }
        // A peer that is connected has a say in what the data is worth.
        self.set_disk(DiskState::Negotiating);
        for peer in self.peer_ids() {
            self.begin_handshake(peer);
        }
        if !self.peers.iter().any(|p| p.link_up) {
            self.end_negotiation(DiskState::UpToDate);
        }
        if self.role == Role::Primary && self.has_good_disk() {
            // As after a crash: no copy that looks like this one is its equal any more.
            self.begin_reign();
        }
        self.finish_command(id, Ok(()));
    }

    pub(super) fn start_detach(&mut self, id: CommandId) {
        if !self.disk.is_usable() {
            return if self.disk.open {
                self.refuse_command(id, StateChangeRefusal::InTransientState, Vec::new())
            } else {
                self.finish_command(id, Ok(()))
            };
        }
        if let Some(detail) = self.why_not_detach() {
            return self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, vec![detail]);
        }
        self.begin(id, Stage::Detaching { flushing: false });
    }

    /// The disk holds the last good copy that a Primary can reach.
    fn why_not_detach(&self) -> Option<String> {
        if self.role == Role::Primary {
            return self
                .good_peer()
                .is_none()
                .then(|| "no peer has good data: --force gives up the last copy".into());
        }
        Some(format!("{}: --force takes it away", self.served_primary()?.is_served()))
    }

    /// A Primary without good data of its own, which works with this disk.
    pub(super) fn served_primary(&self) -> Option<&Peer> {
        let relies =
            |p: &&Peer| p.is_connected() && p.role == Role::Primary && p.disk < DiskState::Consistent;
        self.peers.iter().find(relies).filter(|_| self.disk.state == DiskState::UpToDate)
    }

    pub(super) fn force_detach(&mut self, id: CommandId) {
        self.give_up_disk("detach --force");
        self.finish_command(id, Ok(()));
    }

    pub(super) fn progress_detach(&mut self, id: CommandId) {
        if !self.disk.is_usable() {
            return self.finish_command(id, Ok(()));
        }
        if !self.disk.leaving {
            if let Some(detail) = self.why_not_detach() {
                self.stay_attached();
                return self.refuse_command(id, StateChangeRefusal::NoUpToDateDisk, vec![detail]);
            }
            if !self.clients_are_drained() {
                return;
            }
            // A handshake that is under way counts on the disk.
            if self.peers.iter().any(|p| p.our_handshake.is_some()) || !self.notes_that_it_is_left_behind() {
                return;
            }
            for peer in self.peer_ids() {
                self.abort_resync(peer);
                if self.peer(peer).is_some_and(|p| p.is_connected()) {
                    self.set_replication(peer, ReplicationState::Established);
                }
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

    /// With fencing or quorum, a disk that is given up while a Primary goes on without it says that its data grows old
    /// before anybody hears of it. True once that is durable, or need not be.
    fn notes_that_it_is_left_behind(&mut self) -> bool {
        let goes_on = self.role == Role::Primary
            || self.peers.iter().any(|p| p.is_connected() && p.role == Role::Primary);
        let left_behind = (self.fences() || self.config.options.quorum.is_needed()) && goes_on;
        if left_behind
            && let Some(metadata) = self.disk.metadata.as_mut()
            && std::mem::take(&mut metadata.superblock.flags.up_to_date)
        {
            self.disk.persist.request(false);
        }
        !left_behind || self.disk.persist.is_idle()
    }

    /// A detach comes to nothing: what the disk says of itself holds again.
    pub(super) fn stay_attached(&mut self) {
        let good = self.disk.state == DiskState::UpToDate;
        if let Some(metadata) = self.disk.metadata.as_mut().filter(|m| good && !m.superblock.flags.up_to_date)
        {
            metadata.superblock.flags.set_up_to_date();
            self.disk.persist.request(false);
        }
    }

    pub(in crate::engine) fn detach_flushed(&mut self, ok: bool) {
        let Some(CurrentCommand { id, stage: Stage::Detaching { .. } }) = self.current_command else {
            return;
        };
        if ok {
            self.begin(id, Stage::Persisting);
            self.close_log();
            if let Some(metadata) = self.disk.metadata.as_mut().filter(|_| self.role == Role::Primary) {
                // It goes on through its peer: this data grows old.
                (metadata.superblock.flags.primary, metadata.superblock.flags.up_to_date) = (false, false);
            }
            self.disk.persist.request_then(true, Then::Detached(id));
        } else {
            self.finish_command(id, Ok(()));
        }
    }

    /// The disk of a Primary comes or goes: clients wait until what they have begun has ended.
    pub(in crate::engine) fn changes_disk(&self) -> bool {
        match self.current_command.as_ref().map(|c| &c.stage) {
            Some(Stage::Attaching) => !seeded!(self, WritesWhileAttaching),
            Some(Stage::Detaching { .. }) => !self.disk.leaving,
            _ => false,
        }
    }

    pub(in crate::engine) fn detached(&mut self, id: CommandId) {
        self.note_what_is_kept();
        self.forget_metadata();
        self.abandon_persist();
        self.abort_resyncs_without_disk();
        self.let_waiters_go();
        self.set_disk(DiskState::Diskless);
        self.disk.release_when_idle = true;
        self.release_disk_if_idle();
        self.finish_command(id, Ok(()));
    }
}

fn not_what_was_exposed() -> CommandError {
    let detail = "no peer is connected whose data this Primary, which has no disk, has exposed, and this disk may lack some of \
                  it: make the node Secondary first, then attach";
    let (number, text) = DATA_NOT_CURRENT;
    CommandError::Failure { number, text, detail: vec![detail.into()] }
}
