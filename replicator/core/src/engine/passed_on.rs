//! on-io-error pass_on: a disk that cannot read or write some blocks stays in use.
//!
//! If another node has the data, the disk says that it is Inconsistent, and only then is the request answered, so that
//! a crash does not bring the gap back as good data. The request succeeds with the peer's help, and a resync has the
//! block anew from there; what cannot be written is tried again from time to time. Without a peer whose data is good
//! the error is the client's to know, and the disk stays what it is.
//!
//! A failed flush is never passed on, nor is an error where the metadata is.

use super::Engine;
use super::disk::DiskWork;
use super::peer::Peer;
use super::persist::Version;
use crate::io::Level;
use crate::seeded;
use crate::state::{ConnectionState, DiskState, ReplicationState, Role};
use crate::units::{ByteRange, NodeId, WriteSeq};

/// What cannot be read or written is tried again after this time.
pub(super) const RETRY_MS: u64 = 10_000;

/// Errors that a disk is kept in spite of.
#[derive(Clone, Default, Debug)]
pub(super) struct PassedOn {
    /// They are answered when this version of the metadata says that the disk is Inconsistent.
    waiting: Vec<(DiskWork, ByteRange)>,
    version: Version,
    /// What the disk lacks shall be had anew.
    wants_resync: bool,
}

impl Engine {
    /// The disk could not do this, and stays.
    pub(super) fn pass_on(&mut self, work: DiskWork, range: ByteRange, what: &str) {
        self.note(None, Level::Error, format!("local disk: {what}; passed on, as on-io-error asks"));
        if seeded!(self, PassesOnWithoutMark) {
            return self.end_work(work, None);
        }
        if self.disk.state != DiskState::UpToDate || self.good_peer().is_none() {
            self.mark_what_failed(&work, range);
            return self.end_work(work, None);
        }
        if self.disk.passed_on.waiting.is_empty() {
            if let Some(metadata) = self.disk.metadata.as_mut() {
                let flags = &mut metadata.superblock.flags;
                (flags.consistent, flags.up_to_date) = (false, false);
            }
            self.disk.passed_on.version = self.disk.persist.request(false);
        }
        self.disk.passed_on.waiting.push((work, range));
    }

    /// Whoever has it besides, has other data. A target that the Primary keeps up to date meets it anew: words on the way
    /// would take the mark for done.
    fn mark_what_failed(&mut self, work: &DiskWork, range: ByteRange) {
        let only_copy = self.disk.state == DiskState::UpToDate;
        if only_copy && !work.is_write() {
            return;
        }
        self.mark_everywhere(range);
        if only_copy && self.role == Role::Primary {
            let targets: Vec<NodeId> = self.peers.iter().filter(|p| p.replicates()).map(Peer::id).collect();
            let text = "a write failed here while the peer was being resynced";
            targets.into_iter().for_each(|peer| self.lose_peer(peer, ConnectionState::BrokenPipe, text));
        }
    }

    fn mark_everywhere(&mut self, range: ByteRange) {
        self.peer_ids().into_iter().for_each(|peer| self.mark_out_of_sync(peer, range));
    }

    /// The disk says what it is: what failed is answered.
    pub(super) fn answer_passed_on(&mut self) {
        let PassedOn { waiting, version, .. } = &self.disk.passed_on;
        if waiting.is_empty() || !self.disk.persist.is_durable(*version) {
            return;
        }
        let waiting = std::mem::take(&mut self.disk.passed_on.waiting);
        if self.role == Role::Primary && self.good_peer().is_none() {
            // The only other copy is gone: this one is the best there is.
            if let Some(metadata) = self.disk.metadata.as_mut() {
                let flags = &mut metadata.superblock.flags;
                (flags.consistent, flags.up_to_date) = (true, true);
            }
            self.disk.persist.request(false);
        } else {
            waiting.iter().for_each(|(_, range)| self.mark_everywhere(*range));
            self.disk.persist.request(true);
            self.set_disk(DiskState::Inconsistent);
            if self.role == Role::Primary {
                self.forget_local_legs();
            }
            self.disk.passed_on.wants_resync = true;
        }
        waiting.into_iter().for_each(|(work, _)| self.end_work(work, None));
    }

    /// The disk is given up after all.
    pub(super) fn abandon_passed_on(&mut self) {
        let waiting = std::mem::take(&mut self.disk.passed_on).waiting;
        waiting.into_iter().for_each(|(work, _)| self.end_work(work, None));
    }

    /// Writes wait while the nodes agree on having the blocks anew.
    pub(super) fn awaits_repair(&self) -> bool {
        self.disk.passed_on.wants_resync && self.good_peer().is_some()
    }

    /// Meets a peer that has the data, once nothing is on its way there.
    pub(super) fn progress_passed_on(&mut self) {
        if !self.disk.passed_on.wants_resync {
            return;
        }
        if self.disk.state != DiskState::Inconsistent || self.peers.iter().any(|p| p.target.is_some()) {
            self.disk.passed_on.wants_resync = false;
            return;
        }
        let ready = |p: &&Peer| p.has_good_data() && !p.in_round && p.before_resync.is_none();
        let Some(peer) = self.peers.iter().find(ready).map(Peer::id) else { return };
        if self.clients_are_drained() {
            self.disk.passed_on.wants_resync = false;
            self.begin_handshake(peer);
        }
    }

    /// The peer could not write this, and keeps its disk.
    pub(super) fn write_passed_on(&mut self, id: NodeId, seq: WriteSeq, key: u64, range: ByteRange) {
        self.mark_out_of_sync(id, range);
        let meets = self.has_good_disk()
            && self.peer(id).is_some_and(|p| p.replication == ReplicationState::Established);
        if meets {
            // Its word on that is on the way.
            self.set_peer_disk(id, DiskState::Inconsistent);
            self.begin_handshake(id);
        }
        if self.peer_mut(id).is_some_and(|p| p.logged(seq).is_some()) {
            self.write_leg_ended(key, id, false);
        }
    }
}
