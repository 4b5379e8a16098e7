//! Growing the volume while it is in use.
//!
//! The disk is measured, the peer is asked to do the same, and the smaller of both decides. Then the volume grows here, and a
//! round of the handshake tells the peer, which grows with it and, unless the administrator knows better, gets what is new.

use super::{CurrentCommand, Question, Stage, failure};
use crate::engine::Engine;
use crate::engine::peer::Peer;
use crate::engine::persist::Version;
use crate::engine::resize::Size;
use crate::io::Resize;
use crate::layout::VolumeSize;
use crate::refusal::{
    CommandError, DISK_TOO_SMALL, INVALID_REQUEST, NEED_PRIMARY, NO_DISK, RESIZE_DURING_RESYNC, SHRINKS,
    StateChangeRefusal,
};
use crate::state::{ReplicationState, Role};
use crate::units::{BLOCK_BYTES, CommandId, NodeId};
use crate::wire::Message;

/// What is wanted, and how far it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resizing {
    wish: Resize,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Measuring,
    /// The peer measures; it has said how much room it has.
    Asking(Question, u64),
    /// The new size is written down.
    Growing(Version),
    /// The peer is told; clients see the new size when it knows.
    Meeting,
}

impl Resizing {
    pub(super) fn new(wish: Resize) -> Self {
        Resizing { wish, step: Step::Begin }
    }

    /// It need not be waited for: nothing has changed yet, or all goes on by itself.
    pub(super) fn may_end(self) -> bool {
        !matches!(self.step, Step::Growing(_))
    }
}

impl Engine {
    pub(super) fn progress_resize(&mut self, id: CommandId) {
        let Some(CurrentCommand { stage: Stage::Resizing(Resizing { wish, step }), .. }) =
            self.current_command
        else {
            return;
        };
        match step {
            Step::Growing(_) | Step::Meeting if !self.disk.is_usable() => {
                self.finish_command(id, Err(super::disk_lost()));
            }
            // A peer that is being left behind says that its data grows old: a handshake across that would not hear of it.
            Step::Growing(version)
                if self.disk.persist.is_durable(version)
                    && self.peers.iter().all(|p| p.pulling_ahead.is_none()) =>
            {
                for peer in self.peer_ids() {
                    self.begin_handshake(peer);
                }
                self.go_on_resizing(id, wish, Step::Meeting);
            }
            Step::Meeting
                if !self.peers.iter().any(Peer::is_negotiating)
                    && (!self.disk.growth.is_hidden() || self.is_frozen()) =>
            {
                self.finish_command(id, Ok(()));
            }
            Step::Growing(_) | Step::Meeting => {}
            _ if self.peers.iter().any(Peer::is_negotiating) => {}
            _ => match self.prepare_resize(wish, step) {
                Ok(next) if std::mem::discriminant(&next) == std::mem::discriminant(&step) => {}
                Ok(next) => self.go_on_resizing(id, wish, next),
                Err(error) => self.finish_command(id, Err(error)),
            },
        }
    }

    /// What this node grows by comes first: a peer that asks for the room is to grow behind that. Where both ask, the lower
    /// node id comes first.
    pub(in crate::engine) fn grows_before(&self, peer: NodeId) -> bool {
        let Some(CurrentCommand { stage: Stage::Resizing(resizing), .. }) = self.current_command else {
            return false;
        };
        match resizing.step {
            Step::Begin | Step::Measuring => false,
            Step::Asking(..) => self.config.node < peer,
            Step::Growing(_) | Step::Meeting => true,
        }
    }

    fn go_on_resizing(&mut self, id: CommandId, wish: Resize, step: Step) {
        self.has_changed = true;
        self.begin(id, Stage::Resizing(Resizing { wish, step }));
    }

    /// One step on, as long as nothing has changed.
    fn prepare_resize(&mut self, wish: Resize, step: Step) -> Result<Step, CommandError> {
        let peer = self.may_resize(wish)?;
        match (step, peer) {
            (Step::Begin, _) => {
                self.measure_disk();
                Ok(Step::Measuring)
            }
            (Step::Measuring, _) if !self.knows_its_room() => Ok(step),
            (Step::Measuring, Some(peer)) => {
                let question = self.ask(peer);
                self.send(peer, Message::ResizeRequest { id: question.id, assume_clean: wish.assume_clean });
                Ok(Step::Asking(question, 0))
            }
            (Step::Asking(question, _), Some(peer)) if question.answer.is_none() && question.peer == peer => {
                Ok(step)
            }
            (Step::Asking(question, room_bytes), Some(peer)) if question.peer == peer => {
                self.begin_to_grow(wish, Some(room_bytes))
            }
            (Step::Asking(..), Some(_)) => Ok(Step::Measuring),
            (Step::Measuring | Step::Asking(..), None) => self.begin_to_grow(wish, None),
            (Step::Growing(_) | Step::Meeting, _) => Ok(step),
        }
    }

    fn begin_to_grow(&mut self, wish: Resize, peers_room: Option<u64>) -> Result<Step, CommandError> {
        if !self.layout().is_single() {
            return self.begin_to_grow_volumes(wish, peers_room);
        }
        let (size, own_room) = (self.size_bytes(), self.room_bytes());
        let room = own_room.min(peers_room.unwrap_or(u64::MAX));
        let wanted = wish.size_bytes.map_or(room, |bytes| bytes / BLOCK_BYTES * BLOCK_BYTES);
        if wanted < size {
            return Err(shrinks(wanted, size));
        }
        if wanted > room {
            return Err(self.too_small(wanted, own_room, peers_room));
        }
        if wanted == size {
            let Some(obstacle) = self.disk.growth.obstacle.clone() else { return Ok(Step::Meeting) };
            return Err(explained(DISK_TOO_SMALL, obstacle));
        }
        let size = Size { bytes: wanted, layout: self.layout().clone() };
        Ok(Step::Growing(self.grow(&size, !wish.assume_clean)))
    }

    /// Each volume that shall grows, by ascending number, as far as its disks let it.
    fn begin_to_grow_volumes(&mut self, wish: Resize, peers_room: Option<u64>) -> Result<Step, CommandError> {
        let own_rooms = self.rooms();
        let mut layout = self.layout().clone();
        let volumes = self.layout().volumes().to_vec();
        let chosen = |volume: &VolumeSize| wish.volume.is_none_or(|number| number == volume.number);
        for (index, volume) in volumes.iter().enumerate().filter(|(_, volume)| chosen(volume)) {
            let peers = peers_room.map(|_| self.disk.growth.peers_rooms.get(index).copied().unwrap_or(0));
            let own = own_rooms.get(index).copied().unwrap_or(0);
            let room = own.min(peers.unwrap_or(u64::MAX));
            let most = room.max(volume.bytes);
            let wanted = wish.size_bytes.map_or(most, |bytes| bytes / BLOCK_BYTES * BLOCK_BYTES);
            if wanted < volume.bytes {
                return Err(shrinks(wanted, volume.bytes));
            }
            if wanted > most {
                return Err(self.too_small(wanted, own, peers));
            }
            let grown = layout.grown(index, wanted);
            layout = grown.map_err(|error| explained(INVALID_REQUEST, error.to_string()))?;
        }
        if layout == *self.layout() {
            let Some(obstacle) = self.disk.growth.obstacle.clone() else { return Ok(Step::Meeting) };
            return Err(explained(DISK_TOO_SMALL, obstacle));
        }
        let size = Size { bytes: layout.space_bytes(), layout };
        for (whose, room) in [("here", self.room_bytes()), ("on the peer", peers_room.unwrap_or(u64::MAX))] {
            if size.bytes > room {
                return Err(explained(DISK_TOO_SMALL, self.bitmaps_too_small(whose, room, &size)));
            }
        }
        Ok(Step::Growing(self.grow(&size, !wish.assume_clean)))
    }

    fn bitmaps_too_small(&self, whose: &str, room: u64, size: &Size) -> String {
        let needed = self.disk.metadata.as_ref().map_or(0, |m| m.bytes_to_cover(&size.layout));
        let first = size.layout.volumes().first().map_or(0, |volume| volume.number);
        format!(
            "the volumes would take {} bytes together, the bitmaps {whose} have room for {room}: grow the disk that holds the \
             meta-data, volume {first}'s or its 'meta-disk', by {needed} bytes or more, run 'resize', which makes room, and \
             run it again",
            size.bytes
        )
    }

    /// Who takes part besides this node, or why nobody may.
    fn may_resize(&self, wish: Resize) -> Result<Option<NodeId>, CommandError> {
        if !self.disk.is_usable() || self.disk.leaving {
            return Err(failure(NO_DISK));
        }
        if wish.size_bytes.is_some() && wish.volume.is_none() && !self.layout().is_single() {
            let text = "a size is one volume's: name it, as in 'resize RES/0 --size=...'";
            return Err(explained(INVALID_REQUEST, text.into()));
        }
        let refused = |refusal, detail: String| CommandError::Refused { refusal, detail: vec![detail] };
        let Some(peer) = self.peers.iter().find(|p| p.is_connected()) else {
            return match wish.assume_peer_has_space {
                true if self.disk.is_good_alone() => Ok(None),
                true => {
                    let text = format!("the local disk is {}", self.disk.state);
                    Err(refused(StateChangeRefusal::NoUpToDateDisk, text))
                }
                false => {
                    let text = "no peer is connected that could say whether its disk has grown; if it has, run \
                                'resize --assume-peer-has-space'";
                    Err(refused(StateChangeRefusal::NeedConnection, text.into()))
                }
            };
        };
        let name = &peer.config.name;
        if peer.replication != ReplicationState::Established || peer.pulling_ahead.is_some() || peer.gives_up
        {
            let text = format!("replication with {name} is in state {}", peer.replication);
            return Err(explained(RESIZE_DURING_RESYNC, text));
        }
        if self.role != Role::Primary && peer.role != Role::Primary {
            return Err(failure(NEED_PRIMARY));
        }
        if !self.disk.is_good() || peer.disk != crate::state::DiskState::UpToDate {
            let text = format!("the local disk is {}, that of {name} is {}", self.disk.state, peer.disk);
            return Err(refused(StateChangeRefusal::NoUpToDateDisk, text));
        }
        Ok(Some(peer.id()))
    }

    fn too_small(&self, wanted: u64, own_room: u64, peers_room: Option<u64>) -> CommandError {
        let at = match peers_room {
            Some(room) if room < own_room => format!("the peer's disk has room for {room} bytes of data"),
            _ => format!("the local disk has room for {own_room} bytes of data"),
        };
        let mut detail = vec![format!("{wanted} bytes are wanted, {at}: grow it first")];
        detail.extend(self.disk.growth.obstacle.clone());
        let (number, text) = DISK_TOO_SMALL;
        CommandError::Failure { number, text, detail }
    }

    /// The peer says how much room it has.
    pub(in crate::engine) fn resize_answered(
        &mut self,
        id: NodeId,
        question: u64,
        room_bytes: u64,
        rooms: Vec<u64>,
    ) -> Result<(), String> {
        if let Some(CurrentCommand { stage: Stage::Resizing(resizing), .. }) = self.current_command.as_mut()
            && let Step::Asking(asked, room) = &mut resizing.step
            && asked.is(id, question)
        {
            asked.answer = Some(true);
            *room = room_bytes;
            self.disk.growth.peers_rooms = rooms;
        }
        Ok(())
    }
}

fn shrinks(wanted: u64, size: u64) -> CommandError {
    let text = format!(
        "{wanted} bytes are fewer than the volume has, {size}: shrink what is on it, take the resource down on both nodes, run \
         'create-md' with 'disk {{ size {}k; }}' on both, and promote the node that has the data with 'primary --force'",
        wanted / 1024
    );
    explained(SHRINKS, text)
}

fn explained((number, text): (u16, &'static str), detail: String) -> CommandError {
    CommandError::Failure { number, text, detail: vec![detail] }
}
