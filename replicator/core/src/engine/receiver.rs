//! The applying side: what a Primary sends is written here, epoch by epoch.
//!
//! Writes of one epoch run side by side; those of the next wait until every write of the epoch before has ended and,
//! with write ordering `flush`, is durable. With `none` they do not wait; only acknowledgements keep the order. When the connection breaks, what has arrived is still applied: the
//! Primary may have told its client that it was received.

use std::collections::VecDeque;

use super::disk::DiskWork;
use super::ranges::Locked;
use super::verify::Step;
use super::{Engine, MAX_TRANSFER_LOG};
use crate::config::{Protocol, WriteOrdering};
use crate::io::{Device, DiskOpKind, Payload};
use crate::seeded;
use crate::state::Role;
use crate::units::{ByteRange, Epoch, NodeId, WriteSeq};
use crate::wire::Message;

/// Most bytes that a peer may have us hold: twice the largest `sndbuf-size`, so that only one that breaks the rules meets
/// it, and a machine of a few gigabytes survives it.
const MAX_HELD_BYTES: u64 = 256 << 20;
/// Most requests, and most epochs: several times the sender's transfer log.
pub(super) const MAX_HELD_REQUESTS: usize = 4 * MAX_TRANSFER_LOG;

/// Epochs that have begun to arrive, the open one last; never empty.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    epochs: VecDeque<ReceivedEpoch>,
    /// The number of the first of them, counted from the beginning of the stream of writes.
    first: u64,
    /// What they hold in memory.
    held: Burden,
    /// Writes that were acknowledged, or need not be, and are not done.
    owed: u32,
    flushing: bool,
}

/// What a peer has sent that the disk does not have.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Burden {
    bytes: u64,
    requests: usize,
}

impl Burden {
    /// Takes a request in; an error if a peer that keeps the rules would not have sent it.
    pub(super) fn take_in(&mut self, bytes: u64) -> Result<(), String> {
        if self.bytes + bytes > MAX_HELD_BYTES || self.requests >= MAX_HELD_REQUESTS {
            return Err(format!(
                "more was sent than a peer may send ahead: {} requests with {} bytes wait for the disk",
                self.requests, self.bytes
            ));
        }
        self.bytes += bytes;
        self.requests += 1;
        Ok(())
    }

    pub(super) fn let_go(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.requests = self.requests.saturating_sub(1);
    }
}

#[derive(Clone, Default, Debug)]
struct ReceivedEpoch {
    received: u32,
    in_flight: u32,
    waiting: VecDeque<Applied>,
    barrier: Option<Barrier>,
}

#[derive(Clone, Copy, Debug)]
struct Barrier {
    epoch: Epoch,
    writes: u32,
    flush: bool,
}

/// Something that a peer's message does to, or wants from, the disk.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub(super) peer: NodeId,
    pub(super) session: u32,
    pub(super) range: ByteRange,
    pub(super) token: u64,
    /// The epoch it belongs to, as the receiver counts them.
    pub(super) epoch: u64,
    /// It holds extents of the activity log.
    pub(super) logged: bool,
    /// A write of a Primary without a disk: ours is the only copy, and the activity log must name it.
    pub(super) only_here: bool,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Write {
        seq: WriteSeq,
        wants: Protocol,
        payload: Payload,
    },
    Zero {
        seq: WriteSeq,
        wants: Protocol,
        unmap: bool,
    },
    Read {
        id: u64,
    },
    Resync {
        payload: Payload,
    },
    ResyncZeroes,
    /// The source has compared: what we have is what it has.
    ResyncInSync,
    Verify(Step),
}

impl What {
    /// It comes from the source of a resync.
    pub(super) fn is_resync(&self) -> bool {
        matches!(self, What::Resync { .. } | What::ResyncZeroes | What::ResyncInSync)
    }

    fn payload_bytes(&self) -> u64 {
        match self {
            What::Write { payload, .. } | What::Resync { payload } => payload.len(),
            What::Zero { .. }
            | What::Read { .. }
            | What::ResyncZeroes
            | What::ResyncInSync
            | What::Verify(_) => 0,
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver {
            epochs: VecDeque::from([ReceivedEpoch::default()]),
            first: 0,
            held: Burden::default(),
            owed: 0,
            flushing: false,
        }
    }
}

impl Receiver {
    /// Everything that has arrived was applied.
    pub(super) fn is_drained(&self) -> bool {
        !self.flushing && self.epochs.iter().all(|e| e.in_flight == 0 && e.waiting.is_empty())
    }

    /// A client may have been told that something is written which is not.
    pub(super) fn owes_writes(&self) -> bool {
        self.owed > 0
    }

    /// The number of the epoch that is open.
    pub(super) fn open_epoch(&self) -> u64 {
        self.first + self.epochs.len() as u64 - 1
    }

    /// Epochs not yet acknowledged.
    pub(super) fn epochs(&self) -> u64 {
        self.epochs.iter().filter(|e| e.received > 0).count() as u64
    }

    /// Requests received and not answered.
    pub(super) fn unacked(&self) -> u64 {
        self.epochs.iter().map(|e| u64::from(e.in_flight) + e.waiting.len() as u64).sum()
    }
}

impl Engine {
    pub(super) fn write_received(
        &mut self,
        peer: NodeId,
        seq: WriteSeq,
        offset: u64,
        wants: Protocol,
        payload: Payload,
    ) -> Result<(), String> {
        let range = ByteRange::new(offset, payload.len());
        self.receive(peer, range, What::Write { seq, wants, payload }, Some((seq, wants)))
    }

    pub(super) fn zero_received(
        &mut self,
        peer: NodeId,
        seq: WriteSeq,
        range: ByteRange,
        wants: Protocol,
        unmap: bool,
    ) -> Result<(), String> {
        self.receive(peer, range, What::Zero { seq, wants, unmap }, Some((seq, wants)))
    }

    pub(super) fn receive(
        &mut self,
        id: NodeId,
        range: ByteRange,
        what: What,
        write: Option<(WriteSeq, Protocol)>,
    ) -> Result<(), String> {
        if !self.is_addressable(range) {
            return Err(format!("a request for {range} lies outside the volume or is no whole sectors"));
        }
        if write.is_some() && self.role == Role::Primary {
            return Err("a replicated write arrived, but this node is Primary".into());
        }
        if matches!(what, What::Zero { .. }) && range.length > self.longest_write_bytes() {
            return Err(format!("{range} is to be zeroed at a time"));
        }
        self.note_client_request();
        let volume = self.layout().index_at(range.offset);
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        peer.writes_received += u64::from(write.is_some());
        if peer.receiver_stale {
            // The disk it was meant for is gone, and the sender was told: it counts on nobody to write this.
            if let What::Read { id: read } = what {
                self.send(id, Message::ReadReply { id: read, payload: None });
            }
            return Ok(());
        }
        peer.received.add(volume, what.payload_bytes());
        let session = peer.session;
        let Some(open) = peer.receiver.epochs.back_mut() else { return Ok(()) };
        if let Some((seq, wants)) = write {
            if open.received >= MAX_HELD_REQUESTS as u32 {
                return Err("an epoch has no end".into());
            }
            open.received += 1;
            peer.receiver.owed += u32::from(wants != Protocol::C);
            if self.primary_relies_on_us(id) {
                self.mark_out_of_sync(id, range);
            }
            if wants == Protocol::B {
                self.send(id, Message::ReceiveAck { seq });
            }
            if wants == Protocol::C && seeded!(self, CompletesOnReceive) {
                self.send(id, Message::WriteAck { seq });
            }
        }
        let token = self.key();
        self.enqueue(id, session, range, token, what)
    }

    /// Starts at once, or waits for the epochs before. Resync data keeps its place among the writes: one that came
    /// before it and waits is older, and must not be applied on top of it.
    pub(super) fn enqueue(
        &mut self,
        id: NodeId,
        session: u32,
        range: ByteRange,
        token: u64,
        what: What,
    ) -> Result<(), String> {
        let unordered =
            self.config.options.write_ordering == WriteOrdering::None || seeded!(self, IgnoresBarrier);
        let resync = what.is_resync();
        let is_write = matches!(what, What::Write { .. } | What::Zero { .. });
        let only_here = is_write && self.primary_relies_on_us(id);
        let held = if resync { self.take_held(id, range) } else { None };
        let Some(peer) = self.peer_mut(id) else { return Ok(()) };
        peer.receiver.held.take_in(what.payload_bytes())?;
        let applied = Applied {
            peer: id,
            session,
            range,
            token: held.unwrap_or(token),
            epoch: peer.receiver.open_epoch(),
            logged: false,
            only_here,
            what,
        };
        let must_wait = peer.receiver.epochs.len() > 1 && !unordered;
        let Some(open) = peer.receiver.epochs.back_mut() else { return Ok(()) };
        if must_wait {
            open.waiting.push_back(applied);
        } else {
            open.in_flight += 1;
            match held {
                Some(_) => self.log_and_start(Locked::Apply(applied)),
                None => self.acquire(applied.token, applied.range, Locked::Apply(applied)),
            }
        }
        Ok(())
    }

    pub(super) fn barrier_received(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        writes: u32,
        flush: bool,
    ) -> Result<(), String> {
        let Some(peer) = self.peer_mut(id).filter(|p| !p.receiver_stale) else { return Ok(()) };
        let Some(open) = peer.receiver.epochs.back_mut() else { return Ok(()) };
        if open.received != writes {
            return Err(format!(
                "barrier #{} counts {writes} writes, {} were received",
                epoch.0, open.received
            ));
        }
        open.barrier = Some(Barrier { epoch, writes, flush });
        if peer.receiver.epochs.len() >= MAX_HELD_REQUESTS {
            return Err("more epochs were sent than a peer may send ahead".into());
        }
        peer.receiver.epochs.push_back(ReceivedEpoch::default());
        self.progress_epochs(id);
        Ok(())
    }

    /// Starts a request that has got its range. On a lost disk it fails at once.
    pub(super) fn start_apply(&mut self, applied: Applied) {
        if !self.disk.is_usable() {
            return self.applied(applied, false);
        }
        let kind = match &applied.what {
            What::Write { payload, .. } | What::Resync { payload } => {
                DiskOpKind::Write { offset: applied.range.offset, data: payload.data.clone(), fua: false }
            }
            What::Verify(_) => return self.start_verify_step(applied),
            What::Zero { unmap, .. } => DiskOpKind::Zero { range: applied.range, unmap: *unmap },
            What::ResyncZeroes => DiskOpKind::Zero { range: applied.range, unmap: true },
            What::ResyncInSync => return self.applied(applied, true),
            What::Read { id } => {
                // The order among reads and writes is kept by the epoch; the range is not needed any longer than that.
                let Applied { peer, session, range, token, epoch, .. } = applied;
                self.serve_read(peer, session, *id, range);
                self.release(token, range);
                return self.request_ended(peer, session, epoch, 0);
            }
        };
        self.start_disk_op(Device::Data, kind, DiskWork::Apply(applied));
    }

    /// A write of a peer has ended on our disk.
    pub(super) fn applied(&mut self, applied: Applied, ok: bool) {
        let Applied { peer, session, range, token, epoch, logged, what, .. } = applied;
        if logged {
            self.release_after_write(range);
        }
        self.release(token, range);
        let live = self.peer(peer).is_some_and(|p| p.session == session && p.link_up);
        let bytes = what.payload_bytes();
        match what {
            What::Write { seq, wants, .. } | What::Zero { seq, wants, .. } => {
                if live && !ok {
                    let disk_stays = self.disk.is_usable();
                    self.send(peer, Message::NegativeAck { seq, disk_stays });
                } else if live && wants == Protocol::C {
                    self.send(peer, Message::WriteAck { seq });
                }
                let receiver = self.peer_mut(peer).filter(|p| p.receiver_session == session);
                if let Some(receiver) = receiver.filter(|_| wants != Protocol::C).map(|p| &mut p.receiver) {
                    receiver.owed -= 1;
                }
            }
            What::Resync { .. } | What::ResyncZeroes | What::ResyncInSync => {
                self.resync_block_written(peer, session, range, ok);
            }
            What::Verify(_) => {}
            What::Read { id } => {
                if live {
                    self.send(peer, Message::ReadReply { id, payload: None });
                }
            }
        }
        self.request_ended(peer, session, epoch, bytes);
    }

    pub(super) fn epoch_flushed(&mut self, id: NodeId, session: u32, ok: bool) {
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.receiver_session != session {
            return;
        }
        peer.receiver.flushing = false;
        if ok {
            self.acknowledge_epoch(id);
        }
        self.progress_epochs(id);
    }

    pub(super) fn request_ended(&mut self, id: NodeId, session: u32, epoch: u64, bytes: u64) {
        let Some(peer) = self.peer_mut(id).filter(|p| p.receiver_session == session) else { return };
        let receiver = &mut peer.receiver;
        receiver.held.let_go(bytes);
        let index = epoch.checked_sub(receiver.first);
        let running = index.and_then(|i| receiver.epochs.get_mut(i as usize)).filter(|e| e.in_flight > 0);
        debug_assert!(running.is_some(), "a request of an epoch that has ended");
        if let Some(epoch) = running {
            epoch.in_flight -= 1;
        }
        self.progress_epochs(id);
    }

    /// Ends epochs that are complete and begins those behind them.
    fn progress_epochs(&mut self, id: NodeId) {
        let ordering = self.config.options.write_ordering;
        loop {
            let unflushed = self.disk.has_unflushed_data();
            let Some(peer) = self.peer_mut(id) else { return };
            if peer.receiver.flushing {
                return;
            }
            let Some(first) = peer.receiver.epochs.front() else { return };
            let Some(barrier) = first.barrier else { return };
            if first.in_flight > 0 || !first.waiting.is_empty() {
                return;
            }
            let must_flush = (ordering == WriteOrdering::Flush || barrier.flush) && unflushed;
            if must_flush && !seeded!(self, AcksBarrierWithoutFlush) {
                let Some(peer) = self.peer_mut(id) else { return };
                peer.receiver.flushing = true;
                let session = peer.receiver_session;
                return self.start_disk_op(
                    Device::Data,
                    DiskOpKind::Flush,
                    DiskWork::EpochFlush { peer: id, session },
                );
            }
            self.acknowledge_epoch(id);
        }
    }

    /// The first epoch is done: acknowledge it and start what waited behind it.
    fn acknowledge_epoch(&mut self, id: NodeId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let current = peer.link_up && peer.receiver_session == peer.session;
        let Some(done) = peer.receiver.epochs.pop_front() else { return };
        peer.receiver.first += 1;
        let waiting = match peer.receiver.epochs.front_mut() {
            Some(next) => {
                next.in_flight += next.waiting.len() as u32;
                std::mem::take(&mut next.waiting)
            }
            None => VecDeque::new(),
        };
        if let Some(Barrier { epoch, writes, .. }) = done.barrier
            && current
            && self.disk.is_usable()
        {
            self.send(id, Message::BarrierAck { epoch, writes });
        }
        for applied in waiting {
            self.acquire(applied.token, applied.range, Locked::Apply(applied));
        }
    }
}
