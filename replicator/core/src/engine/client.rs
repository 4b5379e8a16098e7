//! Requests of the clients on the Primary.

use super::disk::DiskWork;
use super::flush::ClientFlush;
use super::held::Held;
use super::peer::Peer;
use super::ranges::Locked;
use super::read::ClientRead;
use super::{Engine, MAX_WRITE_BYTES_IN_FLIGHT, Reign};
use crate::config::Protocol;
use crate::io::{ClientError, ClientOp, Device, DiskOpKind, Payload};
use crate::layout::Place;
use crate::seeded;
use crate::state::{DiskState, ReplicationState, Role};
use crate::units::{ByteRange, Epoch, NodeId, RequestId, SECTOR_BYTES};
use crate::wire::Message;

/// A request that has not been let in.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Read(ByteRange),
    Write(WriteOp),
    Flush,
}

/// What a write does.
#[derive(Clone, Debug)]
pub(super) struct WriteOp {
    range: ByteRange,
    content: WriteContent,
    fua: bool,
    /// What is to be zeroed after this, for the same request.
    rest: Option<ByteRange>,
}

#[derive(Clone, Debug)]
enum WriteContent {
    Data(Payload),
    Zeroes { unmap: bool },
}

/// A write that has not completed, or whose local leg has not ended.
#[derive(Clone, Debug)]
pub(super) struct ClientWrite {
    id: RequestId,
    op: WriteOp,
    epoch: Epoch,
    local: Leg,
    /// Peers whose ack the protocol wants.
    awaiting: Vec<NodeId>,
    /// Peers whose barrier ack the client wants (FUA).
    awaiting_durable: Vec<NodeId>,
    /// Peers that have done what the protocol wants, and are still there.
    done_by: Vec<NodeId>,
    /// The disk has no durable way to write zeroes: a flush follows.
    flush_after: bool,
    /// It holds extents of the activity log until the local disk has it.
    logged: bool,
    /// It holds its range until the peers have it, too: a resync must not read an older block there meanwhile.
    holds_range: bool,
}

/// What the local disk has done of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leg {
    Waiting,
    None,
    Pending,
    Done,
    Failed,
}

impl Engine {
    pub(super) fn client_request(&mut self, id: RequestId, op: ClientOp) {
        if self.role != Role::Primary || self.is_demoting() {
            return self.fail_client(id, ClientError::NotPrimary);
        }
        let (range, write) = match op {
            ClientOp::Flush if self.fails_without_quorum() => return self.fail_client(id, ClientError::Io),
            ClientOp::Flush if self.must_wait() || self.must_wait_for_disk() => {
                return self.admission.push_back((id, Request::Flush));
            }
            ClientOp::Flush => return self.client_flush(id),
            ClientOp::Read(range) => (range, None),
            ClientOp::Write { offset, payload, fua } => {
                let range = ByteRange::new(offset, payload.len());
                (range, Some(WriteOp { range, content: WriteContent::Data(payload), fua, rest: None }))
            }
            ClientOp::Zero { range, unmap, fua } => {
                (range, Some(WriteOp { range, content: WriteContent::Zeroes { unmap }, fua, rest: None }))
            }
        };
        let in_pieces = seeded!(self, LetsRequestsSpanPieces) && self.lies_inside(range);
        if !in_pieces && self.place(range).is_none_or(|place| place.pad_bytes > 0) {
            return self.fail_client(id, ClientError::OutOfRange);
        }
        if self.fails_without_quorum() {
            return self.fail_client(id, ClientError::Io);
        }
        self.note_client_request();
        match write {
            Some(op) => self.admission.push_back((id, Request::Write(op))),
            None if self.must_wait() => self.admission.push_back((id, Request::Read(range))),
            None => self.client_read(id, range),
        }
    }

    /// A read or flush waits behind what came before.
    fn must_wait(&self) -> bool {
        self.must_wait_for_reign() || self.is_suspended() || self.repeats_requests()
    }

    /// Without an equal peer, a node shows its data, or calls it durable, only once the disk says that it went its own way:
    /// if it crashed without a trace, the peer's data might come back after the client has seen this.
    fn must_wait_for_reign(&self) -> bool {
        let alone = self.peers.iter().any(|p| !p.replicates() || p.disk < DiskState::UpToDate);
        self.takes_writes() && self.reign != Reign::Begun && alone
    }

    /// What a peer's request may name: whole sectors of one piece of a volume, or of its pad.
    pub(super) fn is_addressable(&self, range: ByteRange) -> bool {
        self.place(range).is_some()
    }

    fn place(&self, range: ByteRange) -> Option<Place> {
        let shown = self.lies_inside(range) && range.end() <= self.shown_bytes();
        if shown { self.layout().place(range) } else { None }
    }

    /// Whole sectors, of whatever volumes.
    pub(super) fn lies_inside(&self, range: ByteRange) -> bool {
        range.length > 0
            && range.offset.is_multiple_of(SECTOR_BYTES)
            && range.length.is_multiple_of(SECTOR_BYTES)
            && range.offset.checked_add(range.length).is_some_and(|end| end <= self.size_bytes())
    }

    // Writes.

    /// Lets requests in as long as the bounds allow, in the order of their arrival.
    pub(super) fn admit_requests(&mut self) {
        while !self.admission.is_empty()
            && self.may_admit()
            && !self.is_suspended()
            && !self.must_wait_for_disk()
            && !self.generation_must_wait()
            && self.reign_has_begun()
        {
            let bytes = match self.admission.front() {
                Some((_, Request::Write(op))) => Some(op.payload_bytes()),
                _ => None,
            };
            if bytes.is_some_and(|bytes| self.is_full_for(bytes) || self.must_wait_for_peers(bytes)) {
                return;
            }
            let Some((id, request)) = self.take_first_request() else { return };
            let op = match request {
                Request::Read(range) => {
                    self.client_read(id, range);
                    continue;
                }
                Request::Flush => {
                    self.client_flush(id);
                    continue;
                }
                Request::Write(op) => op.first_piece(self.longest_write_bytes()),
            };
            self.write_bytes_in_flight += op.payload_bytes();
            self.begin_generation_if_alone();
            let (key, range) = (self.key(), op.range);
            let write = ClientWrite {
                id,
                op,
                epoch: self.epoch,
                local: Leg::Waiting,
                awaiting: Vec::new(),
                awaiting_durable: Vec::new(),
                done_by: Vec::new(),
                flush_after: false,
                logged: false,
                holds_range: false,
            };
            self.writes.insert(key, write);
            self.acquire(key, range, Locked::ClientWrite(key));
        }
    }

    fn is_full_for(&self, bytes: u64) -> bool {
        self.write_bytes_in_flight > 0 && self.write_bytes_in_flight + bytes > MAX_WRITE_BYTES_IN_FLIGHT
    }

    /// A peer is weighing the generation that our handshake named, or has not yet noted on disk that it is the target:
    /// no other generation or reign may begin until both have decided.
    fn generation_must_wait(&self) -> bool {
        if seeded!(self, BeginsGenerationInHandshake) {
            return false;
        }
        let weighing = self.peers.iter().any(|p| p.our_handshake.is_some());
        let unmarked = self.peers.iter().any(|p| p.is_unmarked_target());
        (weighing || unmarked) && self.reign == Reign::Idle || weighing && self.is_alone_in_generation()
    }

    /// The first request waits until the disk says that this node is Primary, and of which generation.
    fn reign_has_begun(&mut self) -> bool {
        if !self.takes_writes() {
            return true;
        }
        if self.reign == Reign::Idle {
            self.begin_reign();
        }
        if let Reign::Beginning(version) = self.reign
            && self.disk.persist.is_durable(version)
        {
            self.reign = Reign::Begun;
        }
        self.reign == Reign::Begun
    }

    /// From here on a crash is noticed, and without a peer the data goes its own way.
    pub(super) fn begin_reign(&mut self) {
        if let Some(metadata) = self.disk.metadata.as_mut() {
            metadata.superblock.flags.primary = true;
        }
        // A disk that is being brought up to date has its source's generation.
        if self.has_good_disk() && self.peers.iter().any(|p| !p.replicates()) {
            self.begin_generation();
        }
        self.open_log();
        self.reign = Reign::Beginning(self.disk.persist.request(false));
    }

    /// The write has its range: send it to every peer that replicates, mark it for the others, write it here.
    pub(super) fn start_client_write(&mut self, key: u64, logged: bool) {
        let Some(op) = self.writes.get(&key).map(|w| w.op.clone()) else { return };
        let epoch = self.join_epoch();
        let protocol = self.effective_protocol();

        let (mut awaiting, mut awaiting_durable) = (Vec::new(), Vec::new());
        for peer in self.peer_ids() {
            if !self.peer(peer).is_some_and(|p| p.replicates()) {
                let ahead = self.peer(peer).is_some_and(|p| p.replication == ReplicationState::Ahead);
                if !(ahead && seeded!(self, AheadForgetsBits)) {
                    self.mark_out_of_sync(peer, op.range);
                }
                if ahead && seeded!(self, AheadSkipsSome) && key.is_multiple_of(2) {
                    self.replicate(peer, key, &op, epoch, protocol, false);
                }
                continue;
            }
            self.replicate(peer, key, &op, epoch, protocol, logged);
            if protocol != Protocol::A {
                awaiting.push(peer);
                if op.fua {
                    awaiting_durable.push(peer);
                }
            }
        }
        let local = if self.takes_writes() {
            self.start_disk_op(Device::Data, op.to_disk(), DiskWork::ClientWrite { key });
            Leg::Pending
        } else {
            self.leave_write_to_peers(op.range, logged);
            Leg::None
        };
        let holds_range = local == Leg::None || !self.has_good_disk();
        if let Some(write) = self.writes.get_mut(&key) {
            write.epoch = epoch;
            write.local = local;
            write.logged = logged && local == Leg::Pending;
            write.holds_range = holds_range;
            write.flush_after = op.fua && matches!(op.content, WriteContent::Zeroes { .. });
            write.awaiting = awaiting;
            write.awaiting_durable = awaiting_durable;
        }
        if op.fua || self.epoch_writes >= self.config.options.max_epoch_size {
            self.close_epoch(op.fua);
        }
        self.try_complete(key);
    }

    fn replicate(
        &mut self,
        peer: NodeId,
        key: u64,
        op: &WriteOp,
        epoch: Epoch,
        wants: Protocol,
        logged: bool,
    ) {
        let Some(seq) = self.log_transfer(peer, key, op, epoch, wants, logged) else { return };
        let message = match &op.content {
            WriteContent::Data(payload) => {
                Message::Write { seq, offset: op.range.offset, wants, payload: payload.clone() }
            }
            WriteContent::Zeroes { unmap } => Message::Zero { seq, range: op.range, wants, unmap: *unmap },
        };
        self.send(peer, message);
    }

    pub(super) fn client_write_done(&mut self, key: u64, ok: bool) {
        let Some(write) = self.writes.get_mut(&key) else { return };
        if ok && std::mem::take(&mut write.flush_after) {
            return self.start_disk_op(Device::Data, DiskOpKind::Flush, DiskWork::ClientWrite { key });
        }
        write.local = if ok { Leg::Done } else { Leg::Failed };
        let (range, logged) = (write.op.range, std::mem::take(&mut write.logged));
        let holds_range = write.holds_range;
        if logged {
            self.release_after_write(range);
        }
        if !holds_range {
            self.release(key, range);
        }
        self.try_complete(key);
    }

    /// A peer has acknowledged the write, cannot do it, or is gone before it was known to be durable there. What is known
    /// to be counts whenever the peer's data is good: it would be marked if that were not so.
    pub(super) fn write_leg_ended(&mut self, key: u64, peer: NodeId, ok: bool) {
        let Some(write) = self.writes.get_mut(&key) else { return };
        write.awaiting.retain(|p| *p != peer);
        if !ok {
            write.awaiting_durable.retain(|p| *p != peer);
            write.done_by.retain(|p| *p != peer);
        } else if !write.done_by.contains(&peer) {
            write.done_by.push(peer);
        }
        self.try_complete(key);
    }

    /// The peer has made every write up to `epoch` durable, or is gone (`None`: all epochs).
    pub(super) fn durable_leg_ended(&mut self, peer: NodeId, epoch: Option<Epoch>, ok: bool) {
        let good = ok && self.peer(peer).is_some_and(|p| p.has_good_data());
        let covers = |e: Epoch| epoch.is_none_or(|durable| e <= durable);
        let keys: Vec<u64> =
            self.writes.iter().filter(|(_, w)| w.op.fua && covers(w.epoch)).map(|(k, _)| *k).collect();
        for key in keys {
            if let Some(write) = self.writes.get_mut(&key) {
                write.awaiting_durable.retain(|p| *p != peer);
            }
            self.try_complete(key);
        }
        self.flush_leg_ended(peer, covers, good);
    }

    /// Completes the write if the protocol's promise is met (docs/guarantees.md).
    fn try_complete(&mut self, key: u64) {
        let Some(write) = self.writes.get(&key) else { return };
        let hasty = seeded!(self, CompletesBeforeLocal) && write.local == Leg::Pending;
        let local_open = matches!(write.local, Leg::Waiting | Leg::Pending) && !hasty;
        if local_open || !write.awaiting.is_empty() || !write.awaiting_durable.is_empty() {
            return;
        }
        let Some(write) = self.writes.remove(&key) else { return };
        self.write_bytes_in_flight -= write.op.payload_bytes();
        if write.holds_range || hasty {
            self.release(key, write.op.range);
        }
        let is_good = |id: &NodeId| self.peer(*id).is_some_and(Peer::has_good_data);
        let remote_done = write.done_by.iter().any(is_good);
        let ok = write.local == Leg::Done && self.has_good_disk() || remote_done || hasty;
        if let (true, Some(next)) = (ok, write.op.next_piece()) {
            self.ask_first(write.id, Request::Write(next));
        } else if ok {
            let ClientWrite { id, op, epoch, .. } = write;
            self.complete_or_hold(Held { key, id, request: Request::Write(op), epoch, remote_done });
        } else {
            self.put_back_or_fail(key, write.id, Request::Write(write.op));
        }
    }

    /// The disk has failed: what it has done counts for nothing, and no generation will be noted on it. A write that is
    /// not done waits until a peer's disk has it, whatever the protocol.
    pub(super) fn forget_local_legs(&mut self) {
        let mut durable = false;
        let mut unconfirmed = Vec::new();
        for peer in self.peers.iter().filter(|p| p.has_good_data()) {
            let log = peer.transfer_log.iter().filter(|w| !w.acked || w.wants != Protocol::C);
            unconfirmed.extend(log.map(|w| (peer.id(), w.key)));
        }
        for (peer, key) in unconfirmed {
            let Some(write) = self.writes.get_mut(&key) else { continue };
            write.done_by.retain(|p| *p != peer);
            if !write.awaiting.contains(&peer) {
                write.awaiting.push(peer);
            }
            if write.op.fua && !write.awaiting_durable.contains(&peer) {
                write.awaiting_durable.push(peer);
            }
            durable |= write.op.fua;
        }
        self.close_epoch_if_begun(durable);
        self.writes.values_mut().filter(|w| w.local == Leg::Done).for_each(|w| w.local = Leg::Failed);
        self.flushes.values_mut().for_each(ClientFlush::forget_local_leg);
        self.fail_held_without_peer();
    }

    /// Without a disk of our own the data is nowhere until a peer has written it.
    pub(super) fn effective_protocol(&self) -> Protocol {
        if self.has_good_disk() { self.config.options.protocol } else { Protocol::C }
    }

    // What is under way.

    /// Nothing that was let in is under way.
    pub(super) fn admitted_are_done(&self) -> bool {
        self.writes.is_empty() && self.flushes.is_empty() && self.reads.is_empty() && self.held.is_empty()
    }

    /// Writes that were let in wait for their turn, in a generation that an absent peer may have: they will mark what our
    /// handshake does not know of yet.
    pub(super) fn is_about_to_mark(&self) -> bool {
        self.is_alone_in_generation() && self.writes.values().any(|w| w.local == Leg::Waiting)
    }

    /// The first write waits for a target that has not yet noted on disk that it is one.
    pub(super) fn waits_for_target_mark(&self) -> bool {
        self.reign == Reign::Idle && !self.admission.is_empty()
    }

    /// No write or flush that was let in is under way, but for completions that are held back.
    pub(super) fn is_written_out(&self) -> bool {
        self.writes.is_empty() && self.flushes.is_empty()
    }

    /// No write or flush that was let in is under way.
    pub(super) fn nothing_is_written(&self) -> bool {
        self.is_written_out() && self.held.is_empty()
    }

    /// No write or flush is under way.
    pub(super) fn clients_are_idle(&self) -> bool {
        self.nothing_is_written() && self.admission.is_empty() && self.no_data.requests().len() == 0
    }

    /// The range of a write under way.
    pub(super) fn range_being_written(&self, key: u64) -> Option<ByteRange> {
        self.writes.get(&key).map(|w| w.op.range)
    }

    /// The ranges of writes under way.
    pub(super) fn ranges_being_written(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.writes.values().map(|w| w.op.range)
    }

    pub(super) fn clients_pending(&self) -> u64 {
        let under_way = self.writes.len() + self.flushes.len() + self.reads.len() + self.held.len();
        (under_way + self.admission.len() + self.no_data.requests().len()) as u64
    }

    /// Where each of them begins; what has no place begins at 0.
    pub(super) fn request_offsets(&self) -> impl Iterator<Item = u64> {
        let waiting = self.admission.iter().map(|(_, request)| request);
        let waiting = waiting.chain(self.no_data.requests()).map(|request| match request {
            Request::Read(range) => range.offset,
            Request::Write(op) => op.range.offset,
            Request::Flush => 0,
        });
        let placeless = std::iter::repeat_n(0, self.flushes.len() + self.held.len());
        let writes = self.writes.values().map(|write| write.op.range.offset);
        waiting.chain(placeless).chain(writes).chain(self.reads.values().map(ClientRead::offset))
    }
}

impl WriteOp {
    pub(super) fn range(&self) -> ByteRange {
        self.range
    }

    /// Zeroes of any length can be asked for; no more than this are written at a time.
    fn first_piece(self, longest_bytes: u64) -> WriteOp {
        let ByteRange { offset, length } = self.range;
        if length <= longest_bytes || matches!(self.content, WriteContent::Data(_)) {
            return self;
        }
        let rest = ByteRange::new(offset + longest_bytes, length - longest_bytes);
        WriteOp { range: ByteRange::new(offset, longest_bytes), rest: Some(rest), ..self }
    }

    fn next_piece(&self) -> Option<WriteOp> {
        Some(WriteOp { range: self.rest?, rest: None, ..self.clone() })
    }

    /// Bytes of memory it holds.
    pub(super) fn payload_bytes(&self) -> u64 {
        match &self.content {
            WriteContent::Data(payload) => payload.len(),
            WriteContent::Zeroes { .. } => 0,
        }
    }

    fn to_disk(&self) -> DiskOpKind {
        match &self.content {
            WriteContent::Data(payload) => {
                DiskOpKind::Write { offset: self.range.offset, data: payload.data.clone(), fua: self.fua }
            }
            WriteContent::Zeroes { unmap } => DiskOpKind::Zero { range: self.range, unmap: *unmap },
        }
    }
}
