//! The volume grows: how much room the disk has, where internal metadata lies on it, and when clients see the new size.
//!
//! Three things that need nothing of each other, so that a crash between any two is nothing special. The disk is *measured*:
//! if it has grown, internal metadata moves to its end, and the volume stays as it is. Only whoever says `resize` has that done,
//! here or on the peer: a disk may have grown by mistake, and is cut again. The volume is *grown* in the metadata,
//! by the command on one node, and on the other in the handshake that follows: of two sizes the larger one counts, and the
//! one who learns of it needs no more than room. The new size is *shown* to clients when it is durable here and no peer
//! that is connected has another.

use bytes::Bytes;

use super::Engine;
use super::persist::Version;
use crate::io::{Device, DiskError, DiskOpKind, Level, Measured, Output};
use crate::layout::{Layout, VolumeSize};
use crate::metadata::{ActivityLogState, Geometry, LastPlace, Metadata, NotMoved, Placement, RING_BYTES};
use crate::seeded;
use crate::state::DiskState;
use crate::units::{ByteRange, NodeId};
use crate::wire::{Handshake, Message};

/// Of metadata that moves: as many pieces of 1 MiB are under way, so that it takes little memory and no disk long to answer.
const WRITES_AT_A_TIME: usize = 16;

/// What is under way on the attached disk.
#[derive(Clone, Default, Debug)]
pub(super) struct Growth {
    /// The driver was asked how large the disk is.
    measuring: bool,
    /// The same, and nothing is made of it.
    looking: bool,
    /// The version of the metadata that says what came of it.
    measured: Version,
    /// A disk of this size, which is larger than it was, has this room.
    larger_place: Option<(Geometry, u64)>,
    /// As large is the metadata's disk.
    meta_bytes: u64,
    /// The metadata is to be moved there, on a device of this size.
    relocation: Option<(Geometry, u64)>,
    /// The disks of the volumes behind the first have this room, once what they have grown by is used.
    larger_others: Vec<u64>,
    /// What the peer has answered: the room of each of several volumes.
    pub(super) peers_rooms: Vec<u64>,
    /// Why there is no more room.
    pub(super) obstacle: Option<String>,
    /// A peer wants to know how much room there is: who, on which connection, by which question.
    asked_by: Option<(NodeId, u32, u64)>,
    /// Clients still see the old size.
    hidden: Option<Hidden>,
}

/// A size that clients do not see yet.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    /// What they see.
    old_bytes: u64,
    /// It is durable with this version of the metadata.
    version: Version,
}

/// How large the volume is; of several, where they lie.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) layout: Layout,
}

impl Size {
    /// A disk with this room, all in all and for each volume, can hold it; or what it lacks.
    pub(super) fn fits(&self, room_bytes: u64, rooms: &[u64]) -> Result<(), String> {
        let mut volumes = self.layout.volumes().iter().zip(rooms);
        if let Some((volume, room)) = volumes.find(|(volume, room)| volume.bytes > **room) {
            let VolumeSize { number, bytes } = volume;
            return Err(format!(
                "The disk of volume {number} has room for {room} bytes of data, {bytes} are needed"
            ));
        }
        match self.bytes > room_bytes {
            true => Err(format!("It has room for {room_bytes} bytes of data, {} are needed", self.bytes)),
            false => Ok(()),
        }
    }
}

impl Growth {
    /// Clients still see the old size.
    pub(super) fn is_hidden(&self) -> bool {
        self.hidden.is_some()
    }

    /// The driver was asked how large the disk is.
    pub(super) fn is_measuring(&self) -> bool {
        self.measuring
    }

    /// The driver was asked how large the disk is by now, and nothing is made of the answer.
    pub(super) fn is_looking(&self) -> bool {
        self.looking
    }

    /// The metadata waits to be moved.
    pub(super) fn is_moving(&self) -> bool {
        self.relocation.is_some()
    }
}

impl Engine {
    // The disk is measured.

    pub(super) fn measure_disk(&mut self) {
        if !self.disk.growth.measuring {
            self.disk.growth.measuring = true;
            self.outputs.push_back(Output::MeasureDisk { use_all: true });
        }
    }

    /// A disk lacks room for what both should have. It was measured when the connection was made, and may have grown since, as the
    /// peer's has: both look once more before they say so. False if they have.
    pub(super) fn measures_again(&mut self, id: NodeId) -> bool {
        let looks = self.disk.is_usable() && !self.disk.growth.looking;
        let Some(peer) = self.peer_mut(id).filter(|p| !p.was_measured_again) else { return false };
        peer.was_measured_again = true;
        if looks && !seeded!(self, BelievesOldSize) {
            self.disk.growth.looking = true;
            self.outputs.push_back(Output::MeasureDisk { use_all: false });
        }
        true
    }

    /// The driver tells how large the disk is, or why nobody may know. What it has grown by is used if that was asked for.
    pub(super) fn disk_measured(&mut self, measured: Result<Measured, DiskError>) {
        if !self.disk.is_usable() {
            return;
        }
        self.disk.growth.looking = false;
        let asked = std::mem::take(&mut self.disk.growth.measuring) || seeded!(self, MovesUnasked);
        let place = measured.map_err(|why| why.to_string());
        let (others, meta_bytes) = place
            .as_ref()
            .map_or((Vec::new(), 0), |measured| (measured.other_rooms.clone(), measured.meta_bytes));
        let place = place.and_then(|measured| self.larger_place(measured).map_err(|why| why.to_string()));
        (self.disk.growth.larger_others, self.disk.growth.meta_bytes) = (others, meta_bytes);
        let growth = &mut self.disk.growth;
        (growth.larger_place, growth.obstacle) = match place {
            Ok(place) => (place, None),
            Err(why) => (None, Some(why)),
        };
        if asked {
            self.use_larger_place();
        }
        if asked || seeded!(self, GrowsOverStamp) {
            self.use_larger_others();
        }
    }

    /// The driver has brought what marks those disks to their ends.
    fn use_larger_others(&mut self) {
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let others = metadata.rooms.iter_mut().skip(1).zip(&self.disk.growth.larger_others);
        others.for_each(|(room, larger)| *room = (*room).max(*larger));
    }

    /// Where the metadata of the attached disk lies, if it is internal: before it moves, that must be known outside of the
    /// disk.
    pub fn internal_metadata(&self) -> Option<LastPlace> {
        let metadata = self.disk.metadata.as_ref()?;
        let is_internal = metadata.geometry.placement == Placement::Internal;
        let (device_id, end) = (metadata.superblock.device_id, metadata.place().end());
        is_internal.then(|| LastPlace { device_id, ends: vec![end] })
    }

    /// What there is for the data, and where the metadata would lie, on a disk that is larger than it was.
    fn larger_place(&self, measured: Measured) -> Result<Option<(Geometry, u64)>, NotMoved> {
        let Measured { backing_bytes, meta_bytes, limit_bytes, .. } = measured;
        let Some(metadata) = self.disk.metadata.as_ref() else { return Ok(None) };
        let geometry = match metadata.geometry.placement {
            Placement::Internal => match metadata.place_at_end_of(backing_bytes) {
                Err(NotMoved::AtTheEnd) => return Ok(None),
                place => place?,
            },
            Placement::External => {
                let max_peers = metadata.geometry.max_peers;
                let room = match metadata.superblock.layout.is_single() {
                    true => 0,
                    false => metadata.room_behind_first(Placement::External, backing_bytes, meta_bytes),
                };
                Geometry::with_more_volumes(Placement::External, backing_bytes, meta_bytes, max_peers, room)?
            }
        };
        let data_bytes = geometry.data_bytes.min(limit_bytes.unwrap_or(u64::MAX));
        let room_now = metadata.rooms.first().copied().unwrap_or(metadata.geometry.data_bytes);
        let larger = geometry.placement == Placement::Internal
            || data_bytes > room_now
            || !metadata.rooms.is_empty() && geometry.covered_bytes() > metadata.geometry.covered_bytes();
        Ok(larger.then_some((Geometry { data_bytes, ..geometry }, backing_bytes)))
    }

    /// What the disk has grown by is for the data from now on. Somebody has asked for it: nothing else says that the disk
    /// is to stay so large.
    fn use_larger_place(&mut self) {
        let growth = &mut self.disk.growth;
        let meta_bytes = growth.meta_bytes;
        let Some((geometry, backing_bytes)) = growth.larger_place.take().filter(|_| !growth.is_moving())
        else {
            return;
        };
        match self.disk.metadata.as_mut() {
            Some(metadata) if geometry.placement == Placement::External => {
                metadata.use_geometry(geometry, backing_bytes, meta_bytes);
            }
            _ => self.disk.growth.relocation = Some((geometry, backing_bytes)),
        }
        self.disk.growth.measured = self.disk.persist.request(true);
    }

    /// Measured, and what came of it is durable.
    pub(super) fn knows_its_room(&self) -> bool {
        let growth = &self.disk.growth;
        !growth.measuring && self.disk.persist.is_durable(growth.measured)
    }

    /// The size that the disk says was agreed on; 0 if none was.
    pub(super) fn size_agreed(&self) -> u64 {
        self.disk.metadata.as_ref().map_or(0, |m| m.superblock.agreed_bytes)
    }

    /// Bytes of data that the disk has room for; of several volumes, what the bitmaps have room for. 0 without a disk.
    pub(super) fn room_bytes(&self) -> u64 {
        self.disk.metadata.as_ref().map_or(0, |m| match m.rooms.is_empty() {
            true => m.geometry.data_bytes,
            false => m.geometry.covered_bytes(),
        })
    }

    /// The same, if what it has grown by were used.
    pub(super) fn larger_room_bytes(&self) -> u64 {
        let single = self.layout().is_single();
        let room = |geometry: Geometry| if single { geometry.data_bytes } else { geometry.covered_bytes() };
        let larger = self.disk.growth.larger_place.map_or(0, |(geometry, _)| room(geometry));
        self.room_bytes().max(larger)
    }

    /// Bytes of data that the disk of each of several volumes has room for; none without a disk.
    pub(super) fn rooms(&self) -> Vec<u64> {
        let Some(metadata) = self.disk.metadata.as_ref() else { return Vec::new() };
        // A 'size' that the administrator has made smaller is none that anything shrinks to.
        let volumes = metadata.superblock.layout.volumes().iter().zip(&metadata.rooms);
        volumes.map(|(volume, room)| volume.bytes.max(*room)).collect()
    }

    /// The same, if what they have grown by were used.
    pub(super) fn larger_rooms(&self) -> Vec<u64> {
        let growth = &self.disk.growth;
        let first = growth.larger_place.map_or(0, |(geometry, _)| geometry.data_bytes);
        let larger = std::iter::once(first).chain(growth.larger_others.iter().copied());
        let larger = larger.chain(std::iter::repeat(0));
        self.rooms().into_iter().zip(larger).map(|(room, larger)| room.max(larger)).collect()
    }

    // The peer's volume is larger.

    /// The larger volume does not fit where the other's metadata lies: that moves, and both meet anew. Until then nobody
    /// draws a conclusion.
    pub(super) fn makes_room_first(
        &mut self,
        id: NodeId,
        size: &Size,
        mine: &Handshake,
        theirs: &Handshake,
    ) -> bool {
        let fits = |h: &Handshake| size.fits(h.disk_bytes, &h.rooms).is_ok();
        if !fits(mine) {
            self.use_larger_place();
            if !size.layout.is_single() {
                // The other volumes' disks are the driver's to prepare.
                self.measure_disk();
            }
        }
        if !fits(mine) || !fits(theirs) {
            self.note_what_peer_makes_of_it(id, theirs.disk, false);
            self.begin_handshake(id);
            return true;
        }
        false
    }

    /// The stages of a run that moves the metadata, with everything that was asked for until now.
    pub(super) fn relocation_stages(&mut self) -> Option<Vec<Vec<(Device, DiskOpKind)>>> {
        let (wipes_first, forgets_log) = (seeded!(self, WipesBeforeMoving), seeded!(self, MovesWithoutLog));
        let leaves_a_copy = seeded!(self, MovesOneCopy);
        let (mut geometry, device_bytes) = self.disk.growth.relocation.take()?;
        let metadata = self.disk.metadata.as_mut()?;
        if leaves_a_copy {
            geometry.superblock_offsets[1] = metadata.geometry.superblock_offsets[1];
        }
        let mut ring = vec![0; RING_BYTES];
        if let Some(table) = self.disk.log.table_mut().filter(|_| !forgets_log) {
            let first = table.write_anew(&mut ring);
            if let ActivityLogState::Open(counts) = &mut metadata.superblock.activity_log {
                *counts = first;
            }
        }
        let mut steps = metadata.move_to(geometry, device_bytes, vec![(0, Bytes::from(ring))]);
        if wipes_first {
            steps.rotate_right(1);
        }
        let write = |(offset, data)| (Device::Meta, DiskOpKind::Write { offset, data, fua: false });
        // No bit is cleared on disk before the block it stands for is durable.
        let mut stages = vec![vec![(Device::Data, DiskOpKind::Flush)]];
        for step in steps {
            let runs = step.chunks(WRITES_AT_A_TIME);
            stages.extend(runs.map(|run| run.iter().cloned().map(write).collect()));
            stages.push(vec![(Device::Meta, DiskOpKind::Flush)]);
        }
        let kib = device_bytes / 1024;
        self.note(
            None,
            Level::Info,
            format!("the disk has grown: its meta-data moves to the end of {kib} KB"),
        );
        Some(stages)
    }

    // A peer asks.

    pub(super) fn resize_requested(
        &mut self,
        id: NodeId,
        question: u64,
        assume_clean: bool,
    ) -> Result<(), String> {
        if !self.disk.is_usable() || self.disk.leaving {
            self.send(id, Message::ResizeReply { id: question, room_bytes: 0, rooms: Vec::new() });
            return Ok(());
        }
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        peer.assumes_clean = assume_clean;
        self.disk.growth.asked_by = Some((id, peer.session, question));
        self.measure_disk();
        Ok(())
    }

    /// Answers the peer that asks for the room, and shows clients the size that they may see.
    pub(super) fn progress_growth(&mut self) {
        if self.knows_its_room()
            && let Some((id, session, question)) = self.disk.growth.asked_by
            && !self.grows_before(id)
        {
            self.disk.growth.asked_by = None;
            if self.peer(id).is_some_and(|p| p.link_up && p.session == session) {
                let (room_bytes, rooms) = (self.room_bytes(), self.rooms());
                self.send(id, Message::ResizeReply { id: question, room_bytes, rooms });
            }
        }
        if let Some(Hidden { version, .. }) = self.disk.growth.hidden
            && self.disk.persist.is_durable(version)
            && self.peers_agree_on_size()
            && !self.is_frozen()
        {
            // While it is frozen, another one may be promoted in its place that has not grown.
            self.disk.growth.hidden = None;
            self.has_changed = true;
        }
    }

    /// No write that a client may now give is beyond the end for a peer; and one that is to be sent what is new knows that it
    /// lacks it, whatever becomes of it.
    fn peers_agree_on_size(&self) -> bool {
        let size_bytes = self.size_bytes();
        let agrees = |p: &super::Peer| {
            let same = p.lost_disk() || p.volume_bytes == size_bytes;
            p.is_connected() && !p.in_round && same && !p.is_unmarked_target()
        };
        self.peers.iter().all(|p| !p.link_up || agrees(p))
    }

    // The volume grows.

    /// The size that clients see: it grows when that is durable, and no peer that is connected has another.
    pub fn shown_bytes(&self) -> u64 {
        self.disk.growth.hidden.map_or(self.size_bytes(), |hidden| hidden.old_bytes)
    }

    /// From now on the volume is larger; what is new counts as different if it is to be sent. Returns the version of the
    /// metadata that says so.
    pub(super) fn grow(&mut self, size: &Size, mark: bool) -> Version {
        let bytes = size.bytes;
        let mark = mark && !seeded!(self, GrowsWithoutBits);
        let (old_bytes, shown_bytes) = (self.size_bytes(), self.shown_bytes());
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.use_size(size);
            let slots = metadata.superblock.peers.iter();
            for (bitmap, slot) in metadata.bitmaps.iter_mut().zip(slots) {
                bitmap.grow_to(bytes);
                if mark && slot.node.is_some() {
                    bitmap.set_range(ByteRange::new(old_bytes, bytes - old_bytes));
                }
            }
        }
        if let Some(log) = self.disk.undo.log_mut() {
            log.grow_to(bytes);
        }
        let version = self.disk.persist.request(true);
        self.show_later(shown_bytes, version);
        let text = format!("size = {} KB (was {} KB)", bytes / 1024, old_bytes / 1024);
        self.note(None, Level::Info, text);
        version
    }

    /// Clients go on with this size until that version of the metadata is durable.
    pub(super) fn show_later(&mut self, old_bytes: u64, version: Version) {
        let hidden = Some(Hidden { old_bytes, version });
        self.disk.growth.hidden = if seeded!(self, ShowsSizeEarly) { None } else { hidden };
    }

    /// Clients of a node that works through its peer's good data see the size that the peer has.
    pub(super) fn learn_size_without_disk(&mut self, theirs: &Handshake) {
        let had_one = self.last_size_bytes > 0 && !self.disk.is_usable();
        if had_one && theirs.disk > DiskState::Outdated && self.last_layout.begins(&theirs.layout) {
            self.last_size_bytes = self.last_size_bytes.max(theirs.agreed_bytes);
            self.last_layout = theirs.layout.clone();
        }
    }

    /// The peer's volume has this size from now on, and on its disk the one that is known, if one is. True if ours has grown to it.
    pub(super) fn learn_size(&mut self, id: NodeId, size: &Size, known_bytes: u64) -> bool {
        let bytes = size.bytes;
        let Some(peer) = self.peer_mut(id) else { return false };
        peer.volume_bytes = if known_bytes == 0 { bytes } else { known_bytes };
        let mark = !std::mem::take(&mut peer.assumes_clean);
        let has_grown = |m: &Metadata| {
            let agreed_bytes = m.superblock.agreed_bytes;
            agreed_bytes != 0 && agreed_bytes < bytes && !m.superblock.generations.is_fresh()
        };
        if !self.disk.metadata.as_ref().is_some_and(has_grown) {
            self.set_size(size);
            return false;
        }
        let mut layout = size.layout.clone();
        if seeded!(self, GrowsAnotherVolume)
            && let Some(first) = self.layout().volumes().first()
        {
            let first_grows = size.layout.volumes().first().is_some_and(|volume| volume.bytes > first.bytes);
            let other = usize::from(first_grows);
            let more = bytes - self.size_bytes();
            layout =
                self.layout().grown(other, self.layout().volumes()[other].bytes + more).unwrap_or(layout);
        }
        let version = self.grow(&Size { bytes, layout }, mark);
        // What it writes there must not vanish in a crash.
        if let Some(peer) = self.peer_mut(id) {
            peer.stalled_until = Some(version);
        }
        true
    }
}

impl Metadata {
    /// This is what was agreed on.
    pub(super) fn use_size(&mut self, size: &Size) {
        self.superblock.agreed_bytes = size.bytes;
        if !size.layout.is_single() {
            self.superblock.layout = size.layout.clone();
            self.geometry.data_bytes = size.bytes;
        }
    }

    /// The data has this room from now on, on a disk of this size; the metadata stays where it is.
    fn use_geometry(&mut self, geometry: Geometry, backing_bytes: u64, meta_bytes: u64) {
        self.use_place(geometry, backing_bytes, meta_bytes);
        let bytes = self.volume_bytes();
        // Before any size was agreed on, the volume has all the room.
        self.bitmaps.iter_mut().for_each(|bitmap| bitmap.grow_to(bytes));
    }
}
