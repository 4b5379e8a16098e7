//! A Primary whose own disk does not have all that its clients have seen: there is none, one is being attached or
//! detached, or it is the target of a resync. It works through a peer whose data is good.
//!
//! A disk is attached to a Primary, and detached from it, between two requests: those under way end, the others wait.
//! Attached, it takes every write from the moment at which it says that it is a mixture, and serves reads of what the
//! resync has brought. A write and a resync of the same blocks take turns from beginning to end, the peer's part
//! included: so neither does an older block come from the peer on top of a newer write, nor is it read there before
//! the write has arrived.

use std::collections::BTreeMap;

use super::Engine;
use super::peer::Peer;
use super::ranges::Locked;
use crate::io::Level;
use crate::range_lock::Token;
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{ByteRange, NodeId, Timestamp};
use crate::wire::Message;

/// A range that this node, as target and Primary, wants from its source.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    peer: NodeId,
    /// Of which resync.
    target: u64,
    range: ByteRange,
    token: Token,
}

/// A range that was asked for and has not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldRange {
    range: ByteRange,
    token: Token,
    since: Timestamp,
}

/// By their offsets.
pub(super) type HeldRanges = BTreeMap<u64, HeldRange>;

impl Engine {
    /// The local copy is one of those that count.
    pub(super) fn has_good_disk(&self) -> bool {
        self.disk.is_usable() && self.disk.state == DiskState::UpToDate && !self.disk.leaving
    }

    /// What a client writes goes to the local disk, too.
    pub(super) fn takes_writes(&self) -> bool {
        self.has_good_disk() || self.disk.is_usable() && self.good_source().is_some()
    }

    /// The local disk has, by now, what the peer has in this range.
    pub(super) fn is_synced_here(&self, range: ByteRange) -> bool {
        if seeded!(self, ReadsWhatIsNotSynced) && self.good_source().is_some() {
            return true;
        }
        let Some(metadata) = self.disk.metadata.as_ref().filter(|_| self.good_source().is_some()) else {
            return false;
        };
        !self.peers.iter().any(|p| metadata.bitmaps[p.slot].marks(range))
    }

    /// The peer that sends what the disk lacks, once the disk says what it is.
    fn good_source(&self) -> Option<&Peer> {
        self.peers.iter().find(|p| p.has_good_data() && p.target.as_ref().is_some_and(|t| t.is_ready()))
    }

    /// Writes and flushes wait for a moment, because the disk comes or goes.
    pub(super) fn must_wait_for_disk(&self) -> bool {
        let prepares = |p: &Peer| {
            p.replication == ReplicationState::WFBitMapT || p.target.as_ref().is_some_and(|t| !t.is_ready())
        };
        let comes = self.disk.is_usable() && self.disk.state != DiskState::Attaching && !self.disk.leaving;
        let comes = comes && !self.has_good_disk();
        let undecided = self.disk.state == DiskState::Negotiating || self.peers.iter().any(prepares);
        self.role == Role::Primary
            && (comes && undecided && !seeded!(self, WritesWhileAttaching) || self.changes_disk())
    }

    /// What was under way when a Primary without good data lost its source fails; until that has happened, the disk does not
    /// meet the peer again: the end of a write here is worth nothing, and the peer need not have it.
    pub(super) fn fails_requests(&self) -> bool {
        let without_data = !self.has_good_disk() && self.good_peer().is_none();
        self.role == Role::Primary && self.disk.is_usable() && without_data && !self.is_written_out()
    }

    /// No client's request is under way, and every peer has confirmed all that it was sent.
    pub(super) fn clients_are_drained(&mut self) -> bool {
        if self.role != Role::Primary {
            return true;
        }
        let idle = self.nothing_is_written();
        if idle {
            self.close_epoch_if_begun(true);
        }
        idle && self.peers.iter().all(|p| p.transfer_log.is_empty() && p.barriers.is_empty())
    }

    /// The disk that a Primary, here or there, attaches while it works through the other node meets that one's data.
    pub(super) fn is_attaching_as_primary(&self, id: NodeId) -> bool {
        let here = self.role == Role::Primary && self.disk.state == DiskState::Negotiating;
        let there = |p: &Peer| p.role == Role::Primary && p.disk == DiskState::Negotiating;
        self.peer(id).is_some_and(|p| p.is_connected() && (here || there(p)))
    }

    /// What that disk holds has nothing to do with what clients use: it is not taken, and they go on as before.
    pub(super) fn abort_attach(&mut self, id: NodeId, reason: &str) {
        if self.role == Role::Primary {
            self.give_up_disk(&format!("its data does not fit the peer's: {reason}"));
        } else {
            self.note(Some(id), Level::Warn, "Disk attach process on the peer node was aborted.");
            self.set_peer_disk(id, DiskState::Diskless);
        }
    }

    /// Notes what the disk will lack of a write that goes to the peers alone, and lets its extents go.
    pub(super) fn leave_write_to_peers(&mut self, range: ByteRange, logged: bool) {
        for peer in self.peer_ids() {
            self.mark_out_of_sync(peer, range);
        }
        if logged {
            self.release_for_peer(range);
        }
    }

    /// When the oldest question was asked that keeps clients waiting for this peer.
    pub(super) fn oldest_ask_of(&self, peer: &Peer) -> Option<Timestamp> {
        peer.target.iter().flat_map(|t| t.held.values()).map(|held| held.since).min()
    }

    // The target's questions.

    /// Asks for a range of the volume. While clients write here, it is theirs again when it has come.
    pub(super) fn ask_for(&mut self, peer: NodeId, range: ByteRange) {
        if self.role != Role::Primary || seeded!(self, ResyncIgnoresClients) {
            return self.send(peer, Message::ResyncRequest { range });
        }
        let Some(target) = self.peer(peer).and_then(|p| p.target.as_ref()).map(|t| t.id()) else { return };
        let token = self.key();
        self.acquire(token, range, Locked::Ask(Ask { peer, target, range, token }));
    }

    /// Nobody writes there: the answer will be as new as anything here.
    pub(super) fn start_ask(&mut self, ask: Ask) {
        let Ask { peer, target, range, token } = ask;
        let (now, primary) = (self.now, self.role == Role::Primary);
        let live = self.peer_mut(peer).and_then(|p| p.target.as_mut()).filter(|t| t.id() == target);
        let Some(live) = live else { return self.release(token, range) };
        if primary {
            live.held.insert(range.offset, HeldRange { range, token, since: now });
        }
        self.send(peer, Message::ResyncRequest { range });
        if !primary {
            self.release(token, range);
        }
    }

    /// The token that has held this range since it was asked for.
    pub(super) fn take_held(&mut self, peer: NodeId, range: ByteRange) -> Option<u64> {
        let target = self.peer_mut(peer)?.target.as_mut()?;
        let held = target.held.get(&range.offset).copied().filter(|held| held.range == range)?;
        target.held.remove(&range.offset);
        Some(held.token)
    }

    /// Those ranges are anybody's.
    pub(super) fn release_all(&mut self, held: HeldRanges) {
        for HeldRange { range, token, .. } in held.into_values() {
            self.release(token, range);
        }
    }

    /// No client writes here any more.
    pub(super) fn release_held(&mut self) {
        for id in self.peer_ids() {
            let held = self.peer_mut(id).and_then(|p| p.target.as_mut()).map(|t| std::mem::take(&mut t.held));
            held.into_iter().for_each(|held| self.release_all(held));
        }
    }
}
