//! on-io-error pass_on: a disk that cannot read or write a block stays in use, where that can do no harm.
//!
//! A failed read changes nothing: the client has the block from the peer, if the peer has it, or else the error. What a
//! target cannot write of a resync stays marked, and is asked for again. After any other failed write nobody knows what the
//! block holds. If this is the only good copy, the client whose write it was is told, and the block is marked for every
//! peer. Everywhere else the disk is given up, as if the policy were detach: a disk that said of itself that it lacks a
//! block could meet a peer that says the same.
//!
//! A failed flush is never passed on, nor is an error where the metadata is. A verify wants to know that the data can be
//! read: what it finds unreadable is given up.

use super::Engine;
use super::disk::DiskWork;
use super::peer::Peer;
use crate::io::Level;
use crate::seeded;
use crate::state::{ConnectionState, DiskState};
use crate::units::{ByteRange, NodeId};

/// What cannot be read or written in a resync is tried again after this time.
pub(super) const RETRY_MS: u64 = 10_000;

impl Engine {
    /// The disk could not do this on a range of the data, and stays if it may.
    pub(super) fn pass_on(&mut self, work: DiskWork, range: ByteRange, what: &str) {
        let (may_fail, hides) = (work.may_fail(), seeded!(self, HidesWriteError));
        if !may_fail && !hides && !self.is_told_of_last_copy(&work) {
            self.disk_failed(what);
            return self.end_work(work, None);
        }
        self.note(None, Level::Error, format!("local disk: {what}; passed on, as on-io-error asks"));
        if !may_fail && !hides {
            self.mark_unknown(range);
        }
        self.end_work(work, None);
    }

    /// A write to the only good copy, whose client hears of the error.
    fn is_told_of_last_copy(&self, work: &DiskWork) -> bool {
        let told = match work {
            DiskWork::ClientWrite { .. } => true,
            DiskWork::Apply(applied) => {
                let live = |p: &Peer| p.session == applied.session && p.link_up && p.lost_disk();
                applied.only_here && self.peer(applied.peer).is_some_and(live)
            }
            _ => false,
        };
        told && self.disk.state == DiskState::UpToDate && self.good_peer().is_none()
    }

    /// Whoever has the range has other data. A peer with a disk meets that mark anew: words on the way would take it for
    /// done.
    fn mark_unknown(&mut self, range: ByteRange) {
        self.peer_ids().into_iter().for_each(|peer| self.mark_out_of_sync(peer, range));
        let with_disk = |p: &&Peer| p.is_connected() && !p.lost_disk();
        let peers: Vec<NodeId> = self.peers.iter().filter(with_disk).map(Peer::id).collect();
        let text = "a write failed on the only good copy";
        peers.into_iter().for_each(|peer| self.lose_peer(peer, ConnectionState::BrokenPipe, text));
    }
}
