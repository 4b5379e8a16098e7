//! Bringing the metadata to disk.
//!
//! One run at a time; what is asked for meanwhile is brought along by the next. A run writes
//! 1. a flush of the data, so that no bit is cleared on disk before the block it stands for is durable;
//! 2. the bitmap pages that changed, and a flush;
//! 3. the superblock's two copies, one after the other, each durable before the next step; first the one that is older
//!    or damaged, so that one is whole at every moment.
//!
//! Steps 1 and 2 only if the bitmap is to be written.

use bytes::Bytes;

use super::{Engine, command};
use crate::io::{Device, DiskOpKind};
use crate::seeded;
use crate::units::{CommandId, NodeId};
use crate::wire::Message;

use super::disk::DiskWork;

/// A change of the metadata, numbered in the order of asking.
pub(super) type Version = u64;

#[derive(Default, Debug)]
pub(super) struct Persist {
    /// The newest version asked for.
    requested: Version,
    /// With the bitmap.
    bitmap_requested: bool,
    running: Option<Run>,
    durable: Version,
    then: Vec<(Version, Then)>,
}

#[derive(Debug)]
struct Run {
    version: Version,
    superblock: Bytes,
    step: Step,
    operations_left: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    FlushData,
    Bitmap,
    FlushBitmap,
    Superblock(usize),
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
    /// The same, because a peer wants it, on this connection and with this number.
    InvalidatedFor(NodeId, u32, u64),
    /// The target may ask for its first block.
    TargetReady(NodeId, u32),
    /// The target has the source's generation.
    TargetFinished(NodeId, u32),
}

impl Persist {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.durable == self.requested
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
        let persist = &mut self.disk.persist;
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        if persist.running.is_some() || persist.durable == persist.requested {
            return;
        }
        metadata.superblock.sequence += 1;
        let with_bitmap = std::mem::take(&mut persist.bitmap_requested);
        persist.running = Some(Run {
            version: persist.requested,
            superblock: Bytes::from(metadata.superblock.encode()),
            step: if with_bitmap { Step::FlushData } else { Step::Superblock(0) },
            operations_left: 0,
        });
        if with_bitmap && !seeded!(self, ClearsBeforeFlush) {
            self.metadata_operation(Device::Data, DiskOpKind::Flush);
        } else if with_bitmap {
            self.write_bitmap();
        } else {
            self.write_superblock(0);
        }
    }

    /// One of the run's operations is done.
    pub(super) fn persist_step_done(&mut self) {
        let Some(run) = self.disk.persist.running.as_mut() else { return };
        run.operations_left = run.operations_left.saturating_sub(1);
        if run.operations_left > 0 {
            return;
        }
        match run.step {
            Step::FlushData => self.write_bitmap(),
            Step::Bitmap => {
                run.step = Step::FlushBitmap;
                self.metadata_operation(Device::Meta, DiskOpKind::Flush);
            }
            Step::FlushBitmap => self.write_superblock(0),
            Step::Superblock(0) if !seeded!(self, OneSuperblockCopy) => self.write_superblock(1),
            Step::Superblock(_) => {
                self.disk.persist.durable = run.version;
                self.disk.persist.running = None;
                self.metadata_is_durable();
            }
        }
    }

    fn write_bitmap(&mut self) {
        let Some(metadata) = self.disk.metadata.as_mut() else { return };
        let mut groups: Vec<u64> =
            metadata.bitmaps.iter_mut().flat_map(|b| b.take_unwritten_pages()).collect();
        groups.sort_unstable();
        groups.dedup();
        let writes: Vec<(u64, Bytes)> =
            groups.iter().map(|g| (metadata.group_offset(*g), Bytes::from(metadata.group(*g)))).collect();
        if let Some(run) = self.disk.persist.running.as_mut() {
            run.step = Step::Bitmap;
        }
        if writes.is_empty() {
            self.write_superblock(0);
            return;
        }
        self.counters.bitmap_writes += writes.len() as u64;
        for (offset, data) in writes {
            self.metadata_operation(Device::Meta, DiskOpKind::Write { offset, data, fua: false });
        }
    }

    /// Writes a copy: 0 the first of the run, 1 the second.
    fn write_superblock(&mut self, copy: usize) {
        let Some(metadata) = self.disk.metadata.as_ref() else { return };
        let which = if copy == 0 { 1 - metadata.newest_copy } else { metadata.newest_copy };
        let offset = metadata.geometry.superblock_offsets[which];
        let Some(run) = self.disk.persist.running.as_mut() else { return };
        run.step = Step::Superblock(copy);
        let data = run.superblock.clone();
        let fua = !seeded!(self, SuperblockWithoutFlush);
        self.metadata_operation(Device::Meta, DiskOpKind::Write { offset, data, fua });
    }

    fn metadata_operation(&mut self, device: Device, kind: DiskOpKind) {
        if let Some(run) = self.disk.persist.running.as_mut() {
            run.operations_left += 1;
        }
        self.start_disk_op(device, kind, DiskWork::Metadata);
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
                Then::Attached(id)
                | Then::Promoted(id)
                | Then::Demoted(id)
                | Then::Detached(id)
                | Then::Invalidated(id)
                | Then::Leave(_, id) => self.finish_command(id, Err(command::disk_lost())),
                Then::InvalidatedFor(peer, _, id) => {
                    self.send(peer, Message::InvalidateReply { id, granted: false });
                }
                Then::TargetReady(..) | Then::TargetFinished(..) => {}
            }
        }
    }
}

fn split_due(waiting: Vec<(Version, Then)>, durable: Version) -> (Vec<Then>, Vec<(Version, Then)>) {
    let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(version, _)| *version <= durable);
    (due.into_iter().map(|(_, then)| then).collect(), later)
}
