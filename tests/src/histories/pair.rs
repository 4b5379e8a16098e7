//! Two real engines back to back: disks in memory, messages delivered at once, everything to the end before the next
//! event. A pair is a value: it can be copied, and tried out.

use std::sync::Arc;

use bytes::Bytes;
use tandem_core::config::{EngineConfig, Options, PeerConfig, Protocol};
use tandem_core::io::{ClientError, ClientOp, Command, Device, DiskError, DiskOp, DiskOpKind, Event};
use tandem_core::metadata::{self, Carelessness, MetaIo, Metadata, Placement};
use tandem_core::mutation::Mutation;
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::status::Status;
use tandem_core::units::{BLOCK_BYTES, ByteRange, CommandId, NodeId, RequestId, Timestamp};
use tandem_core::wire::Message;
use tandem_core::{Engine, Input, Output};

use super::Violation;

/// Blocks of the volume.
pub(super) const BLOCKS: usize = 6;
/// Pages of a disk: the data, and 40 KiB of metadata.
const PAGES: usize = BLOCKS + 10;
const DISK_BYTES: u64 = PAGES as u64 * BLOCK_BYTES;
/// Nothing that happens takes more steps.
const MOST_STEPS: u32 = 20_000;

/// What each block holds.
pub(super) type Contents = [u64; BLOCKS];

type Page = [u8; BLOCK_BYTES as usize];

/// A disk without a cache; copies share their pages.
#[derive(Clone)]
pub(super) struct Disk(Vec<Arc<Page>>);

impl Disk {
    fn new() -> Disk {
        let zeroes = Arc::new([0; BLOCK_BYTES as usize]);
        Disk(vec![zeroes; PAGES])
    }

    fn zero(&mut self, range: ByteRange) {
        for page in range.blocks_touched() {
            self.0[page as usize] = Arc::new([0; BLOCK_BYTES as usize]);
        }
    }

    fn carry_out(&mut self, op: &DiskOp) -> Result<Bytes, DiskError> {
        match &op.kind {
            DiskOpKind::Read(range) => {
                let mut data = vec![0; range.length as usize];
                self.read_at(range.offset, &mut data)?;
                return Ok(data.into());
            }
            DiskOpKind::Write { offset, data, .. } => self.write_at(*offset, data)?,
            DiskOpKind::Zero { range, .. } => self.zero(*range),
            DiskOpKind::Flush => {}
        }
        Ok(Bytes::new())
    }
}

impl MetaIo for Disk {
    fn size_bytes(&self) -> u64 {
        DISK_BYTES
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let first = (offset / BLOCK_BYTES) as usize;
        for (page, chunk) in self.0[first..].iter().zip(buffer.chunks_mut(BLOCK_BYTES as usize)) {
            chunk.copy_from_slice(&page[..chunk.len()]);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let first = (offset / BLOCK_BYTES) as usize;
        for (page, chunk) in self.0[first..].iter_mut().zip(data.chunks(BLOCK_BYTES as usize)) {
            Arc::make_mut(page)[..chunk.len()].copy_from_slice(chunk);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// The moment at which the link is cut: this message is lost, and all that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// This node's handshake; it has got the other's.
    Handshake(usize),
    /// The end of this node's bitmap.
    BitmapEnd(usize),
    /// This piece of resynced data.
    Data(u32),
    /// The target's word that it has written.
    Written,
    /// The target's word that it is complete.
    Done,
}

impl Point {
    fn matches(self, from: usize, message: &Message, pieces: u32) -> bool {
        match (self, message) {
            (Point::Handshake(n), Message::Handshake(_)) | (Point::BitmapEnd(n), Message::BitmapEnd) => {
                n == from
            }
            (Point::Data(nth), Message::ResyncData { .. } | Message::ResyncZeroes { .. }) => pieces == nth,
            (Point::Written, Message::ResyncWritten { .. }) | (Point::Done, Message::ResyncDone) => true,
            _ => false,
        }
    }
}

/// This node's data is to be given up, or only asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) node: usize,
    pub(super) tentative: bool,
}

/// A write of which the Primary hears nothing more: where it arrived.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    node: usize,
    here: bool,
    there: bool,
}

impl InFlight {
    fn swallows(self, from: usize, message: &Message) -> bool {
        match message {
            Message::Write { .. } | Message::Barrier { .. } => from == self.node && !self.there,
            Message::ReceiveAck { .. } | Message::WriteAck { .. } | Message::BarrierAck { .. } => {
                from != self.node
            }
            _ => false,
        }
    }
}

/// What was to be seen of the connection since [`Pair::watch`].
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    /// The link was cut where it should be.
    pub(super) cut: bool,
    /// Who was to receive what it lacks.
    pub(super) chosen: Option<usize>,
    /// Who asked for data.
    pub(super) target: Option<usize>,
    /// Who has become complete, and said so.
    pub(super) complete: Option<usize>,
    /// The blocks asked for.
    pub(super) blocks: u64,
    /// The rules by which the nodes decided.
    pub(super) rules: Vec<String>,
    pieces: u32,
}

/// A node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) disk: Disk,
    wants_peer: bool,
    linked: bool,
}

/// Both nodes and the link.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) link_is_down: bool,
    pub(super) seen: Seen,
    now: Timestamp,
    protocol: Protocol,
    mutation: Option<Mutation>,
    cut_at: Option<Point>,
    in_flight: Option<InFlight>,
    engines_started: u64,
    next_id: u64,
    done: Option<(u64, Result<(), CommandError>)>,
    completed: Option<(u64, Result<Bytes, ClientError>)>,
}

pub(super) fn id_of(n: usize) -> NodeId {
    NodeId(n as u8)
}

impl Pair {
    /// Two disks that have never held data, and differ; attached, not connected.
    pub(super) fn new(protocol: Protocol, mutation: Option<Mutation>) -> Result<Pair, Violation> {
        let node = |n: usize| Node {
            engine: start(n, protocol, mutation, n as u64),
            disk: Disk::new(),
            wants_peer: false,
            linked: false,
        };
        let mut pair = Pair {
            nodes: [node(0), node(1)],
            link_is_down: false,
            seen: Seen::default(),
            now: Timestamp(0),
            protocol,
            mutation,
            cut_at: None,
            in_flight: None,
            engines_started: 2,
            next_id: 0,
            done: None,
            completed: None,
        };
        for n in 0..2 {
            let disk = &mut pair.nodes[n].disk;
            metadata::create(disk, Placement::Internal, DISK_BYTES, 1, n as u64)
                .map_err(|e| e.to_string())?;
            Arc::make_mut(&mut disk.0[1])[0] = n as u8 + 1;
            pair.attach(n)?.map_err(|e| e.to_string())?;
        }
        Ok(pair)
    }

    pub(super) fn status(&self, n: usize) -> Status {
        self.nodes[n].engine.status(self.now)
    }

    pub(super) fn contents(&self, n: usize) -> Contents {
        std::array::from_fn(|block| {
            let mut token = [0; 8];
            token.copy_from_slice(&self.nodes[n].disk.0[block][..8]);
            u64::from_le_bytes(token)
        })
    }

    pub(super) fn metadata(&self, n: usize) -> Result<Metadata, Violation> {
        let mut disk = self.nodes[n].disk.clone();
        metadata::load(&mut disk, Placement::Internal, DISK_BYTES, id_of(n)).map_err(|e| e.to_string())
    }

    /// The blocks that the node knows may differ, one bit each.
    pub(super) fn known_to(&self, n: usize) -> Result<u64, Violation> {
        if self.status(n).disk == DiskState::Diskless {
            return Ok(marked(&self.metadata(n)?));
        }
        let mut known = 0;
        self.nodes[n].engine.may_differ(id_of(1 - n), |range| {
            known = range.blocks_touched().fold(known, |mask, block| mask | 1 << block);
        });
        Ok(known)
    }

    // What can be done.

    /// Forgets what was seen.
    pub(super) fn watch(&mut self) {
        self.seen = Seen::default();
    }

    pub(super) fn command(
        &mut self,
        n: usize,
        command: Command,
    ) -> Result<Result<(), CommandError>, Violation> {
        self.next_id += 1;
        let id = self.next_id;
        self.feed(n, Input::Command { id: CommandId(id), command })?;
        match self.done.take() {
            Some((answered, result)) if answered == id => Ok(result),
            _ => Err(format!("a command on node {n} hangs")),
        }
    }

    pub(super) fn attach(&mut self, n: usize) -> Result<Result<(), CommandError>, Violation> {
        let metadata = Box::new(self.metadata(n)?);
        self.command(n, Command::Attach { metadata })
    }

    pub(super) fn request(
        &mut self,
        n: usize,
        op: ClientOp,
    ) -> Result<Result<Bytes, ClientError>, Violation> {
        self.next_id += 1;
        let id = self.next_id;
        self.feed(n, Input::Client { id: RequestId(id), op })?;
        match self.completed.take() {
            Some((answered, result)) if answered == id => Ok(result),
            _ => Err(format!("a request on node {n} hangs")),
        }
    }

    /// The process dies and starts again with its disk; it does not connect.
    pub(super) fn crash(&mut self, n: usize) -> Result<(), Violation> {
        self.link_is_down = true;
        self.engines_started += 1;
        let node = &mut self.nodes[n];
        (node.linked, node.wants_peer) = (false, false);
        node.engine = start(n, self.protocol, self.mutation, self.engines_started);
        self.cut();
        self.settle(0)?;
        self.attach(n)?.map_err(|e| format!("node {n} cannot attach: {e}"))
    }

    /// A write is submitted on the Primary, and arrives or not on each disk; it cannot complete.
    pub(super) fn write_in_flight(
        &mut self,
        node: usize,
        op: ClientOp,
        here: bool,
        there: bool,
    ) -> Result<(), Violation> {
        self.in_flight = Some(InFlight { node, here, there });
        self.next_id += 1;
        self.feed(node, Input::Client { id: RequestId(self.next_id), op })?;
        self.in_flight = None;
        self.completed = None;
        Ok(())
    }

    /// The link works, both want to connect; with a point, it is cut there.
    pub(super) fn connect(&mut self, until: Option<Point>, wish: Option<Wish>) -> Result<(), Violation> {
        self.watch();
        self.cut_at = until;
        self.link_is_down = false;
        for n in 0..2 {
            if self.status(n).peers[0].connection == ConnectionState::StandAlone {
                self.next_id += 1;
                let command = match wish.filter(|wish| wish.node == n) {
                    Some(Wish { tentative, .. }) => Command::ConnectWith { discard_my_data: true, tentative },
                    None => Command::Connect,
                };
                let input = Input::Command { id: CommandId(self.next_id), command };
                self.nodes[n].engine.handle(self.now, input);
                // Both begin before either is served.
                while let Some(output) = self.nodes[n].engine.poll_output() {
                    self.carry_out(n, output);
                }
                self.done = None;
            }
        }
        // The one whose word is lost is served last.
        let first = match until {
            Some(Point::Handshake(n)) => 1 - n,
            _ => 0,
        };
        self.settle(first)?;
        self.cut_at = None;
        Ok(())
    }

    pub(super) fn cut_link(&mut self) -> Result<(), Violation> {
        self.link_is_down = true;
        self.cut();
        self.settle(0)
    }

    // How it is done.

    fn feed(&mut self, n: usize, input: Input) -> Result<(), Violation> {
        self.done = None;
        self.completed = None;
        self.nodes[n].engine.handle(self.now, input);
        self.settle(0)
    }

    /// Carries out every output of both nodes until there is none.
    pub(super) fn settle(&mut self, first: usize) -> Result<(), Violation> {
        let mut steps = 0;
        loop {
            steps += 1;
            let mut idle = true;
            for n in [first, 1 - first] {
                while let Some(output) = self.nodes[n].engine.poll_output() {
                    idle = false;
                    steps += 1;
                    self.carry_out(n, output);
                    if steps > MOST_STEPS {
                        break;
                    }
                }
            }
            if !self.link_is_down && self.nodes.iter().all(|n| n.wants_peer && !n.linked) {
                idle = false;
                for n in [first, 1 - first] {
                    self.nodes[n].linked = true;
                    // Nobody has to prove who it is.
                    let connected = Input::PeerConnected { peer: id_of(1 - n), challenge: [0; 32] };
                    self.nodes[n].engine.handle(self.now, connected);
                }
            }
            if steps > MOST_STEPS {
                return Err("the nodes do not come to rest".into());
            }
            if idle && !self.let_time_pass() {
                return Ok(());
            }
        }
    }

    /// A resync under way has its pace. Nothing else takes time.
    fn let_time_pass(&mut self) -> bool {
        let resyncing = (0..2).any(|n| {
            let replication = self.status(n).peers[0].replication;
            !matches!(replication, ReplicationState::Off | ReplicationState::Established)
        });
        let due = self.nodes.iter().filter_map(|n| n.engine.deadline()).min();
        let Some(due) = due.filter(|_| resyncing) else { return false };
        self.now = self.now.max(due);
        for node in &mut self.nodes {
            node.engine.handle(self.now, Input::Tick);
        }
        true
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Disk(op) => self.disk_op(n, &op),
            Output::Send { message, .. } => self.send(n, message),
            Output::Complete { id, result } => self.completed = Some((id.0, result)),
            Output::Connect(_) => self.nodes[n].wants_peer = true,
            Output::StopConnecting(_) => self.nodes[n].wants_peer = false,
            Output::ClosePeer(_) => {
                self.nodes[n].wants_peer = false;
                self.nodes[n].linked = false;
                self.cut();
            }
            Output::CommandDone { id, result } => self.done = Some((id.0, result)),
            Output::Event(Event::Note { text, .. }) => {
                if let Some((_, rule)) = text.split_once(" by rule ") {
                    self.seen.rules.push(rule.into());
                }
            }
            Output::Event(Event::Replication { new: ReplicationState::WFBitMapT, .. }) => {
                self.seen.chosen = Some(n);
            }
            // Its disks never grow, and nobody knocks.
            Output::Newcomer { .. }
            | Output::DropClients
            | Output::ReleaseDisk
            | Output::MeasureDisk { .. }
            | Output::RunHandler { .. }
            | Output::Event(_) => {}
        }
    }

    fn disk_op(&mut self, n: usize, op: &DiskOp) {
        let write = op.device == Device::Data && matches!(op.kind, DiskOpKind::Write { .. });
        let in_flight = self.in_flight.filter(|d| write && d.node == n);
        if in_flight.is_some_and(|d| !d.here) {
            return;
        }
        let result = self.nodes[n].disk.carry_out(op);
        self.nodes[n].engine.handle(self.now, Input::DiskDone { id: op.id, result });
    }

    fn send(&mut self, n: usize, message: Message) {
        if !self.nodes[n].linked || self.in_flight.is_some_and(|w| w.swallows(n, &message)) {
            return;
        }
        match &message {
            Message::ResyncRequest { range } => {
                self.seen.target = Some(n);
                self.seen.blocks = range.blocks_touched().fold(self.seen.blocks, |mask, b| mask | 1 << b);
            }
            Message::ResyncData { .. } | Message::ResyncZeroes { .. } => self.seen.pieces += 1,
            Message::ResyncDone => self.seen.complete = Some(n),
            _ => {}
        }
        if self.cut_at.is_some_and(|point| point.matches(n, &message, self.seen.pieces)) {
            self.cut_at = None;
            self.link_is_down = true;
            self.seen.cut = true;
            return self.cut();
        }
        let input = Input::PeerMessage { peer: id_of(n), message };
        self.nodes[1 - n].engine.handle(self.now, input);
    }

    /// Both hear that the connection is gone.
    fn cut(&mut self) {
        for n in 0..2 {
            if std::mem::take(&mut self.nodes[n].linked) {
                self.nodes[n].wants_peer = false;
                let (how, reason) = (ConnectionState::BrokenPipe, "cut".to_owned());
                let input = Input::PeerGone { peer: id_of(1 - n), how, reason };
                self.nodes[n].engine.handle(self.now, input);
            }
        }
    }
}

/// What a disk that no engine uses says may differ.
pub(super) fn marked(metadata: &Metadata) -> u64 {
    let bits = (0..BLOCKS as u64).filter(|b| metadata.bitmaps[0].is_set(*b));
    let hot = metadata.hot_ranges(Carelessness::default());
    let blocks = hot.iter().flat_map(|range| range.blocks_touched()).filter(|b| *b < BLOCKS as u64);
    bits.chain(blocks).fold(0, |mask, block| mask | 1 << block)
}

fn start(n: usize, protocol: Protocol, mutation: Option<Mutation>, entropy: u64) -> Engine {
    let name = |n: usize| ["alpha", "bravo"][n].to_owned();
    let config = EngineConfig {
        resource: "r0".into(),
        node: id_of(n),
        node_name: name(n),
        peers: vec![PeerConfig { id: id_of(1 - n), name: name(1 - n) }],
        options: Options { protocol, ..Options::default() },
        handlers: Default::default(),
        al_extent_bytes: 2 * BLOCK_BYTES,
    };
    let mut engine = Engine::new(config, entropy, Timestamp(0));
    engine.seed_bug(mutation);
    engine
}
