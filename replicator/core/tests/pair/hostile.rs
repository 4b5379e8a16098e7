//! A peer that says anything at all, as long as it is well-formed: it must never make an engine panic, reach beyond the
//! volume, forget a difference without an answer that it was given, or keep unbounded memory.
//!
//! The peer draws its messages at random, some out of nowhere and some as an answer to what it was told, so that it gets
//! deep into handshakes and resyncs before it lies. `HOSTILE_SEEDS` sets the number of histories.

use std::collections::BTreeSet;

use bytes::Bytes;
use tandem_core::authentication::HmacAlgorithm;
use tandem_core::config::{CongestionOptions, OnCongestion, Options, Protocol, ResyncOptions, WriteOrdering};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::entropy::splitmix64;
use tandem_core::generation::{Generations, HISTORY_SLOTS};
use tandem_core::handler::HandlerOutcome;
use tandem_core::io::{ClientOp, Command, Device, DiskError, DiskOp, DiskOpKind, Payload};
use tandem_core::layout::Layout;
use tandem_core::metadata::{self, Placement};
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::{ByteRange, CommandId, Epoch, HandlerId, NodeId, RequestId, Timestamp, WriteSeq};
use tandem_core::wire::{Handshake, Message, Stream};
use tandem_core::{Engine, Input, Output};

use crate::harness::{DISK_BYTES, MemoryDisk, Pair};

const PEER: NodeId = NodeId(1);
const STEPS: u32 = 600;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        splitmix64(&mut self.0)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// An engine whose only peer is the test.
struct Victim {
    engine: Engine,
    disk: MemoryDisk,
    data_bytes: u64,
    now: Timestamp,
    chance: Chance,
    linked: bool,
    wants_peer: bool,
    disk_is_free: bool,
    operations: Vec<DiskOp>,
    handlers: Vec<HandlerId>,
    /// What it told the peer last, the latest last.
    told: Vec<Message>,
    /// Bytes that it has sent to a target, or written as one.
    resynced_bytes: u64,
    closed: u32,
    next_id: u64,
}

impl Victim {
    fn new(seed: u64) -> Victim {
        let mut chance = Chance(seed);
        let congestion = CongestionOptions {
            policy: chance.pick(&[
                OnCongestion::PullAhead,
                OnCongestion::PullAhead,
                OnCongestion::Disconnect,
            ]),
            fill_bytes: 4096,
            extents: 1237,
            send_buffer_bytes: 16384,
        };
        let options = Options {
            protocol: chance.pick(&[Protocol::A, Protocol::B, Protocol::C]),
            write_ordering: chance.pick(&[WriteOrdering::Flush, WriteOrdering::Drain, WriteOrdering::None]),
            congestion,
            al_extents: 67,
            resync: ResyncOptions {
                csums_algorithm: chance.pick(&[None, Some(DigestAlgorithm::Sha256)]),
                ..ResyncOptions::default()
            },
            verify_algorithm: Some(DigestAlgorithm::Sha1),
            ..Options::default()
        };
        let mut disk = MemoryDisk(vec![0; DISK_BYTES]);
        let geometry = metadata::create(&mut disk, Placement::Internal, DISK_BYTES as u64, 1, seed).unwrap();
        let engine = Pair::engine(0, &options, &[], seed);
        let mut victim = Victim {
            engine,
            disk,
            data_bytes: geometry.data_bytes,
            now: Timestamp(0),
            chance,
            linked: false,
            wants_peer: false,
            disk_is_free: true,
            operations: Vec::new(),
            handlers: Vec::new(),
            told: Vec::new(),
            resynced_bytes: 0,
            closed: 0,
            next_id: 0,
        };
        if let Some(primary) = [None, Some(0), Some(1)][seed as usize % 3] {
            victim.join_in_sync(&options, primary);
            // While the peer has not said anything that ends the connection.
            for _ in 0..victim.chance.below(16) {
                victim.request();
                victim.finish_operation();
            }
            if victim.chance.one_in(4) {
                let ranges = vec![ByteRange::new(0, 1 << 19)];
                victim.say(Message::VerifyStart { id: 1, algorithm: DigestAlgorithm::Sha1, ranges });
            }
        }
        // Enough for the peer to be congested, before it says anything.
        for _ in 0..8 {
            victim.request();
            (0..4).for_each(|_| victim.finish_operation());
        }
        victim
    }

    /// Goes on from where an honest pair is in sync, with this node as the Primary.
    fn join_in_sync(&mut self, options: &Options, primary: usize) {
        let mut pair = Pair::with_options(options);
        pair.up();
        pair.command(primary, Command::Primary { force: true }).unwrap();
        let [node, _] = pair.nodes;
        (self.engine, self.disk) = (node.engine, node.disk);
        (self.linked, self.disk_is_free, self.next_id) = (true, false, 1 << 32);
    }

    fn feed(&mut self, input: Input) {
        self.engine.handle(self.now, input);
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Disk(op) => self.operations.push(op),
                Output::Send { message, .. } => {
                    self.resynced_bytes += match &message {
                        Message::ResyncZeroes { range } | Message::ResyncInSync { range } => range.length,
                        Message::ResyncData { payload, .. } => payload.len(),
                        _ => 0,
                    };
                    self.told.push(message);
                    if self.told.len() > 16 {
                        self.told.remove(0);
                    }
                }
                Output::Connect(_) => self.wants_peer = true,
                Output::StopConnecting(_) => self.wants_peer = false,
                Output::ClosePeer(_) => {
                    self.linked = false;
                    self.closed += 1;
                }
                Output::RunHandler { id, .. } => self.handlers.push(id),
                Output::ReleaseDisk => self.disk_is_free = true,
                Output::Complete { .. }
                | Output::CommandDone { .. }
                | Output::Newcomer { .. }
                | Output::DropClients
                | Output::MeasureDisk { .. }
                | Output::Event(_) => {}
            }
        }
    }

    fn finish_operation(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        let at = self.chance.below(self.operations.len());
        let op = self.operations.swap_remove(at);
        let range = match &op.kind {
            DiskOpKind::Read(range) | DiskOpKind::Zero { range, .. } => *range,
            DiskOpKind::Write { offset, data, .. } => ByteRange::new(*offset, data.len() as u64),
            DiskOpKind::Flush => ByteRange::new(0, 0),
        };
        match op.device {
            Device::Data => assert!(range.end() <= self.data_bytes, "{range} lies in the metadata"),
            Device::Meta if range.length > 0 => assert!(range.offset >= self.data_bytes, "{range} is data"),
            Device::Meta | Device::Undo => {}
        }
        if op.device == Device::Data && matches!(op.kind, DiskOpKind::Write { .. } | DiskOpKind::Zero { .. })
        {
            self.resynced_bytes += range.length;
        }
        let fails = self.chance.one_in(2000);
        let result = if fails { Err(DiskError("broken".into())) } else { self.disk.carry_out(&op) };
        self.feed(Input::DiskDone { id: op.id, result });
    }

    fn say(&mut self, message: Message) {
        if self.linked {
            self.feed(Input::PeerMessage { peer: PEER, message });
        }
    }

    fn command(&mut self, command: Command) {
        self.next_id += 1;
        self.feed(Input::Command { id: CommandId(self.next_id), command });
    }

    fn attach(&mut self) {
        if !self.disk_is_free || !self.operations.is_empty() {
            return;
        }
        let loaded = metadata::load(&mut self.disk, Placement::Internal, DISK_BYTES as u64, NodeId(0));
        self.disk_is_free = false;
        self.command(Command::Attach { metadata: Box::new(loaded.unwrap()) });
    }

    fn step(&mut self) {
        match self.chance.below(40) {
            0 => self.attach(),
            1 | 2 => {
                let force = self.chance.one_in(2);
                self.command(Command::Primary { force });
            }
            3 => self.command(Command::Secondary),
            4 if self.chance.one_in(4) => self.command(Command::Detach),
            5 if self.chance.one_in(4) => self.command(Command::Disconnect),
            6 => self.command(Command::Connect),
            7 => {
                let reset_bitmap = self.chance.one_in(2);
                let command = match self.chance.below(6) {
                    0 => Command::Invalidate { reset_bitmap },
                    1 => Command::InvalidateRemote { reset_bitmap },
                    2 => Command::PauseSync,
                    3 | 4 => {
                        Command::Verify { volume: None, start_bytes: None, stop_bytes: None, repair: None }
                    }
                    _ => Command::ResumeSync,
                };
                self.command(command);
            }
            // Several at a time now and then: a peer is congested by what it has not confirmed.
            8..=11 => (0..=self.chance.below(4)).for_each(|_| self.request()),
            12 => {
                if let Some(due) = self.engine.deadline().filter(|_| self.chance.one_in(8)) {
                    self.now = self.now.max(due);
                }
                self.feed(Input::Tick);
            }
            13 if self.linked && self.chance.one_in(8) => {
                self.linked = false;
                let (how, reason) = (ConnectionState::BrokenPipe, "cut".into());
                self.feed(Input::PeerGone { peer: PEER, how, reason });
            }
            14 => {
                if let Some(id) = self.handlers.pop() {
                    let outcome = HandlerOutcome::Exited(self.chance.pick(&[0, 0, 1, 7]));
                    self.feed(Input::HandlerDone { id, outcome });
                }
            }
            15..=24 => self.finish_operation(),
            _ if !self.linked && self.wants_peer => {
                (self.linked, self.wants_peer) = (true, false);
                let challenge = [self.chance.next() as u8; 32];
                self.feed(Input::PeerConnected { peer: PEER, challenge });
                let options = self.told.iter().rev().find(|m| matches!(m, Message::Options { .. })).cloned();
                if let Some(options) = options.filter(|_| !self.chance.one_in(8)) {
                    self.say(options);
                }
            }
            _ => {
                let message = self.message();
                self.say(message);
            }
        }
    }

    fn request(&mut self) {
        let range = ByteRange::new(self.chance.next() % 64 * 4096, 4096);
        let fua = self.chance.one_in(4);
        let op = match self.chance.below(5) {
            0 => ClientOp::Read(range),
            1 => ClientOp::Flush,
            2 => ClientOp::Zero { range, unmap: fua, fua },
            _ => ClientOp::Write { offset: range.offset, payload: data(4096), fua },
        };
        self.next_id += 1;
        self.feed(Input::Client { id: RequestId(self.next_id), op });
    }

    // The peer.

    fn message(&mut self) -> Message {
        if self.chance.one_in(6) || self.told.is_empty() {
            return self.anything();
        }
        // The latest first: an answer that comes late is often none.
        let back = self.chance.below(4).min(self.chance.below(self.told.len()));
        let told = self.told[self.told.len() - 1 - back].clone();
        match told {
            Message::Handshake(h) => Message::Handshake(self.like(h)),
            Message::BitmapEnd => Message::BitmapEnd,
            Message::PromoteRequest { id } => Message::PromoteReply { id, granted: !self.chance.one_in(4) },
            Message::InvalidateRequest { id, .. } => Message::InvalidateReply { id, granted: true },
            Message::Write { seq, .. } | Message::Zero { seq, .. } => self.ack(seq),
            Message::Barrier { epoch, writes, .. } => Message::BarrierAck { epoch, writes },
            Message::ResyncRequest { range } if self.chance.one_in(2) => Message::ResyncZeroes { range },
            Message::ResyncRequest { range } => {
                Message::ResyncData { offset: range.offset, payload: data(range.length as usize) }
            }
            Message::ResyncData { offset, payload } => {
                Message::ResyncWritten { range: ByteRange::new(offset, payload.len()), written: true }
            }
            Message::ResyncZeroes { range } | Message::ResyncInSync { range } => {
                Message::ResyncWritten { range, written: true }
            }
            Message::ResyncCompare { range, .. } => {
                self.resynced_bytes += range.length;
                Message::ResyncInSync { range }
            }
            Message::ReadRequest { id, range } => {
                Message::ReadReply { id, payload: Some(data(range.length as usize)) }
            }
            Message::Behind { id, .. } => Message::BehindAck { id },
            Message::VerifyStart { id, .. } => Message::VerifyReply { id, granted: true },
            Message::VerifyRequest { id, range } => digests(id, range),
            Message::VerifyDigests { id, range, .. } => {
                Message::VerifyResult { id, range, compared: self.chance.one_in(2), differing: u64::MAX }
            }
            Message::Ping => Message::PingAck,
            other => other,
        }
    }

    fn anything(&mut self) -> Message {
        let (id, range) = (self.number(), self.range());
        let flag = self.chance.one_in(2);
        let length = self.chance.pick(&[512, 4096, 4096, 1 << 20]);
        match self.chance.below(36) {
            0 => Message::Refuse { reason: "no".into() },
            1 => self.options(),
            2..=4 => {
                let h = self.handshake();
                Message::Handshake(h)
            }
            5 => Message::BitmapChunk { chunk: id % 3, words: data(self.chance.pick(&[0, 4096, 4096, 8])) },
            6 => Message::BitmapEnd,
            7 | 8 => Message::State { role: self.role(), disk: self.chance.pick(DiskState::ALL) },
            9 => Message::PromoteRequest { id },
            10 => Message::PromoteReply { id, granted: flag },
            11 => Message::InvalidateRequest { id, remote: flag, reset_bitmap: self.chance.one_in(2) },
            12 => Message::InvalidateReply { id, granted: flag },
            13 if flag => Message::Goodbye { outdated: id.is_multiple_of(2) },
            13 => Message::OutdateRequest,
            14..=17 => Message::Write {
                seq: WriteSeq(id),
                offset: range.offset,
                wants: self.chance.pick(&[Protocol::A, Protocol::B, Protocol::C]),
                payload: data(length),
            },
            18 => Message::Zero { seq: WriteSeq(id), range, wants: Protocol::C, unmap: flag },
            19 | 20 => {
                let writes = self.chance.below(4) as u32;
                Message::Barrier { epoch: Epoch(id), writes, flush: flag }
            }
            21 if flag => Message::ResyncReady,
            21 => Message::ResyncRequest { range },
            22 => Message::ResyncData { offset: range.offset, payload: data(length) },
            23 => Message::ResyncZeroes { range },
            24 => Message::ResyncWritten { range, written: true },
            25 => Message::ResyncDone,
            26 => Message::SyncPause { paused: flag && self.chance.one_in(2) },
            27 => Message::ReadRequest { id, range },
            28 => Message::ReadReply { id, payload: flag.then(|| data(length)) },
            29 => Message::Behind { id, round: u32::from(flag) + 1 },
            31 => Message::ResyncInSync { range },
            32 => {
                let (algorithm, digests) =
                    (DigestAlgorithm::Sha256, data(self.chance.pick(&[32, 32, 8192, 31])));
                Message::ResyncCompare { range, algorithm, digests }
            }
            30 => Message::BarrierAck { epoch: Epoch(id), writes: id as u32 },
            33 => Message::Challenge { algorithm: HmacAlgorithm::Sha256, challenge: [id as u8; 32] },
            34 => Message::Proof { stream: Stream::Data, code: vec![id as u8; 32] },
            _ if flag => self.verify(id, range),
            _ => self.ack(WriteSeq(id)),
        }
    }

    fn verify(&mut self, id: u64, range: ByteRange) -> Message {
        let algorithm = DigestAlgorithm::Sha1;
        match self.chance.below(6) {
            0 | 1 => Message::VerifyStart { id, algorithm, ranges: vec![ByteRange::new(0, 8192)] },
            2 => Message::VerifyRequest { id, range },
            3 => digests(id, range),
            4 => Message::VerifyResult { id, range, compared: true, differing: id },
            _ => Message::VerifyEnd { id, complete: range.length > 4096 },
        }
    }

    fn ack(&mut self, seq: WriteSeq) -> Message {
        match self.chance.below(8) {
            0 => Message::NegativeAck { seq, disk_stays: self.chance.one_in(2) },
            1..=3 => Message::ReceiveAck { seq },
            _ => Message::WriteAck { seq },
        }
    }

    fn number(&mut self) -> u64 {
        match self.chance.below(8) {
            0 => u64::MAX,
            1 => self.chance.next(),
            _ => self.chance.next() % 20,
        }
    }

    fn role(&mut self) -> Role {
        self.chance.pick(Role::ALL)
    }

    /// What the codec lets through: it does not wrap around.
    fn range(&mut self) -> ByteRange {
        let size = self.data_bytes;
        let block = self.chance.next() % (size / 4096) * 4096;
        let offset = self.chance.pick(&[0, block, block, block + 512, size - 512, size, u64::MAX - 511, 7]);
        let length = self.chance.pick(&[512, 4096, 4096, 65_536, 1 << 20, 0, 5, u64::MAX]);
        ByteRange::new(offset, length.min(u64::MAX - offset))
    }

    /// A handshake that answers this one, and lies about a thing or two.
    fn like(&mut self, mut h: Handshake) -> Handshake {
        h.role = self.role();
        for _ in 0..self.chance.below(4) {
            match self.chance.below(8) {
                0 => h.disk = self.chance.pick(DiskState::ALL),
                1 => {
                    h.disk_bytes = self.chance.pick(&[0, 512, 513, u64::MAX]);
                    h.growable_bytes = self.chance.pick(&[h.disk_bytes, 1 << 20, u64::MAX]);
                }
                2 => h.agreed_bytes = self.chance.pick(&[0, 1, 4096, 513, 16_384, u64::MAX]),
                3 => (h.bitmap_id, h.generations.current) = (h.generations.current, self.chance.next()),
                4 => h.generations.current = h.bitmap_id,
                5 => h.dirty_blocks = self.number(),
                6 => h.crashed_primary = !h.crashed_primary,
                _ => h.resync_id = h.generations.current,
            }
        }
        h
    }

    fn handshake(&mut self) -> Handshake {
        let mut history = [0; HISTORY_SLOTS];
        history[0] = self.number();
        Handshake {
            round: self.number() as u32,
            role: self.role(),
            disk: self.chance.pick(DiskState::ALL),
            disk_bytes: self.number(),
            growable_bytes: u64::MAX,
            agreed_bytes: self.number(),
            generations: Generations { current: self.number(), history },
            bitmap_id: self.number(),
            resync_id: self.number(),
            dirty_blocks: self.number(),
            crashed_primary: self.chance.one_in(2),
            discard_my_data: self.chance.one_in(4),
            overcounted: self.chance.one_in(2),
            gave_up: self.chance.one_in(4),
            failed: self.chance.one_in(4),
            held_open: self.chance.one_in(2),
            attachment: self.number(),
            relied_on: self.chance.one_in(2).then_some(7),
            begins: if self.chance.one_in(4) { self.number() } else { 0 },
            layout: Layout::default(),
            rooms: Vec::new(),
            growable_rooms: Vec::new(),
        }
    }

    fn options(&mut self) -> Message {
        let protocol = self.chance.pick(&[Protocol::A, Protocol::B, Protocol::C]);
        let options = Options { protocol, ..Options::default() };
        let (terms, settings) = (options.terms(), options.settings());
        Message::Options { terms, settings, tentative: self.chance.one_in(4) }
    }
}

fn digests(id: u64, range: ByteRange) -> Message {
    let blocks = range.length.div_ceil(4096).clamp(1, 64) as usize;
    let digests = Payload::new(vec![7; 20 * blocks].into());
    Message::VerifyDigests { id, range, seen: id, algorithm: DigestAlgorithm::Sha1, digests }
}

fn data(bytes: usize) -> Payload {
    Payload::new(Bytes::from(vec![0x5a; bytes]))
}

/// A full history of a seed; the states of replication that it came through.
fn live(seed: u64) -> BTreeSet<ReplicationState> {
    let mut victim = Victim::new(seed);
    victim.attach();
    victim.command(Command::Connect);
    let mut reached = BTreeSet::new();
    let mut accounted_bytes = 0;
    for _ in 0..STEPS {
        let before = victim.engine.status(victim.now);
        let resynced_before = victim.resynced_bytes;
        victim.step();
        let after = victim.engine.status(victim.now);
        reached.insert(after.peers[0].replication);
        // What is forgotten was sent to a target, or written as one, since the two connected; a volume that shrinks, or a
        // disk that goes, takes its marks along.
        accounted_bytes += victim.resynced_bytes - resynced_before;
        if after.peers[0].replication == ReplicationState::Off {
            accounted_bytes = 0;
        }
        let same_disk = before.size_bytes == after.size_bytes && before.disk >= DiskState::Negotiating;
        let forgotten = before.peers[0].out_of_sync_bytes.saturating_sub(after.peers[0].out_of_sync_bytes);
        if same_disk && after.disk >= DiskState::Negotiating {
            assert!(
                forgotten <= accounted_bytes,
                "{forgotten} bytes are forgotten, {accounted_bytes} were resynced"
            );
            accounted_bytes -= forgotten;
        }
    }
    reached
}

#[test]
fn any_sequence_of_messages_is_survived() {
    let seeds = std::env::var("HOSTILE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut reached = BTreeSet::new();
    for seed in 0..seeds {
        match std::panic::catch_unwind(|| live(seed)) {
            Ok(states) => reached.extend(states),
            Err(_) => panic!("seed {seed}"),
        }
    }
    // Otherwise the lies would not get deep.
    use ReplicationState::{Behind, Established, SyncSource, SyncTarget, WFBitMapS, WFBitMapT};
    let deep = [Established, WFBitMapS, WFBitMapT, SyncSource, SyncTarget, Behind];
    assert!(deep.iter().all(|state| reached.contains(state)), "only {reached:?} were reached");
}

#[test]
fn no_flood_is_kept_in_memory() {
    let range = ByteRange::new(0, 4096);
    let block = data(1 << 20);
    let floods: [(&str, Vec<Message>); 5] = [
        (
            "writes",
            vec![Message::Write { seq: WriteSeq(1), offset: 0, wants: Protocol::C, payload: data(512) }],
        ),
        (
            "large writes",
            vec![Message::Write { seq: WriteSeq(1), offset: 0, wants: Protocol::C, payload: block.clone() }],
        ),
        ("zeroes", vec![Message::Zero { seq: WriteSeq(1), range, wants: Protocol::C, unmap: false }]),
        ("reads", vec![Message::ReadRequest { id: 1, range }]),
        (
            "epochs",
            vec![
                Message::Write { seq: WriteSeq(1), offset: 0, wants: Protocol::C, payload: data(512) },
                Message::Barrier { epoch: Epoch(1), writes: 1, flush: false },
            ],
        ),
    ];
    for (name, messages) in floods {
        // Seed 2: a Secondary in sync. Its disk has stopped.
        let mut victim = Victim::new(2);
        let mut sent_bytes = 0;
        let ended = (0..60_000).any(|_| {
            for message in &messages {
                sent_bytes += message.payload_bytes();
                victim.say(message.clone());
            }
            victim.closed > 0
        });
        assert!(ended, "{name} are taken without end");
        assert!(sent_bytes <= 300 << 20, "{name}: {sent_bytes} bytes were taken");
    }
}
