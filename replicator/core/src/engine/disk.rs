//! The local disk: its state, its operations, its failure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Engine;
use super::activity::Log;
use super::exposed::Kept;
use super::peer::Peer;
use super::persist::{Persist, Version};
use super::receiver::{Applied, Receiver};
use super::resize::Growth;
use super::resync::ResyncRead;
use super::undo::{Undo, UndoStep};
use crate::config::OnIoError;
use crate::handler::Handler;
use crate::io::{Device, DiskError, DiskOp, DiskOpKind, Event, Output};
use crate::layout::Layout;
use crate::metadata::{Metadata, Placement};
use crate::seeded;
use crate::state::{DiskState, Role};
use crate::units::{ByteRange, DiskOpId, NodeId, Timestamp};

/// The local disk.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) state: DiskState,
    /// Present while the disk may be used.
    pub(super) metadata: Option<Metadata>,
    pub(super) persist: Persist,
    pub(super) log: Log,
    pub(super) undo: Undo,
    pub(super) growth: Growth,
    pub(super) operations: BTreeMap<DiskOpId, Operation>,
    /// Operations that were given up and have not come back: what they say counts for nothing.
    pub(super) abandoned: BTreeSet<DiskOpId>,
    /// Random, drawn at attach.
    pub(super) attachment: u64,
    next_op: u64,
    /// The backing device is open and shall be closed once no operation is in flight.
    pub(super) release_when_idle: bool,
    pub(super) open: bool,
    /// It is being detached: peers were told that it is gone.
    pub(super) leaving: bool,
    /// Its data is being given up: peers are told this state until that is durable.
    pub(super) told_instead: Option<DiskState>,
    /// A Primary was seen while this disk was not in use.
    pub(super) left_behind: bool,
    /// It was given up when it was last in use.
    pub(super) has_failed: bool,
    /// Which one it was, if it had all that anybody was told is written, for good, when it was lost.
    pub(super) kept_all: Option<Kept>,
    /// It is being attached to a Primary that no peer supports.
    pub(super) attaches_alone: bool,
    /// A flush before the handshake is under way.
    pub(super) settling: bool,

    /// Data writes that were done, and how many of them are durable.
    pub(super) writes_done: u64,
    writes_durable: u64,
    /// How many were done when the last one was that a peer had sent.
    received_until: u64,
    /// The metadata version that carries the current generation.
    pub(super) generation_version: Version,
    /// The generation before it.
    pub(super) generation_before: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            state: DiskState::Diskless,
            metadata: None,
            persist: Persist::default(),
            log: Log::default(),
            undo: Undo::default(),
            growth: Growth::default(),
            operations: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            attachment: 0,
            next_op: 0,
            release_when_idle: false,
            open: false,
            leaving: false,
            told_instead: None,
            left_behind: false,
            has_failed: false,
            kept_all: None,
            attaches_alone: false,
            settling: false,

            writes_done: 0,
            writes_durable: 0,
            received_until: 0,
            generation_version: 0,
            generation_before: 0,
        }
    }
}

/// A disk operation in flight.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) work: DiskWork,
    effect: Effect,
    began: Timestamp,
    /// An error costs no more than this range.
    range: Option<ByteRange>,
    /// Counted from 0; what concerns all, or the metadata, counts with the first.
    pub(super) volume: usize,
}

/// What an operation changes about what is durable.
#[derive(Clone, Copy, Debug)]
enum Effect {
    None,
    WritesData,
    /// Makes this many data writes durable.
    Flushes(u64),
}

/// What a disk operation is for.
#[derive(Clone, Debug)]
pub(super) enum DiskWork {
    ClientRead { key: u64 },
    ClientWrite { key: u64 },
    ClientFlush { key: u64 },
    PeerRead { peer: NodeId, session: u32, id: u64, bytes: u64 },
    Apply(Applied),
    EpochFlush { peer: NodeId, session: u32 },
    ResyncRead(ResyncRead),
    Verify(Applied),
    DetachFlush,
    SettleFlush,
    Undo(UndoStep),

    Metadata,
}

impl Disk {
    /// Data can be read from it and written to it.
    pub(super) fn is_usable(&self) -> bool {
        self.metadata.is_some()
    }

    /// Its data is the newest.
    pub(super) fn is_good(&self) -> bool {
        self.state == DiskState::UpToDate
    }

    /// Its data is complete, and may be the newest.
    pub(super) fn is_good_alone(&self) -> bool {
        matches!(self.state, DiskState::UpToDate | DiskState::Consistent)
    }

    /// Data was written that no completed flush covers.
    pub(super) fn has_unflushed_data(&self) -> bool {
        self.is_usable() && !self.is_durable(self.writes_done)
    }

    /// What peers have sent is done, and no completed flush covers all of it.
    pub(super) fn has_unflushed_peer_data(&self) -> bool {
        self.is_usable() && !self.is_durable(self.received_until)
    }

    /// A completed flush covers the first `writes` data writes that were done.
    pub(super) fn is_durable(&self, writes: u64) -> bool {
        writes <= self.writes_durable
    }

    /// Nothing of what a disk said before counts for the one that is attached now; its metadata begins with a flush.
    pub(super) fn begin_attachment(&mut self, mut metadata: Metadata, attachment: u64) {
        self.open = true;
        self.undo = Undo::attached(metadata.undo.take());
        self.growth = Growth::default();
        self.metadata = Some(metadata);
        self.attachment = attachment;
        self.generation_version = 0;
        self.settling = false;
        self.writes_done = 0;
        self.writes_durable = 0;
        self.received_until = 0;
    }
}

impl Engine {
    pub(super) fn start_disk_op(&mut self, device: Device, kind: DiskOpKind, work: DiskWork) {
        self.disk.next_op += 1;
        let id = DiskOpId(self.disk.next_op);
        let for_all = seeded!(self, FlushesOneVolumeForAll);
        let shares = |m: &Metadata| {
            m.geometry.placement == Placement::Internal && (m.superblock.layout.is_single() || for_all)
        };
        let shared = self.disk.metadata.as_ref().is_some_and(shares);
        let volume = match (device, &kind) {
            (Device::Data, DiskOpKind::Read(range) | DiskOpKind::Zero { range, .. }) => {
                self.layout().index_at(range.offset)
            }
            (Device::Data, DiskOpKind::Write { offset, .. }) => self.layout().index_at(*offset),
            _ => 0,
        };
        let effect = match (device, &kind) {
            // The metadata lies on the data's only device: what is made durable there is durable here.
            (Device::Meta, DiskOpKind::Flush | DiskOpKind::Write { fua: true, .. }) if shared => {
                Effect::Flushes(self.disk.writes_done)
            }
            (Device::Meta | Device::Undo, _) => Effect::None,
            (Device::Data, DiskOpKind::Write { data, .. }) => {
                self.counters.disk_written.add(volume, data.len() as u64);
                Effect::WritesData
            }
            (Device::Data, DiskOpKind::Zero { range, .. }) => {
                self.counters.disk_written.add(volume, range.length);
                Effect::WritesData
            }
            (Device::Data, DiskOpKind::Read(range)) => {
                self.counters.disk_read.add(volume, range.length);
                Effect::None
            }
            (Device::Data, DiskOpKind::Flush) => Effect::Flushes(self.disk.writes_done),
        };
        let began = self.now;
        // A write that shall be durable may have failed to be just that.
        let range = match (device, &kind) {
            (Device::Data, DiskOpKind::Read(range) | DiskOpKind::Zero { range, .. }) => Some(*range),
            (Device::Data, DiskOpKind::Write { offset, data, fua: false }) => {
                Some(ByteRange::new(*offset, data.len() as u64))
            }
            _ => None,
        };
        self.disk.operations.insert(id, Operation { work, effect, began, range, volume });
        self.outputs.push_back(Output::Disk(DiskOp { id, device, kind }));
    }

    pub(super) fn disk_done(&mut self, id: DiskOpId, result: Result<Bytes, DiskError>) {
        let Some(Operation { work, effect, range, .. }) = self.disk.operations.remove(&id) else {
            self.disk.abandoned.remove(&id);
            return;
        };
        match effect {
            Effect::WritesData if result.is_ok() => {
                self.disk.writes_done += 1;
                if matches!(work, DiskWork::Apply(_)) {
                    self.disk.received_until = self.disk.writes_done;
                }
            }
            Effect::Flushes(writes) if result.is_ok() => {
                self.disk.writes_durable = self.disk.writes_durable.max(writes);
            }
            Effect::WritesData | Effect::Flushes(_) | Effect::None => {}
        }
        let Err(error) = result else { return self.end_work(work, result.ok()) };
        if let DiskWork::Undo(step) = &work
            && (!matches!(step, UndoStep::Read(_)) || self.config.options.on_io_error == OnIoError::PassOn)
        {
            return self.undo_step_failed(step, &error.0);
        }
        if seeded!(self, RetriesFailedFlush) && work.describe() == "a flush" {
            return self.start_disk_op(Device::Data, DiskOpKind::Flush, work);
        }
        if seeded!(self, IgnoresMetadataError) && work.describe() == "a metadata operation" {
            return self.end_work(work, Some(Bytes::new()));
        }
        if let Some(range) = range.filter(|_| self.config.options.on_io_error == OnIoError::PassOn) {
            let what = format!("{} of {range} failed: {error}", work.describe());
            return self.pass_on(work, range, &what);
        }
        if !seeded!(self, KeepsFailedDiskUpToDate) || work.describe() != "a write" {
            self.disk_failed(&format!("{} failed: {error}", work.describe()));
        }
        self.end_work(work, None);
    }

    pub(super) fn end_work(&mut self, work: DiskWork, result: Option<Bytes>) {
        match work {
            DiskWork::ClientRead { key } => self.client_read_done(key, result),
            DiskWork::ClientWrite { key } => self.client_write_done(key, result.is_some()),
            DiskWork::ClientFlush { key } => self.client_flush_done(key, result.is_some()),
            DiskWork::PeerRead { peer, session, id, bytes } => {
                self.peer_read_done(peer, session, id, bytes, result);
            }
            DiskWork::Apply(applied) => self.applied(applied, result.is_some()),
            DiskWork::EpochFlush { peer, session } => self.epoch_flushed(peer, session, result.is_some()),
            DiskWork::ResyncRead(read) => self.resync_read_done(read, result),
            DiskWork::Verify(applied) => self.verify_step_done(applied, result),
            DiskWork::DetachFlush => self.detach_flushed(result.is_some()),
            DiskWork::SettleFlush => self.disk.settling = false,
            DiskWork::Undo(step) => self.undo_step_done(step, result),
            DiskWork::Metadata => {
                if result.is_some() {
                    self.persist_operation_done();
                }
            }
        }
    }

    /// on-io-error detach: the disk is never used again until it is attached anew. A failed flush counts as well;
    /// what was in the disk's cache then is lost, and trying again would hide it.
    pub(super) fn disk_failed(&mut self, what: &str) {
        if !self.disk.is_usable() {
            return;
        }
        self.give_up_disk(what);
        if self.config.options.on_io_error == OnIoError::CallLocalIoError {
            self.tell_handler(Handler::LocalIoError, None);
        }
    }

    /// From now on the disk is not used, and what is under way on it has failed.
    pub(super) fn give_up_disk(&mut self, what: &str) {
        if !self.disk.is_usable() {
            return;
        }
        self.event(Event::DiskFailed { why: what.to_owned() });
        self.rely_on_what_peers_lack();
        self.note_what_is_kept();
        self.disk.has_failed = true;
        self.forget_metadata();
        self.set_disk(DiskState::Failed);
        self.disk.release_when_idle = true;
        self.forget_local_legs();
        self.abandon_persist();
        self.abort_resyncs_without_disk();
        self.abandon_operations();
        self.let_waiters_go();
        self.resume_stalled_peers();
    }

    /// When the operation that began first must have ended.
    pub(super) fn disk_deadline(&self) -> Option<Timestamp> {
        let limit_ms = Some(self.config.options.disk_timeout_ms).filter(|ms| *ms > 0)?;
        self.disk.operations.first_key_value().map(|(_, oldest)| oldest.began.plus_ms(limit_ms))
    }

    /// A disk that hangs is given up; what it still does ends before it can be attached again. Only a tick tells: an
    /// operation that looks late may have ended, and wait to be reported.
    pub(super) fn check_disk_time(&mut self) {
        if self.disk_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        if self.disk.is_usable() {
            let limit_ms = self.config.options.disk_timeout_ms;
            self.disk_failed(&format!("it failed to meet the disk-timeout of {limit_ms} ms"));
        } else {
            // Reads, or a flush, that were under way when it was detached: their deadline would be due for ever.
            self.abandon_operations();
        }
    }

    /// Whatever the disk says from now on counts for nothing: the system reports a failed flush once, and the next one
    /// succeeds. The driver keeps the device and the buffers until every operation has come back.
    fn abandon_operations(&mut self) {
        if seeded!(self, BelievesLateCompletion) {
            return;
        }
        let operations = std::mem::take(&mut self.disk.operations);
        self.disk.abandoned.extend(operations.keys());
        for operation in operations.into_values() {
            self.end_work(operation.work, None);
        }
    }

    /// What the metadata says that the data is worth. Without fencing, data that was UpToDate still counts as such; with it,
    /// only if no peer can have gone on.
    pub(super) fn disk_state_on_record(&self) -> DiskState {
        match self.disk.metadata.as_ref().map(|m| m.superblock.flags) {
            None => DiskState::Diskless,
            Some(flags) if !flags.consistent => DiskState::Inconsistent,
            Some(flags) if !flags.up_to_date => DiskState::Outdated,
            Some(_) if self.may_be_superseded() => DiskState::Consistent,
            Some(_) => DiskState::UpToDate,
        }
    }

    /// A Primary was there that our disk gets no writes from, or we are one: elsewhere may be newer data, whether or not
    /// that is there when the disk comes. But a Primary that has no data besides ours cannot go on.
    pub(super) fn note_primary_without_us(&mut self) {
        let lonely = self.peers.len() == 1;
        let goes_on = |p: &Peer| p.role == Role::Primary && !(lonely && p.disk < DiskState::Consistent);
        let primary = self.peers.iter().any(|p| p.is_connected() && goes_on(p))
            || self.role == Role::Primary && self.good_peer().is_some();
        self.disk.left_behind |= primary && self.announced_disk() < DiskState::Negotiating;
    }

    /// The peers have said what they had to say, or are gone: the data is worth what the disk says, and `at_most` this.
    pub(super) fn end_negotiation(&mut self, at_most: DiskState) {
        if self.disk.state == DiskState::Negotiating {
            let at_most = if std::mem::take(&mut self.disk.left_behind) {
                at_most.min(DiskState::Outdated)
            } else {
                at_most
            };
            let state = self.disk_state_on_record().min(at_most);
            if let Some(metadata) = self
                .disk
                .metadata
                .as_mut()
                .filter(|m| state <= DiskState::Outdated && m.superblock.flags.up_to_date)
            {
                metadata.superblock.flags.up_to_date = false;
                self.disk.persist.request(false);
            }
            self.set_disk(state);
        }
    }

    /// Its generation names what clients have seen: it is not being brought up to date for a Primary that works through its peer.
    pub(super) fn is_what_clients_see(&self) -> bool {
        self.disk.is_good() || self.role != Role::Primary || seeded!(self, ExposesWhatItLacks)
    }

    /// From now on nothing is read from or written to the disk.
    pub(super) fn forget_metadata(&mut self) {
        let (shown_bytes, shown_layout) = (self.shown_bytes(), self.shown_layout().into_owned());
        let exposed = self.is_what_clients_see();
        if let Some(metadata) = self.disk.metadata.take() {
            self.last_size_bytes = shown_bytes;
            self.last_layout = shown_layout;
            if exposed {
                self.last_generations = metadata.superblock.generations;
            }
        }
        self.forget_log();
        self.disk.growth = Growth::default();
        self.disk.leaving = false;
        self.disk.told_instead = None;
        for peer in &mut self.peers {
            peer.receiver = Receiver::default();
            peer.receiver_session = 0;
            peer.receiver_stale = true;
            // What a handshake under way has offered is gone.
            peer.our_handshake.iter_mut().for_each(|ours| ours.attachment = 0);
        }
    }

    /// The driver may close the backing device once nothing is in flight on it.
    pub(super) fn release_disk_if_idle(&mut self) {
        let idle = self.disk.operations.is_empty() && self.disk.abandoned.is_empty();
        if self.disk.release_when_idle && idle {
            self.disk.release_when_idle = false;
            self.disk.open = false;
            self.outputs.push_back(Output::ReleaseDisk);
            self.set_disk(DiskState::Diskless);
        }
    }

    /// Bytes of the volume, once a disk was attached or a peer told; 0 before.
    pub fn size_bytes(&self) -> u64 {
        self.disk.metadata.as_ref().map_or(self.last_size_bytes, Metadata::volume_bytes)
    }

    /// The volumes, if there are several, as clients see them.
    pub fn shown_layout(&self) -> Cow<'_, Layout> {
        let (layout, bytes) = (self.layout(), self.shown_bytes());
        match layout.is_cut_at(bytes) {
            true => Cow::Owned(layout.cut_to(bytes)),
            false => Cow::Borrowed(layout),
        }
    }

    /// The volumes, if there are several, as the disk has them that is or was attached.
    pub fn layout(&self) -> &Layout {
        self.disk.metadata.as_ref().map_or(&self.last_layout, |m| &m.superblock.layout)
    }
}

impl DiskWork {
    /// It can fail without a word: who asked for a read is answered, and what a resync brings is marked until it is written.
    pub(super) fn may_fail(&self) -> bool {
        match self {
            DiskWork::ClientRead { .. } | DiskWork::PeerRead { .. } | DiskWork::ResyncRead(_) => true,
            DiskWork::Apply(applied) => applied.what.is_resync(),
            _ => false,
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            DiskWork::ClientRead { .. }
            | DiskWork::PeerRead { .. }
            | DiskWork::ResyncRead(_)
            | DiskWork::Verify(_) => "a read",
            DiskWork::ClientWrite { .. } | DiskWork::Apply(_) => "a write",
            DiskWork::ClientFlush { .. }
            | DiskWork::EpochFlush { .. }
            | DiskWork::DetachFlush
            | DiskWork::SettleFlush => "a flush",
            DiskWork::Metadata => "a metadata operation",
            DiskWork::Undo(_) => "an operation for the undo log",
        }
    }
}
