//! The engine: one resource on one node.
//!
//! [`Engine::handle`] dispatches an input to the room it belongs to, then [`Engine::advance`] starts whatever has
//! become possible. Rooms: [`client`] (requests, writes), [`read`], [`flush`], [`held`] (those that are done and must not
//! complete yet), [`ranges`] (who is at work where), [`replication`] (the sending side), [`receiver`] (the applying side),
//! [`peer_reads`] (for a Primary without a disk), [`congestion`] (peers that cannot keep up), [`connection`] (connecting,
//! heartbeats, loss), [`authentication`], [`handshake`], [`split_brain`], [`divergence`] (what both wrote), [`stepping_down`],
//! [`resync`], [`verify`], [`disk`] (disk operations and failures), [`passed_on`] (errors that a disk is kept in spite of),
//! [`primary_disk`] (a Primary whose disk comes and goes), [`activity`] (the activity log), [`persist`] (metadata), [`undo`]
//! (what a resync overwrites), [`command`] (the administrator), [`handlers`] (its programs), [`fencing`], [`quorum`],
//! [`no_data`] (no copy can be reached), [`exposed`] (which disk has what clients have seen), [`resize`] (a disk that grows), [`report`] (status).

mod activity;
mod authentication;
mod client;
mod command;
mod congestion;
mod connection;
mod disk;
mod divergence;
mod exposed;
mod fencing;
mod flush;
mod handlers;
mod handshake;
mod held;
mod newcomer;
mod no_data;
mod passed_on;
mod peer;
mod peer_reads;
mod persist;
mod primary_disk;
mod quorum;
mod ranges;
mod read;
mod receiver;
mod replication;
mod report;
mod resize;
mod resync;
mod split_brain;
mod stepping_down;
mod undo;
mod verify;

use std::collections::{BTreeMap, VecDeque};

use crate::config::EngineConfig;
use crate::entropy::splitmix64;
use crate::generation::{Generations, new_identifier};
use crate::io::{ClientError, Command, Event, Input, Level, Output};
use crate::layout::Layout;
use crate::seeded;
use crate::state::{DiskState, Role};
use crate::status::Suspended;
use crate::units::{CommandId, Epoch, NodeId, RequestId, Timestamp};
use crate::wire::Message;

use client::{ClientWrite, Request};
use command::{CurrentCommand, PendingRepair};
use disk::Disk;
use flush::ClientFlush;
use held::Held;
use no_data::NoData;
use peer::Peer;
use persist::Version;
use ranges::Ranges;
use read::ClientRead;
use resync::OwnPause;
use stepping_down::SteppingDown;

/// Bytes of writes that may be under way at a time, so that a slow peer or disk costs bounded memory. One larger
/// request is let through alone.
const MAX_WRITE_BYTES_IN_FLIGHT: u64 = 16 << 20;
/// Writes not yet behind a barrier ack, per peer: bounds the transfer log.
const MAX_TRANSFER_LOG: usize = 8192;
/// Openers named when a demotion is refused.
const MAX_OPENERS_NAMED: usize = 10;

/// One resource on one node: see the crate's documentation for the contract.
#[derive(Clone)]
pub struct Engine {
    config: EngineConfig,
    now: Timestamp,
    entropy: u64,
    outputs: VecDeque<Output>,
    role: Role,
    reign: Reign,
    openers: Vec<String>,
    disk: Disk,
    /// Of the disk that was lost last.
    last_size_bytes: u64,
    last_layout: Layout,
    /// Of the data that clients have seen, while this node is Primary without a copy of its own.
    last_generations: Generations,
    /// The attachment of the peer's disk whose cache held completed writes when it was lost, while this node is Primary
    /// without a copy of its own: no other will do, and if it is 0, none.
    relied_on: Option<u64>,
    peers: Vec<Peer>,
    counters: Counters,

    reads: BTreeMap<u64, ClientRead>,
    writes: BTreeMap<u64, ClientWrite>,
    flushes: BTreeMap<u64, ClientFlush>,
    admission: VecDeque<(RequestId, Request)>,
    write_bytes_in_flight: u64,
    client_request_at: Option<Timestamp>,
    resync_pause: OwnPause,
    held: Vec<Held>,
    no_data: NoData,
    epoch: Epoch,
    epoch_writes: u32,

    ranges: Ranges,
    next_key: u64,

    commands: VecDeque<(CommandId, Command)>,
    current_command: Option<CurrentCommand>,
    repair: Option<PendingRepair>,
    running: handlers::Running,
    stepping_down: Option<SteppingDown>,
    told_of_degradation: bool,
    told_of_suspension: Suspended,
    /// The administrator has said suspend-io.
    user_suspends: bool,
    /// A generation would have begun, had requests not been frozen.
    generation_deferred: bool,
    /// At the last look.
    had_quorum: bool,
    /// What the steps of [`Engine::advance`] look at is not what it was when the first of them looked.
    has_changed: bool,

    #[cfg(feature = "mutations")]
    mutation: Option<crate::mutation::Mutation>,
}

/// What the metadata knows of this node being Primary. Nothing, until the first write, or the first read without the
/// peer: a Primary that has changed and shown nothing may crash, or give way to the other node, without a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reign {
    /// Nothing was written yet.
    Idle,
    /// The first write waits until this version of the metadata is durable.
    Beginning(Version),
    /// A crash from here on will be noticed.
    Begun,
}

/// Since the engine began.
#[derive(Clone, Default, Debug)]
struct Counters {
    disk_read: VolumeBytes,
    disk_written: VolumeBytes,
    bitmap_writes: u64,
    activity_log_writes: u64,
}

/// Bytes counted by volume.
#[derive(Clone, Default, Debug)]
struct VolumeBytes(Vec<u64>);

impl VolumeBytes {
    fn add(&mut self, volume: usize, bytes: u64) {
        if self.0.len() <= volume {
            self.0.resize(volume + 1, 0);
        }
        self.0[volume] += bytes;
    }

    fn of(&self, volume: usize) -> u64 {
        self.0.get(volume).copied().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Engine {
    /// An engine that has no disk and no connection. `entropy` seeds the generation identifiers: draw it afresh from
    /// the operating system at every start.
    pub fn new(config: EngineConfig, entropy: u64, now: Timestamp) -> Self {
        let peers = config.peers.iter().map(|p| Peer::new(p.clone(), now)).collect();
        Engine {
            config,
            now,
            entropy,
            outputs: VecDeque::new(),
            role: Role::Secondary,
            reign: Reign::Idle,
            openers: Vec::new(),
            disk: Disk::default(),
            last_size_bytes: 0,
            last_layout: Layout::default(),
            last_generations: Generations::NONE,
            relied_on: None,
            peers,
            counters: Counters::default(),
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            flushes: BTreeMap::new(),
            admission: VecDeque::new(),
            write_bytes_in_flight: 0,
            client_request_at: None,
            resync_pause: OwnPause::default(),
            held: Vec::new(),
            no_data: NoData::default(),
            epoch: Epoch(1),
            epoch_writes: 0,
            ranges: Ranges::default(),
            next_key: 1,
            commands: VecDeque::new(),
            current_command: None,
            repair: None,
            running: handlers::Running::default(),
            stepping_down: None,
            told_of_degradation: false,
            told_of_suspension: Suspended::default(),
            user_suspends: false,
            generation_deferred: false,
            had_quorum: true,
            has_changed: false,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }

    /// Runs with this seeded bug, for the simulator's test of itself.
    #[cfg(feature = "mutations")]
    pub fn seed_bug(&mut self, mutation: Option<crate::mutation::Mutation>) {
        self.mutation = mutation;
    }

    /// Feeds one input. Drain [`Engine::poll_output`] before sleeping.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Client { id, op } => self.client_request(id, op),
            Input::PeerConnected { peer, challenge } => self.peer_connected(peer, challenge),
            Input::PeerMessage { peer, message } => self.peer_message(peer, message),
            Input::PeerGone { peer, how, reason } => self.peer_gone(peer, how, reason),
            Input::Newcomer { peer, event } => self.newcomer(peer, event),
            Input::PeerRefused { peer, reason } => self.peer_refused(peer, reason),
            Input::DiskDone { id, result } => self.disk_done(id, result),
            Input::Command { id, command } => self.commands.push_back((id, command)),
            Input::CancelCommand { id } => self.cancel_command(id),
            Input::HandlerDone { id, outcome } => self.handler_done(id, outcome),
            Input::DiskMeasured(measured) => self.disk_measured(measured),
            Input::ResyncMustWait(wait) => self.resync_must_wait(wait),
            Input::Tick => self.check_disk_time(),
        }
        self.advance();
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A client opens the device. Refused unless Primary, with a sentence for the client's operator.
    pub fn open(&mut self, client: String) -> Result<(), String> {
        if self.role != Role::Primary {
            return Err(self.why_not_open());
        }
        if self.is_stepping_down() {
            return Err(format!("{} is stepping down as Primary here: its data loses", self.config.resource));
        }
        self.openers.push(client);
        Ok(())
    }

    /// A client that [`Engine::open`] admitted has gone; its requests have been completed or dropped by the driver.
    pub fn close(&mut self, client: &str) {
        if let Some(i) = self.openers.iter().position(|o| o == client) {
            self.openers.remove(i);
        }
    }

    /// Starts whatever has become possible. Every step looks at the state, not at what happened, so that nothing
    /// depends on who calls it. A step may change what an earlier one looks at: then all have another turn, for the next
    /// input may be long in coming.
    fn advance(&mut self) {
        self.has_changed = true;
        while std::mem::take(&mut self.has_changed) {
            self.take_turn();
            self.has_changed &= !seeded!(self, SleepsTooEarly);
        }
    }

    fn take_turn(&mut self) {
        self.check_liveness();
        self.check_promotion_time();
        self.abandon_useless_logs();
        self.note_primary_without_us();
        self.progress_fencing();
        self.progress_quorum();
        self.progress_no_data();
        self.retry_connecting();
        self.progress_stepping_down();
        self.progress_commands();
        self.begin_drained_resyncs();
        self.resume_stalled_peers();
        self.catch_up();
        self.exchange_handshakes();
        self.progress_resyncs();
        self.progress_verifies();
        self.admit_requests();
        self.tell_of_degradation();
        self.tell_of_suspension();
        self.progress_undo();
        self.progress_growth();
        self.progress_log();
        self.start_persist();
        self.release_disk_if_idle();
    }

    fn peer_message(&mut self, id: NodeId, message: Message) {
        let now = self.now;
        let Some(peer) = self.peer_mut(id) else { return };
        if !peer.link_up {
            if peer.proving.is_some() {
                self.stranger_speaks(id, message);
            }
            return;
        }
        peer.last_received = now;
        if peer.is_stalled() && message.stream() == crate::wire::Stream::Data {
            return match peer.deferred_held.take_in(message.payload_bytes()) {
                Ok(()) => peer.deferred.push_back(message),
                Err(violation) => self.protocol_error(id, &violation),
            };
        }
        self.dispatch(id, message);
    }

    fn dispatch(&mut self, peer: NodeId, message: Message) {
        let outcome = match message {
            Message::Ping => {
                self.send(peer, Message::PingAck);
                Ok(())
            }
            Message::PingAck => self.ping_answered(peer),
            Message::Preamble(_) => Err("a preamble in the middle of a connection".into()),
            Message::Challenge { .. } => self.challenged_in_vain(peer),
            Message::Proof { .. } => Err("a proof in the middle of a connection".into()),
            Message::Refuse { reason } => self.refused_by_peer(peer, &reason),
            Message::Options { terms, settings, tentative } => {
                self.options_received(peer, terms, &settings, tentative)
            }
            Message::Handshake(h) => self.handshake_received(peer, h),
            Message::BitmapChunk { chunk, words } => self.bitmap_chunk_received(peer, chunk, &words.data),
            Message::BitmapEnd => self.bitmap_end_received(peer),
            Message::State { role, disk } => self.state_received(peer, role, disk),
            Message::PromoteRequest { id } => self.promote_requested(peer, id),
            Message::PromoteReply { id, granted } => self.promote_answered(peer, id, granted),
            Message::InvalidateRequest { id, remote, reset_bitmap } => {
                self.invalidate_requested(peer, id, remote, reset_bitmap)
            }
            Message::InvalidateReply { id, granted } => self.invalidate_answered(peer, id, granted),
            Message::Goodbye { outdated } => self.goodbye_received(peer, outdated),
            Message::OutdateRequest => self.outdate_requested(peer),
            Message::VerifyStart { id, algorithm, ranges } => {
                self.verify_start_requested(peer, id, algorithm, ranges)
            }
            Message::VerifyReply { id, granted } => self.verify_start_answered(peer, id, granted),
            Message::VerifyRequest { id, range } => self.verify_requested(peer, id, range),
            Message::VerifyDigests { id, range, seen, algorithm, digests } => {
                self.digests_received(peer, id, range, seen, algorithm, digests)
            }
            Message::VerifyResult { id, range, compared, differing } => {
                self.verify_result_received(peer, id, range, compared, differing)
            }
            Message::VerifyEnd { id, complete } => self.verify_ended(peer, id, complete),
            Message::Write { seq, offset, wants, payload } => {
                self.write_received(peer, seq, offset, wants, payload)
            }
            Message::Zero { seq, range, wants, unmap } => self.zero_received(peer, seq, range, wants, unmap),
            Message::Barrier { epoch, writes, flush } => self.barrier_received(peer, epoch, writes, flush),
            Message::ResyncReady => self.resync_ready_received(peer),
            Message::ResyncRequest { range } => self.resync_requested(peer, range),
            Message::ResyncData { offset, payload } => self.resync_data_received(peer, offset, payload),
            Message::ResyncZeroes { range } => self.resync_zeroes_received(peer, range),
            Message::ResyncWritten { range, written } => self.resync_written(peer, range, written),
            Message::ResyncCompare { range, algorithm, digests } => {
                self.resync_compare_received(peer, range, algorithm, digests)
            }
            Message::ResyncInSync { range } => self.resync_in_sync_received(peer, range),
            Message::SyncPause { paused } => self.sync_pause_received(peer, paused),
            Message::ResyncDone => self.resync_done_received(peer),
            Message::ReadRequest { id, range } => self.read_requested(peer, id, range),
            Message::ReadReply { id, payload } => self.read_answered(peer, id, payload),
            Message::Behind { id, round } => self.behind_received(peer, id, round),
            Message::BehindAck { id } => self.behind_answered(peer, id),
            Message::ResizeRequest { id, assume_clean } => self.resize_requested(peer, id, assume_clean),
            Message::ResizeReply { id, room_bytes, rooms } => {
                self.resize_answered(peer, id, room_bytes, rooms)
            }
            Message::ReceiveAck { seq } => self.write_acked(peer, seq, crate::config::Protocol::B, true),
            Message::WriteAck { seq } => self.write_acked(peer, seq, crate::config::Protocol::C, true),
            Message::NegativeAck { seq, disk_stays } => self.negative_ack_received(peer, seq, disk_stays),
            Message::BarrierAck { epoch, writes } => self.barrier_acked(peer, epoch, writes),
        };
        if let Err(violation) = outcome {
            self.protocol_error(peer, &violation);
        }
    }

    // Small things that every room needs.

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn random(&mut self) -> u64 {
        splitmix64(&mut self.entropy)
    }

    fn new_generation_id(&mut self) -> u64 {
        new_identifier(self.random(), self.role)
    }

    fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|p| p.id() == id)
    }

    fn peer_mut(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|p| p.id() == id)
    }

    fn peer_ids(&self) -> Vec<NodeId> {
        self.peers.iter().map(Peer::id).collect()
    }

    fn send(&mut self, peer: NodeId, message: Message) {
        let volume = message.offset().map_or(0, |offset| self.layout().index_at(offset));
        if let Some(p) = self.peer_mut(peer)
            && p.link_up
        {
            p.sent.add(volume, message.data_bytes());
            self.outputs.push_back(Output::Send { peer, stream: message.stream(), message });
        }
    }

    fn event(&mut self, event: Event) {
        self.has_changed = true;
        self.outputs.push_back(Output::Event(event));
    }

    fn note(&mut self, peer: Option<NodeId>, level: Level, text: impl Into<String>) {
        self.event(Event::Note { peer, level, text: text.into() });
    }

    fn fail_client(&mut self, id: RequestId, error: ClientError) {
        self.outputs.push_back(Output::Complete { id, result: Err(error) });
    }

    fn set_role(&mut self, role: Role) {
        if role != self.role {
            let old = std::mem::replace(&mut self.role, role);
            if role == Role::Secondary {
                self.reign = Reign::Idle;
                self.forget_fences();
                self.peers.iter_mut().for_each(|p| p.parted_as_primary = false);
                self.relied_on = None;
            } else {
                // Whoever is promoted keeps what it has.
                self.peers.iter_mut().for_each(|p| p.discard_my_data = false);
            }
            self.event(Event::Role { old, new: role });
            self.announce_state();
        }
    }

    fn set_disk(&mut self, state: DiskState) {
        if state != self.disk.state {
            let old = std::mem::replace(&mut self.disk.state, state);
            if state == DiskState::UpToDate {
                self.relied_on = None;
            }
            self.event(Event::Disk { old, new: state });
            self.announce_state();
        }
    }

    /// Tells every connected peer our role and disk.
    fn announce_state(&mut self) {
        for id in self.peer_ids() {
            if self.peer(id).is_some_and(Peer::is_connected) {
                self.announce_to(id);
            }
        }
    }

    fn announce_to(&mut self, peer: NodeId) {
        let disk = self.disk.told_instead.unwrap_or(self.announced_disk());
        let state = Message::State { role: self.role, disk };
        self.send(peer, state);
    }

    /// A disk that is being detached gets nothing new.
    fn announced_disk(&self) -> DiskState {
        if self.disk.leaving { DiskState::Diskless } else { self.disk.state }
    }

    fn why_not_open(&self) -> String {
        let primary = self.peers.iter().find(|p| p.role == Role::Primary);
        let resource = &self.config.resource;
        match primary {
            Some(p) => format!("{resource} is Secondary here; {} is Primary: connect there", p.config.name),
            None => format!(
                "{resource} is Secondary here and no Primary is known: run 'tandemadm primary {resource}' on the node \
                 that shall serve it"
            ),
        }
    }
}
