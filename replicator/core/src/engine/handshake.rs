//! Where two nodes meet: what each has, what the other has, and what follows.
//!
//! A round: both send [`Handshake`], both evaluate [`decide`] on the same two values. Ours is sent only when nothing
//! is being written to the metadata and all that an earlier connection delivered has been applied, so that it says
//! what a crash would leave behind.

use super::Engine;
use super::disk::DiskWork;
use super::divergence::Farewell;
use super::peer::Peer;
use super::receiver::Receiver;
use super::resize::Size;
use super::split_brain::answer;
use crate::bitmap::Bitmap;
use crate::config::RrConflict;
use crate::generation::{Decision, Sides, Verdict, decide};
use crate::io::{Device, DiskOpKind, Level};
use crate::layout::Layout;
use crate::parting::{BOTH_DISCARD, LOCAL_TOO_SMALL, PEER_TOO_SMALL};
use crate::seeded;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{NodeId, SECTOR_BYTES};
use crate::wire::{Handshake, Message};

impl Engine {
    /// A round shall take place: a connection, a disk, or a forced decision is new.
    pub(super) fn begin_handshake(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peer_mut(id).filter(|p| p.link_up && p.farewell.is_none()) else { return };
        if !peer.in_round {
            peer.in_round = true;
            peer.round_since = now;
            peer.round += 1;
        } else if peer.our_handshake.is_some() {
            peer.round_again = true;
        }
    }

    /// Sends what is due.
    pub(super) fn exchange_handshakes(&mut self) {
        if !self.disk.persist.is_idle() && self.disk.is_usable() || self.fails_requests() {
            return;
        }
        if self.disk.growth.is_looking() || self.disk.growth.is_measuring() && !self.layout().is_single() {
            // What is said of the room shall be what there is.
            return;
        }
        for id in self.peer_ids() {
            let due = self.peer(id).is_some_and(|p| {
                // What a resync reads must hold everything that the target has sent until now. One that attaches its disk sends
                // nothing meanwhile, and may have sent what it does not wait for: it was the source that we had all of.
                let attaches = p.disk == DiskState::Negotiating;
                let writing = p.is_connected() && p.role == Role::Primary && !p.receiver_stale && !attaches;
                let drained = p.receiver.is_drained() || writing;
                p.link_up && p.in_round && p.our_handshake.is_none() && drained
            });
            if due {
                // What it has found until now is in the handshake.
                self.abort_verify(id);
            }
            let written = self.disk.persist.is_idle() || !self.disk.is_usable();
            let written = written && !self.is_about_to_mark();
            if due && written && self.is_settled() && self.is_ready_to_meet(id) {
                let ours = self.handshake(id);
                if let Some(peer) = self.peer_mut(id) {
                    peer.our_handshake = Some(ours.clone());
                }
                self.send(id, Message::Handshake(ours));
                self.conclude_round(id);
            }
        }
    }

    /// What a lost Primary sent may be in our disk's cache only. Before it serves a target, whose copy will be durable,
    /// it must be durable here: nothing marks it. A Primary's own writes are marked by its crash.
    fn is_settled(&mut self) -> bool {
        let settled = match self.role {
            Role::Primary => !self.disk.has_unflushed_peer_data(),
            Role::Secondary | Role::Unknown => !self.disk.has_unflushed_data(),
        };
        if settled {
            return true;
        }
        if !self.disk.settling {
            self.disk.settling = true;
            self.start_disk_op(Device::Data, DiskOpKind::Flush, DiskWork::SettleFlush);
        }
        false
    }

    pub(super) fn handshake_received(&mut self, id: NodeId, theirs: Handshake) -> Result<(), String> {
        theirs.check()?;
        let now = self.now;
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        if !peer.options_known {
            return Err("a handshake before the options".into());
        }
        if !peer.in_round && theirs.round == peer.round + 1 {
            peer.in_round = true;
            peer.round_since = now;
            peer.round += 1;
        }
        if !peer.in_round
            || theirs.round != peer.round
            || peer.their_handshake.is_some()
            || peer.farewell.is_some()
        {
            return Err(format!("handshake of round {} in round {}", theirs.round, peer.round));
        }
        peer.their_handshake = Some(theirs);
        self.conclude_round(id);
        Ok(())
    }

    pub(super) fn handshake(&self, id: NodeId) -> Handshake {
        let round = self.peer(id).map_or(0, |p| p.round);
        let metadata = self.disk.metadata.as_ref();
        // A disk that is leaving is not there any more.
        let named = metadata
            .filter(|_| self.is_what_clients_see() || self.announced_disk() >= DiskState::Negotiating);
        Handshake {
            round,
            role: self.role,
            disk: match self.announced_disk() {
                DiskState::Negotiating => self.disk_state_on_record(),
                disk => disk,
            },
            disk_bytes: self.room_bytes(),
            growable_bytes: self.larger_room_bytes(),
            agreed_bytes: metadata.map_or(0, |m| m.superblock.agreed_bytes),
            layout: self.layout().clone(),
            rooms: self.rooms(),
            growable_rooms: self.larger_rooms(),
            generations: named.map_or(self.last_generations, |m| m.superblock.generations),
            bitmap_id: self.slot(id).map_or(0, |s| s.bitmap_id),
            resync_id: self.slot(id).map_or(0, |s| s.resync_id),
            dirty_blocks: self.dirty_blocks(id),
            crashed_primary: metadata.is_some_and(|m| m.superblock.flags.crashed_primary)
                && !seeded!(self, IgnoresCrashFlag),
            discard_my_data: self.peer(id).is_some_and(|p| p.discard_my_data)
                && !seeded!(self, IgnoresDiscardMyData),
            overcounted: self.slot(id).is_some_and(|s| s.overcounted),
            gave_up: self.slot(id).is_some_and(|s| s.gave_up),
            failed: metadata.is_some_and(|m| m.superblock.flags.failed),
            held_open: self.is_held_open(),
            attachment: if self.disk.is_usable() { self.disk.attachment } else { 0 },
            relied_on: self.relied_on,
            begins: self.generation_to_begin(),
        }
    }

    /// Once both have spoken: they part, or go on together.
    fn conclude_round(&mut self, id: NodeId) {
        let sides = Sides {
            #[cfg(feature = "mutations")]
            mutation: self.mutation,
            ..Sides::new(self.config.node, id)
        };
        let terms = self.config.options.terms();
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.our_handshake.is_none() || peer.their_handshake.is_none() {
            return;
        }
        let (Some(mine), Some(theirs)) = (peer.our_handshake.take(), peer.their_handshake.take()) else {
            return;
        };
        peer.in_round = false;
        peer.gives_up = false;
        peer.pulling_ahead = None;
        let same_disk = self.disk.is_usable() && mine.attachment == self.disk.attachment;
        if mine.disk >= DiskState::Negotiating && !same_disk {
            return self.lose_peer(
                id,
                ConnectionState::BrokenPipe,
                "the local disk was lost during the handshake",
            );
        }
        self.note_handshake(id, &mine, &theirs);
        if mine.discard_my_data && theirs.discard_my_data {
            self.note_what_peer_makes_of_it(id, theirs.disk, false);
            return self.refuse(id, BOTH_DISCARD.into());
        }
        let agreed_size = match agreed_size(&mine, &theirs) {
            Ok(agreed_size) => agreed_size,
            Err(NoSize::LacksRoom(_)) if self.measures_again(id) => {
                self.note_what_peer_makes_of_it(id, theirs.disk, false);
                return self.begin_handshake(id);
            }
            Err(NoSize::LacksRoom(reason) | NoSize::Differs(reason)) => {
                self.note_what_peer_makes_of_it(id, theirs.disk, false);
                return self.refuse(id, reason);
            }
        };
        let decision = decide(&mine, &theirs, &terms, sides);
        let text = format!("handshake: {:?} by rule {}", decision.verdict, decision.rule);
        self.note(Some(id), Level::Info, text);
        let refusal = self.why_refused(id, &decision, &mine, &theirs);
        let step_down = self.step_down_for(&decision);
        if self.is_tentative(id) && !seeded!(self, TentativeIsNot) {
            let verdict = refusal.map_or(decision.verdict, Verdict::Refuse);
            let farewell = Farewell::Answer(answer(&verdict, step_down, &mine, &theirs));
            return self.part(id, decision.split_brain, theirs, farewell);
        }
        if let Some(reason) = refusal.as_ref().filter(|_| self.is_attaching_as_primary(id)) {
            return self.abort_attach(id, reason);
        }
        if let Some(step_down) = step_down {
            return self.begin_to_step_down(id, step_down);
        }
        if let Some(size) = agreed_size.as_ref().filter(|_| refusal.is_none())
            && self.makes_room_first(id, size, &mine, &theirs)
        {
            return;
        }
        let agreed = is_decided(&mine, &theirs) && refusal.is_none();
        self.note_what_peer_makes_of_it(id, theirs.disk, agreed);
        self.tell_of_conflicts(id, &decision, &mine, &theirs);
        if let Some(reason) = refusal {
            let retries = self.config.options.rr_conflict == RrConflict::RetryConnect;
            return match decision.conflict.filter(|_| retries) {
                Some(_) => self.retry_later(id, &reason),
                None => self.part(id, decision.split_brain, theirs, Farewell::Refusal(reason)),
            };
        }
        self.go_on_together(id, &mine, &theirs, decision, agreed_size.as_ref());
    }

    /// They are connected, and each does its part of what was decided.
    fn go_on_together(
        &mut self,
        id: NodeId,
        mine: &Handshake,
        theirs: &Handshake,
        decision: Decision,
        agreed_size: Option<&Size>,
    ) {
        let Decision { verdict, split_brain, .. } = decision;
        let (decided, is_target) = (is_decided(mine, theirs), matches!(verdict, Verdict::Target { .. }));
        self.learn_size_without_disk(theirs);
        // That a peer which is sent nothing has grown counts when its disk says so.
        let known_bytes = if verdict == Verdict::InSync { theirs.agreed_bytes } else { 0 };
        let has_grown = agreed_size.is_some_and(|size| self.learn_size(id, size, known_bytes));
        self.restart_receiver_if_stale(id);
        // The Primary that may have gone on without this disk has not, or is the one that gets its data from here.
        self.disk.left_behind &= !decided || is_target;
        let last_round = self.peer(id).is_some_and(|p| !p.round_again);
        // Two that agree are UpToDate at once: a step between would be taken for a loss.
        if last_round && verdict == Verdict::InSync && self.are_newest(mine, theirs) {
            self.set_disk(DiskState::UpToDate);
        } else if last_round {
            self.end_negotiation(if is_target { DiskState::Outdated } else { DiskState::UpToDate });
        }
        self.set_connection(id, ConnectionState::Connected);
        self.set_peer_role(id, theirs.role);
        // What a target was worth until now is of no use to anybody: its data is old.
        let is_source = matches!(verdict, Verdict::Source { .. });
        self.set_peer_disk(id, if is_source { theirs.disk.min(DiskState::Outdated) } else { theirs.disk });
        if let Some(peer) = self.peer_mut(id) {
            peer.attachment = theirs.attachment;
            peer.meeting = None;
            peer.was_measured_again = false;
            peer.discard_my_data &= !decided || is_target;
        }
        if (mine.role, mine.disk) != (self.role, self.announced_disk()) {
            self.announce_to(id);
        }
        self.serve_diskless_primary(id);
        if split_brain.is_some()
            && is_target
            && let Some(slot) = self.slot_mut(id)
        {
            slot.gave_up = true;
            self.disk.persist.request(false);
        }
        let is_in_sync = verdict == Verdict::InSync;
        match verdict {
            Verdict::Source { full } => self.become_source(id, full, theirs),
            Verdict::Target { full } => self.become_target(id, full, mine, theirs),
            Verdict::InSync => self.become_established(id, mine, theirs),
            Verdict::Begin { generation } => self.begin_together(id, generation),
            Verdict::BothFresh | Verdict::Refuse(_) => {
                self.set_replication(id, ReplicationState::Established)
            }
        }
        self.hear_early_question(id);
        // What has grown here is to be sent, and neither has looked at it; or the peer waits for it to be on disk.
        if let Some(peer) = self.peer_mut(id)
            && (std::mem::take(&mut peer.round_again) || has_grown && is_in_sync)
        {
            self.begin_handshake(id);
        }
    }

    fn restart_receiver_if_stale(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.receiver_stale) else { return };
        debug_assert!(peer.receiver.is_drained());
        peer.receiver = Receiver::default();
        peer.receiver_session = peer.session;
        peer.receiver_stale = false;
    }

    /// Both copies agree, or one side has no disk.
    fn become_established(&mut self, id: NodeId, mine: &Handshake, theirs: &Handshake) {
        self.set_replication(id, ReplicationState::Established);
        let round_again = self.peer(id).is_some_and(|p| p.round_again);
        if mine.disk < DiskState::Negotiating || theirs.disk < DiskState::Negotiating || round_again {
            return;
        }
        let newest = self.are_newest(mine, theirs);
        if (theirs.disk == DiskState::UpToDate || newest) && self.disk.state < DiskState::UpToDate {
            self.set_disk(DiskState::UpToDate);
        }
        if (mine.disk == DiskState::UpToDate || newest) && theirs.disk < DiskState::UpToDate {
            self.set_peer_disk(id, DiskState::UpToDate);
        }
        let up_to_date = self.disk.state == DiskState::UpToDate;
        if let Some(metadata) = self.disk.metadata.as_mut() {
            let flags = &mut metadata.superblock.flags;
            flags.crashed_primary = false;
            match up_to_date {
                true => flags.set_up_to_date(),
                false => flags.up_to_date = false,
            }
            self.disk.persist.request(false);
        }
    }

    /// Of two copies that agree: each may have been the target of a resync with nothing to send whose end it did not see, or
    /// be unsure because it was alone. If nobody else has a copy, nobody has newer data.
    fn are_newest(&self, mine: &Handshake, theirs: &Handshake) -> bool {
        mine.disk.min(theirs.disk) >= DiskState::Outdated && self.peers.len() == 1
    }

    /// Fixes the volume's size.
    pub(super) fn set_size(&mut self, size: &Size) {
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let bytes = size.bytes;
        if metadata.superblock.agreed_bytes == bytes && metadata.superblock.layout == size.layout {
            return;
        }
        metadata.use_size(size);
        for bitmap in &mut metadata.bitmaps {
            let any = bitmap.set_count() > 0;
            *bitmap = Bitmap::new(bytes);
            if any {
                bitmap.set_all();
            }
        }
        self.disk.persist.request(true);
    }

    fn note_handshake(&mut self, id: NodeId, mine: &Handshake, theirs: &Handshake) {
        for (who, h) in [("self", mine), ("peer", theirs)] {
            let text = format!(
                "handshake: {who} {:016X}:{:016X}:{:016X}:{:016X} bits:{} role:{} disk:{}{}",
                h.generations.current,
                h.bitmap_id,
                h.generations.history[0],
                h.generations.history[1],
                h.dirty_blocks,
                h.role,
                h.disk,
                if h.crashed_primary { " crashed-primary" } else { "" }
            );
            self.note(Some(id), Level::Info, text);
        }
    }

    /// The peer's role or disk changed while we are connected.
    pub(super) fn state_received(&mut self, id: NodeId, role: Role, disk: DiskState) -> Result<(), String> {
        if role == Role::Unknown || disk == DiskState::DUnknown {
            return Err("a state that is not known".into());
        }
        let Some(peer) = self.peer(id) else { return Ok(()) };
        if !peer.is_connected() {
            // It concluded the round before us; its next word on the matter is in the handshake.
            return Ok(());
        }
        let had_disk = !peer.lost_disk();
        let was_primary = peer.role == Role::Primary;
        let overtaken = peer.failed_by_ack && disk != DiskState::Failed;
        self.set_peer_role(id, role);
        if !overtaken {
            self.set_peer_disk(id, disk);
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.failed_by_ack = overtaken;
            peer.gives_up = false;
        }
        if had_disk && self.peer(id).is_some_and(Peer::lost_disk) {
            self.peer_lost_disk(id);
        }
        if had_disk || !was_primary {
            self.serve_diskless_primary(id);
        }
        Ok(())
    }

    /// The peer says that it could not write; that may overtake its word that the disk has failed.
    pub(super) fn peer_disk_failed(&mut self, id: NodeId) {
        if self.peer(id).is_some_and(|p| !p.lost_disk()) {
            self.set_peer_disk(id, DiskState::Failed);
            self.peer_lost_disk(id);
            if let Some(peer) = self.peer_mut(id) {
                peer.failed_by_ack = true;
            }
        }
    }

    /// From now on a Primary writes through our copy alone: what it writes belongs to a generation that its own disk does
    /// not have, and that ours names before the first write.
    pub(super) fn serve_diskless_primary(&mut self, id: NodeId) {
        let serves = |p: &Peer| p.is_connected() && p.role == Role::Primary && p.lost_disk();
        if !self.disk.is_usable() || !self.peer(id).is_some_and(serves) {
            return;
        }
        self.begin_generation_if_alone();
        let version = self.disk.persist.request(false);
        if let Some(peer) = self.peer_mut(id) {
            peer.stalled_until = Some(version);
        }
    }

    /// From now on the peer lacks what is written. What its disk had not made durable when it failed is in the transfer log,
    /// or, if it was the Primary, in its activity log.
    fn peer_lost_disk(&mut self, id: NodeId) {
        self.abort_resync(id);
        self.set_replication(id, ReplicationState::Established);
        let primary = self.role == Role::Primary;
        if let Some(peer) = self.peer_mut(id) {
            peer.parted_as_primary = primary;
        }
        self.abandon_transfer_log(id);
    }

    /// Lets the data stream of peers that need not wait any longer go on.
    pub(super) fn resume_stalled_peers(&mut self) {
        for id in self.peer_ids() {
            let over = |version| !self.disk.is_usable() || self.disk.persist.is_durable(version);
            if self.peer(id).and_then(|p| p.stalled_until).is_some_and(over)
                && let Some(peer) = self.peer_mut(id)
            {
                peer.stalled_until = None;
            }
            let goes_on = |p: &&mut Peer| p.link_up && !p.is_held_back();
            while let Some(peer) = self.peer_mut(id).filter(goes_on) {
                let Some(message) = peer.deferred.pop_front() else { break };
                peer.deferred_held.let_go(message.payload_bytes());
                self.has_changed = true;
                self.dispatch(id, message);
            }
        }
    }
}

/// Without a disk on either side nothing can be decided yet.
fn is_decided(mine: &Handshake, theirs: &Handshake) -> bool {
    mine.disk.min(theirs.disk) >= DiskState::Negotiating
}

/// Why two nodes can have no size in common.
enum NoSize {
    /// A disk had too little room when it was measured.
    LacksRoom(String),
    /// Nothing that a disk could make up for.
    Differs(String),
}

/// The smaller disk decides while there is no data; afterwards the size stands, until both disks have room for more and somebody
/// has said that they shall have it: the larger size is the later.
fn agreed_size(mine: &Handshake, theirs: &Handshake) -> Result<Option<Size>, NoSize> {
    let has_disk = |h: &Handshake| h.disk >= DiskState::Negotiating;
    // The clients of a Primary without a disk use the volumes of the one that it had.
    let counts = |h: &Handshake| has_disk(h) || h.role == Role::Primary;
    if (has_disk(mine) || has_disk(theirs))
        && counts(mine)
        && counts(theirs)
        && let Some(text) = disagreement(mine, theirs)
    {
        return Err(NoSize::Differs(text));
    }
    if !has_disk(mine) || !has_disk(theirs) {
        return Ok(None);
    }
    if !mine.layout.is_single() {
        let layout = later_layout(mine, theirs).clone();
        let size = Size { bytes: layout.space_bytes(), layout };
        let lacks = |h: &Handshake| size.fits(h.growable_bytes, &h.growable_rooms).err();
        return match (lacks(theirs), lacks(mine)) {
            (Some(text), _) => Err(NoSize::LacksRoom(format!("{PEER_TOO_SMALL} {text}"))),
            (_, Some(text)) => Err(NoSize::LacksRoom(format!("{LOCAL_TOO_SMALL} {text}"))),
            _ => Ok(Some(size)),
        };
    }
    let agreed = match (mine.agreed_bytes, theirs.agreed_bytes) {
        (0, 0) => mine.disk_bytes.min(theirs.disk_bytes),
        (0, theirs) => theirs,
        (mine, 0) => mine,
        (a, b) if mine.generations.is_fresh() && theirs.generations.is_fresh() => a.min(b),
        (a, b) if a == b => a,
        (a, _) if theirs.generations.is_fresh() => a,
        (_, b) if mine.generations.is_fresh() => b,
        (a, b) => a.max(b),
    };
    if !agreed.is_multiple_of(SECTOR_BYTES) {
        return Err(NoSize::Differs(format!("a volume of {agreed} bytes does not consist of whole sectors")));
    }
    if theirs.growable_bytes < agreed {
        let room = theirs.growable_bytes;
        let text = format!("{PEER_TOO_SMALL} It has room for {room} bytes of data, {agreed} are needed");
        return Err(NoSize::LacksRoom(text));
    }
    if mine.growable_bytes < agreed {
        let room = mine.growable_bytes;
        let text = format!("{LOCAL_TOO_SMALL} It has room for {room} bytes of data, the peer has {agreed}");
        return Err(NoSize::LacksRoom(text));
    }
    Ok(Some(Size { bytes: agreed, layout: Layout::default() }))
}

/// Volumes that two nodes cannot have in common: what they lie at is the same on both, as far as both go, unless one has no data
/// yet.
fn disagreement(mine: &Handshake, theirs: &Handshake) -> Option<String> {
    let fresh = |h: &Handshake| h.disk >= DiskState::Negotiating && h.generations.is_fresh();
    match (fresh(mine), fresh(theirs)) {
        (false, false) => mine.layout.disagreement(&theirs.layout),
        (true, true) => mine.layout.difference(&theirs.layout),
        _ if mine.layout.has_same_volumes(&theirs.layout) => None,
        _ => mine.layout.difference(&theirs.layout),
    }
}

/// Of several volumes: those of the node that has data, or has grown last.
fn later_layout<'a>(mine: &'a Handshake, theirs: &'a Handshake) -> &'a Layout {
    let grown_here = mine.layout.space_bytes() >= theirs.layout.space_bytes();
    match (mine.generations.is_fresh(), theirs.generations.is_fresh()) {
        (true, false) => &theirs.layout,
        (false, true) => &mine.layout,
        _ if grown_here => &mine.layout,
        _ => &theirs.layout,
    }
}
