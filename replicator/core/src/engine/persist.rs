//! Bringing the metadata to disk.
//!
//! One run at a time; what is asked for meanwhile is brought along by the next. A run writes what there was at its
//! beginning, each stage behind the one before:
//! 0. the header of an undo log that begins, durable;
//! 1. a flush of the data, so that no bit is cleared on disk before the block it stands for is durable, and no extent
//!    is forgotten before its data is;
//! 2. the bitmap pages that changed, and a flush;
//! 3. the superblock's two copies, one after the other, each durable before the next stage; first the one that is older
//!    or damaged, so that one is whole at every moment;
//! 4. the activity log's transaction, durable.
//!
//! A run that moves internal metadata to the end of a disk that has grown writes all of it at the new place first, and then
//! clears the old one ([`super::resize`]).
//!
//! Each stage only if there is a reason.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Engine, command};
use crate::io::{Device, DiskOpKind};
use crate::seeded;
use crate::units::{CommandId, NodeId};
use crate::wire::Message;

use super::disk::DiskWork;
use super::undo::UndoStep;

/// A change of the metadata, numbered in the order of asking.
pub(super) type Version = u64;

#[derive(Clone, Default, Debug)]
pub(super) struct Persist {
    /// The newest version asked for.
    requested: Version,
    /// With the bitmap.
    bitmap_requested: bool,
    running: Option<Run>,
    durable: Version,
    then: Vec<(Version, Then)>,
}

#[derive(Clone, Debug)]
struct Run {
    version: Version,
    with_transaction: bool,
    stages: VecDeque<Vec<(Device, DiskOpKind)>>,
    operations_left: usize,
}

/// What to do once a version is durable.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The attached disk may be used.
    Attached(CommandId),
    /// The node is Primary.
    Promoted(CommandId),
    /// The node is Secondary.
    Demoted(CommandId),
    /// The disk may be let go.
    Detached(CommandId),
    /// The node may tell the peer goodbye.
    Leave(NodeId, CommandId),
    /// The data has been given up.
    Invalidated(CommandId),
    /// The same, with a peer, on this connection; if it has asked for it, under this number.
    InvalidatedFor(NodeId, u32, Option<u64>),
    /// The Primary may be told that the disk knows it is behind.
    Behind(NodeId, u32),
    /// The node may tell the peer, which wants to leave, goodbye.
    Outdated(NodeId, u32),
    /// What two fresh copies hold counts as data.
    BegunTogether,
    /// The data is old, as the administrator has said.
    OutdateDone(CommandId),
    /// What a verify has found is known; the verify is done.
    Verified(NodeId, u32),
    /// The target may ask for its first block.
    TargetReady(NodeId, u32),
    /// The target has the source's generation.
    TargetFinished(NodeId, u32),
}

impl Persist {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.durable == self.requested
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn is_durable(&self, version: Version) -> bool {
        self.durable >= version
    }

    /// Asks for the metadata as it is now to be brought to disk.
    pub(super) fn request(&mut self, with_bitmap: bool) -> Version {
        self.requested += 1;
        self.bitmap_requested |= with_bitmap;
        self.requested
    }

    /// The peer has asked for this node to be outdated, and waits.
    pub(super) fn is_outdating_for(&self, peer: NodeId) -> bool {
        self.then.iter().any(|(_, then)| matches!(then, Then::Outdated(p, _) if *p == peer))
    }

    /// Asks, and remembers what is to happen then.
    pub(super) fn request_then(&mut self, with_bitmap: bool, then: Then) -> Version {
        let version = self.request(with_bitmap);
        self.then.push((version, then));
        version
    }
}

impl Engine {
    /// Starts a run if one is asked for and none is under way.
    pub(super) fn start_persist(&mut self) {
        let with_transaction = self.disk.log.has_changes();
        let persist = &self.disk.persist;
        let with_superblock = persist.durable != persist.requested;
        let moves = self.disk.growth.is_moving() && !with_transaction;
        if !self.disk.is_usable() || persist.is_running() || !(with_superblock || with_transaction) {
            return;
        }
        let mut stages = VecDeque::new();
        if let Some(data) = self.disk.undo.take_header() {
            stages.push_back(vec![(Device::Undo, DiskOpKind::Write { offset: 0, data, fua: true })]);
        }
        if moves {
            self.disk.persist.bitmap_requested = false;
            stages.extend(self.relocation_stages().into_iter().flatten());
        } else {
            self.add_bitmap(&mut stages);
        }
        if with_superblock && !moves {
            self.add_superblock(&mut stages);
        }
        if with_transaction {
            stages.extend(self.transaction().map(|operation| vec![operation]));
        }
        let version = self.disk.persist.requested;
        self.disk.persist.running = Some(Run { version, with_transaction, stages, operations_left: 0 });
        self.next_stage();
    }

    /// The pages that are to be written, between a flush of the data and one of theirs.
    fn add_bitmap(&mut self, stages: &mut VecDeque<Vec<(Device, DiskOpKind)>>) {
        let whole = std::mem::take(&mut self.disk.persist.bitmap_requested);
        let (mut pages, mut flush) = self.before_transaction();
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        if whole {
            pages.extend(metadata.take_unwritten_groups());
            pages.sort_unstable();
            flush = !seeded!(self, ClearsBeforeFlush);
        }
        if flush {
            stages.push_back(vec![(Device::Data, DiskOpKind::Flush)]);
        }
        if pages.is_empty() && !whole {
            return;
        }
        self.counters.bitmap_writes += pages.len() as u64;
        let write = |page: u64| {
            let (offset, data) = (metadata.group_offset(page), Bytes::from(metadata.group(page)));
            (Device::Meta, DiskOpKind::Write { offset, data, fua: false })
        };
        if !pages.is_empty() {
            stages.push_back(pages.into_iter().map(write).collect());
        }
        // Also without pages: what was read at attach may have been in the disk's cache only.
        stages.push_back(vec![(Device::Meta, DiskOpKind::Flush)]);
    }

    fn add_superblock(&mut self, stages: &mut VecDeque<Vec<(Device, DiskOpKind)>>) {
        let (one, fua) = (seeded!(self, OneSuperblockCopy), !seeded!(self, SuperblockWithoutFlush));
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        metadata.superblock.sequence += 1;
        let data = Bytes::from(metadata.superblock.encode());
        let copies = [1 - metadata.newest_copy, metadata.newest_copy];
        for copy in copies.into_iter().take(if one { 1 } else { 2 }) {
            let offset = metadata.geometry.superblock_offsets[copy];
            stages.push_back(vec![(Device::Meta, DiskOpKind::Write { offset, data: data.clone(), fua })]);
        }
    }

    /// One of the run's operations is done.
    pub(super) fn persist_operation_done(&mut self) {
        let Some(run) = self.disk.persist.running.as_mut() else { return };
        run.operations_left = run.operations_left.saturating_sub(1);
        if run.operations_left == 0 {
            self.next_stage();
        }
    }

    fn next_stage(&mut self) {
        let Some(run) = self.disk.persist.running.as_mut() else { return };
        if let Some(stage) = run.stages.pop_front() {
            run.operations_left = stage.len();
            for (device, kind) in stage {
                match device {
                    Device::Undo => self.start_undo_op(device, kind, UndoStep::Header),
                    Device::Data | Device::Meta => self.start_disk_op(device, kind, DiskWork::Metadata),
                }
            }
            return;
        }
        let Some(run) = self.disk.persist.running.take() else { return };
        self.disk.persist.durable = run.version;
        if run.with_transaction {
            self.transaction_done();
        }
        self.metadata_is_durable();
    }

    fn metadata_is_durable(&mut self) {
        let durable = self.disk.persist.durable;
        let due: Vec<Then>;
        let waiting = std::mem::take(&mut self.disk.persist.then);
        (due, self.disk.persist.then) = split_due(waiting, durable);
        for then in due {
            match then {
                Then::Attached(id) => self.attached(id),
                Then::Promoted(id) => self.promoted(id),
                Then::Demoted(id) => self.demoted(id),
                Then::Detached(id) => self.detached(id),
                Then::Leave(peer, id) => self.leave(peer, id),
                Then::Invalidated(id) => self.invalidated(id),
                Then::InvalidatedFor(peer, session, id) => self.invalidated_for(peer, session, id),
                Then::Behind(peer, session) => self.behind_noted(peer, session),
                Then::Outdated(peer, session) => self.dismissed(peer, session),
                Then::BegunTogether => self.begun_together(),
                Then::OutdateDone(id) => self.outdated(id),
                Then::Verified(peer, session) => self.walk_finished(peer, session),
                Then::TargetReady(peer, session) => self.target_ready(peer, session),
                Then::TargetFinished(peer, session) => self.target_finished(peer, session),
            }
        }
        self.release_held_completions();
        self.resume_stalled_peers();
    }

    /// The disk is lost: nothing will become durable any more. Commands that waited for it fail.
    pub(super) fn abandon_persist(&mut self) {
        let persist = std::mem::take(&mut self.disk.persist);
        for (_, then) in persist.then {
            match then {
                Then::Attached(id) | Then::Promoted(id) | Then::Invalidated(id) | Then::OutdateDone(id) => {
                    self.finish_command(id, Err(command::disk_lost()));
                }
                // What was asked for can be had without the disk.
                Then::Demoted(id) => self.demoted(id),
                Then::Detached(id) => self.finish_command(id, Ok(())),
                // There is nothing left to note on it.
                Then::Leave(peer, id) => self.leave(peer, id),
                Then::Outdated(peer, session) => self.dismissed(peer, session),
                Then::InvalidatedFor(peer, _, Some(id)) => {
                    self.send(peer, Message::InvalidateReply { id, granted: false });
                }
                Then::InvalidatedFor(..)
                | Then::Verified(..)
                | Then::Behind(..)
                | Then::BegunTogether
                | Then::TargetReady(..)
                | Then::TargetFinished(..) => {}
            }
        }
    }
}

fn split_due(waiting: Vec<(Version, Then)>, durable: Version) -> (Vec<Then>, Vec<(Version, Then)>) {
    let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(version, _)| *version <= durable);
    (due.into_iter().map(|(_, then)| then).collect(), later)
}
