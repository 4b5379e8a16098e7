//! What clients have seen, where the disk is lost that brought it to them: which disks have it.
//!
//! A Primary without a copy of its own works through its peer's, and through no other data than its clients have seen. It names that by
//! the generation, and, as long as completed writes may be in the cache of the peer's disk only, by the attachment of that disk. A
//! disk that is lost and comes back has the same attachment if it had everything, for good, when it was lost.

use super::Engine;
use crate::config::Protocol;
use crate::metadata::Metadata;
use crate::seeded;
use crate::state::{DiskState, Role};
use crate::units::NodeId;

/// Names a disk that was lost, and what is on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    device_id: u64,
    /// One of these: nothing is written in a generation before that is on disk.
    generations: [u64; 2],
}

impl Kept {
    fn is(self, metadata: &Metadata) -> bool {
        let superblock = &metadata.superblock;
        superblock.device_id == self.device_id && self.generations.contains(&superblock.generations.current)
    }
}

impl Engine {
    /// The disk is about to be given up.
    pub(super) fn note_what_is_kept(&mut self) {
        match self.disk.state {
            // Nothing was written since the last time.
            DiskState::Attaching | DiskState::Negotiating => {}
            DiskState::UpToDate | DiskState::Consistent if self.has_all_that_was_promised() => {
                let before = Some(self.disk.generation_before).filter(|_| !self.generation_is_durable());
                self.disk.kept_all = self.disk.metadata.as_ref().map(|metadata| {
                    let current = metadata.superblock.generations.current;
                    let generations = [current, before.unwrap_or(current)];
                    Kept { device_id: metadata.superblock.device_id, generations }
                });
            }
            _ => self.disk.kept_all = None,
        }
    }

    /// Whatever somebody was told is written is durable here, or, where another disk is as good, need not be.
    fn has_all_that_was_promised(&self) -> bool {
        if seeded!(self, TrustsLostCache) {
            return true;
        }
        let kept = match self.role {
            Role::Primary => self.good_peer().is_none(),
            Role::Secondary | Role::Unknown => self.peers.iter().all(|p| !p.receiver.owes_writes()),
        };
        kept && !self.disk.has_unflushed_data()
    }

    /// This is the disk that was lost, and it has lost nothing.
    fn is_the_one_that_kept_all(&self, metadata: &Metadata) -> bool {
        let flags = metadata.superblock.flags;
        self.disk.kept_all.is_some_and(|kept| kept.is(metadata)) && flags.consistent && flags.up_to_date
    }

    /// The attachment of a disk that comes: the one that it had, if none who relied on that has lost anything.
    pub(super) fn attachment_of(&mut self, metadata: &Metadata) -> u64 {
        let fresh = self.random() | 1;
        let same = self.role == Role::Secondary && self.is_the_one_that_kept_all(metadata);
        if same && !seeded!(self, ForgetsWhatWasKept) { self.disk.attachment } else { fresh }
    }

    /// A Primary gets the disk back that it lost while it was alone: that one has every write that was done, for good, and
    /// nothing has been written elsewhere since. No peer is there that would have a say, nor may one have gone on.
    pub(super) fn has_what_was_exposed(&self, metadata: &Metadata) -> bool {
        let superblock = &metadata.superblock;
        let (flags, peers) = (superblock.flags, &superblock.peers);
        let fenced = !self.fences() || peers.iter().all(|slot| slot.node.is_none() || slot.outdated);
        let lost_last = superblock.generations.current == self.last_generations.current;
        let complete = self.is_the_one_that_kept_all(metadata) && !self.disk.left_behind;
        let complete =
            complete || seeded!(self, AttachesWhatLacksWrites) && flags.consistent && flags.up_to_date;
        let same_size = metadata.volume_bytes() == self.size_bytes() && superblock.layout == *self.layout();
        let alone = self.peers.iter().all(|p| !p.link_up);
        complete && lost_last && same_size && fenced && alone
    }

    /// A Primary that is alone with its disk, or the source of a resync, is about to lose it: its generation may not say what only
    /// that disk has. A target that has become complete by then has it as well.
    pub(super) fn rely_on_what_peers_lack(&mut self) {
        let alone = self.role == Role::Primary && self.disk.is_good() && self.good_peer().is_none();
        if alone && self.has_what_peers_lack() {
            let target = self.peers.iter().find(|p| p.replicates());
            self.relied_on = Some(target.map_or(0, |p| p.attachment));
        }
    }

    /// A write is under way, or was marked, that no other copy need have.
    fn has_what_peers_lack(&self) -> bool {
        let marked = self.disk.metadata.as_ref().is_some_and(|m| m.bitmaps.iter().any(|b| b.set_count() > 0));
        marked || !self.nothing_is_written()
    }

    /// A Primary without a copy of its own loses sight of the only one, or of what it has sent there: that one's cache may hold
    /// what clients were told is written.
    pub(super) fn rely_on_what_peer_has(&mut self, id: NodeId) {
        // What nobody has does not come back; the log may have been abandoned before the connection was lost.
        let is_missing = self.relied_on == Some(0);
        let Some(peer) = self.peer(id) else { return };
        let unsure = is_missing || peer.transfer_log.iter().any(|w| !w.acked && w.wants == Protocol::A);
        // A peer that was met without a disk has neither got nor lost anything since.
        let known = if peer.attachment == 0 { self.relied_on } else { Some(peer.attachment) };
        self.relied_on = known.filter(|_| !unsure).or(Some(0));
    }

    /// The peer has made durable all that it was sent: whatever becomes of its cache, its disk has what clients have seen.
    pub(super) fn rely_on_peers_disk(&mut self, id: NodeId) {
        let attachment = self.peer(id).filter(|p| p.all_durable).map(|p| p.attachment);
        if attachment.is_some() && attachment == self.relied_on {
            self.relied_on = None;
        }
    }
}
