//! Two engines joined back to back: disks in memory, messages delivered at once, a link that can be cut.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_core::config::{EngineConfig, Options, PeerConfig, Protocol, ResyncOptions};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::io::{
    ClientError, ClientOp, Command, Device, DiskError, DiskOp, DiskOpKind, Event, Level, Measured, Payload,
};
use tandem_core::layout::{Layout, SLOT_BYTES};
use tandem_core::metadata::{self, MetaIo, Placement, UndoLog};
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState};
use tandem_core::units::{ByteRange, CommandId, HandlerId, NodeId, RequestId, Timestamp};
use tandem_core::wire::Message;
use tandem_core::{Engine, Input, Output};

pub(crate) const DISK_BYTES: usize = 1 << 20;
/// Of the activity log.
pub(crate) const EXTENT_BYTES: u64 = 16 << 10;

pub(crate) struct MemoryDisk(pub(crate) Vec<u8>);

impl MetaIo for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        buffer.copy_from_slice(&self.0[offset as usize..offset as usize + buffer.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.0[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl MemoryDisk {
    pub(crate) fn carry_out(&mut self, op: &DiskOp) -> Result<Bytes, DiskError> {
        let slice = |r: ByteRange| r.offset as usize..r.end() as usize;
        match &op.kind {
            DiskOpKind::Read(range) => return Ok(Bytes::copy_from_slice(&self.0[slice(*range)])),
            DiskOpKind::Write { offset, data, .. } => self.write_at(*offset, data)?,
            DiskOpKind::Zero { range, .. } => self.0[slice(*range)].fill(0),
            DiskOpKind::Flush => {}
        }
        Ok(Bytes::new())
    }
}

pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) disk: MemoryDisk,
    /// The file for undo logs.
    undo: MemoryDisk,
    wants_peer: bool,
    linked: bool,
    /// Room on the disks of the volumes behind the first.
    pub(crate) other_rooms: Vec<u64>,
}

pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    pub(crate) now: Timestamp,
    pub(crate) options: Options,
    handlers: Vec<Handler>,
    /// Handlers that run, on which node.
    running: Vec<(usize, Handler, HandlerId)>,
    /// The link breaks when a message is sent of which this is true.
    pub(crate) cut_at: Option<fn(&Message) -> bool>,
    /// Messages of which this is true are kept back until [`Pair::deliver`].
    pub(crate) hold: Option<fn(&Message) -> bool>,
    held: Vec<(usize, Message)>,
    /// Resyncs keep undo logs.
    pub(crate) undo_logs: bool,
    /// It stays broken.
    pub(crate) link_is_down: bool,
    connections_made: u64,
    engines_started: u64,
    /// Where the first write to the metadata went.
    pub(crate) written_first: Option<u64>,
    /// Flushes of each node's data.
    pub(crate) data_flushes: [u32; 2],
    /// The node and the device whose operations end when they are told to.
    pub(crate) slow_disk: Option<(usize, Device)>,
    slow_operations: Vec<(usize, DiskOp)>,
    /// The barriers that were sent: how many writes each counts, and whether it asks for a flush.
    pub(crate) barriers: Vec<(u32, bool)>,
    /// Every operation on the node's disk fails.
    pub(crate) disk_fails: [bool; 2],
    /// What the log warns of, on which node.
    pub(crate) warnings: Vec<(usize, String)>,
    /// Times an engine has closed a connection.
    pub(crate) connections_lost: u32,
    /// Every read and write of the node's data fails.
    pub(crate) data_fails: [bool; 2],
    /// The node's disk fails the operation of this number, counted from 1, and no other.
    pub(crate) fails_at: [Option<u64>; 2],
    operations: [u64; 2],
    /// The engine has asked for the node's clients to be cut off.
    pub(crate) clients_dropped: [bool; 2],
    next_id: u64,
    done: BTreeMap<u64, Result<(), CommandError>>,
    completed: BTreeMap<u64, Result<Bytes, ClientError>>,
}

impl Pair {
    /// Time stands still: a resync does not give way to clients.
    pub(crate) fn new(protocol: Protocol) -> Pair {
        let resync = ResyncOptions { min_bytes_per_s: 0, ..ResyncOptions::default() };
        Pair::with_options(&Options { protocol, resync, ..Options::default() })
    }

    pub(crate) fn with_options(options: &Options) -> Pair {
        Pair::with_handlers(options, &[])
    }

    /// Both nodes have these handlers.
    pub(crate) fn with_handlers(options: &Options, handlers: &[Handler]) -> Pair {
        let nodes = [0, 1].map(|n| Node {
            engine: Pair::engine(n, options, handlers, n as u64),
            disk: MemoryDisk(vec![0; DISK_BYTES]),
            undo: MemoryDisk(vec![0; 2 * DISK_BYTES]),
            wants_peer: false,
            linked: false,
            other_rooms: Vec::new(),
        });
        let mut pair = Pair {
            nodes,
            now: Timestamp(0),
            options: options.clone(),
            handlers: handlers.to_vec(),
            running: Vec::new(),
            cut_at: None,
            hold: None,
            held: Vec::new(),
            undo_logs: false,
            link_is_down: false,
            connections_made: 0,
            engines_started: 2,
            written_first: None,
            data_flushes: [0; 2],
            slow_disk: None,
            slow_operations: Vec::new(),
            barriers: Vec::new(),
            disk_fails: [false; 2],
            warnings: Vec::new(),
            connections_lost: 0,
            data_fails: [false; 2],
            fails_at: [None; 2],
            operations: [0; 2],
            clients_dropped: [false; 2],
            next_id: 0,
            done: BTreeMap::new(),
            completed: BTreeMap::new(),
        };
        for n in 0..2 {
            metadata::create(&mut pair.nodes[n].disk, Placement::Internal, DISK_BYTES as u64, 1, n as u64)
                .unwrap();
        }
        pair
    }

    pub(crate) fn engine(n: usize, options: &Options, handlers: &[Handler], entropy: u64) -> Engine {
        let name = |n: usize| ["alpha", "bravo"][n].to_owned();
        let config = EngineConfig {
            resource: "r0".into(),
            node: NodeId(n as u8),
            node_name: name(n),
            peers: vec![PeerConfig { id: NodeId(1 - n as u8), name: name(1 - n) }],
            al_extent_bytes: EXTENT_BYTES,
            options: options.clone(),
            handlers: handlers.iter().copied().collect(),
        };
        Engine::new(config, entropy, Timestamp(0))
    }

    pub(crate) fn feed(&mut self, n: usize, input: Input) {
        self.nodes[n].engine.handle(self.now, input);
        self.settle();
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn run_until(&mut self, done: impl Fn(&Pair) -> bool) {
        for _ in 0..100_000 {
            if done(self) {
                return;
            }
            let due =
                self.nodes.iter().filter_map(|n| n.engine.deadline()).min().expect("nothing is awaited");
            self.now = self.now.max(due);
            self.feed(0, Input::Tick);
            self.feed(1, Input::Tick);
        }
        panic!("does not end");
    }

    /// Carries out every output of both nodes until there is none.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut idle = true;
            for n in 0..2 {
                while let Some(output) = self.nodes[n].engine.poll_output() {
                    idle = false;
                    self.carry_out(n, output);
                }
            }
            let wanted = self.nodes.iter().all(|n| n.wants_peer && !n.linked);
            if wanted && !self.link_is_down {
                idle = false;
                for n in 0..2 {
                    self.nodes[n].linked = true;
                    self.tell_size(n);
                    self.connections_made += 1;
                    let peer = NodeId(1 - n as u8);
                    let mut challenge = [0; 32];
                    challenge[..8].copy_from_slice(&self.connections_made.to_le_bytes());
                    self.nodes[n].engine.handle(self.now, Input::PeerConnected { peer, challenge });
                }
            }
            if idle {
                return;
            }
        }
    }

    pub(crate) fn carry_out(&mut self, n: usize, output: Output) {
        let other = NodeId(1 - n as u8);
        match output {
            Output::Disk(op) => {
                if let (Device::Meta, DiskOpKind::Write { offset, .. }) = (op.device, &op.kind) {
                    self.written_first.get_or_insert(*offset);
                }
                if (op.device, &op.kind) == (Device::Data, &DiskOpKind::Flush) {
                    self.data_flushes[n] += 1;
                }
                if self.slow_disk == Some((n, op.device)) {
                    self.slow_operations.push((n, op));
                } else {
                    self.finish_operation(n, op);
                }
            }
            Output::Send { message, .. } => {
                if let Message::Barrier { writes, flush, .. } = &message {
                    self.barriers.push((*writes, *flush));
                }
                if self.cut_at.is_some_and(|cut| cut(&message)) {
                    self.cut_at = None;
                    self.link_is_down = true;
                    self.cut();
                } else if self.hold.is_some_and(|hold| hold(&message)) {
                    self.held.push((n, message));
                } else if self.nodes[1 - n].linked {
                    let input = Input::PeerMessage { peer: NodeId(n as u8), message };
                    self.nodes[1 - n].engine.handle(self.now, input);
                }
            }
            Output::Complete { id, result } => {
                self.completed.insert(id.0, result);
            }
            Output::Connect(_) => self.nodes[n].wants_peer = true,
            Output::StopConnecting(_) => self.nodes[n].wants_peer = false,
            Output::ClosePeer(peer) => {
                assert_eq!(peer, other);
                self.connections_lost += 1;
                // Who closes a connection is not told that it is gone.
                (self.nodes[n].wants_peer, self.nodes[n].linked) = (false, false);
                self.cut();
            }
            Output::CommandDone { id, result } => {
                self.done.insert(id.0, result);
            }
            Output::RunHandler { id, handler, .. } => self.running.push((n, handler, id)),
            Output::DropClients => self.clients_dropped[n] = true,
            Output::Event(Event::Note { level: Level::Warn, text, .. }) => self.warnings.push((n, text)),
            Output::MeasureDisk { .. } => self.tell_size(n),
            Output::Newcomer { .. } | Output::ReleaseDisk | Output::Event(_) => {}
        }
    }

    /// Tells the engine how large its disk is.
    pub(crate) fn tell_size(&mut self, n: usize) {
        let backing_bytes = self.nodes[n].disk.size_bytes();
        let other_rooms = self.nodes[n].other_rooms.clone();
        let measured = Measured { backing_bytes, meta_bytes: backing_bytes, limit_bytes: None, other_rooms };
        self.nodes[n].engine.handle(self.now, Input::DiskMeasured(Ok(measured)));
    }

    /// The node's disk fails the operation that is so many away, and no other.
    pub(crate) fn fails_next(&mut self, n: usize, away: u64) {
        self.fails_at[n] = Some(self.operations[n] + away);
    }

    fn finish_operation(&mut self, n: usize, op: DiskOp) {
        let data_fails = self.data_fails[n] && op.device == Device::Data && op.kind != DiskOpKind::Flush;
        self.operations[n] += 1;
        let chosen = self.fails_at[n].take_if(|at| *at == self.operations[n]).is_some();
        let result = match self.disk_fails[n] || data_fails || chosen {
            true => Err(DiskError("broken".into())),
            false if op.device == Device::Undo => self.nodes[n].undo.carry_out(&op),
            false => self.nodes[n].disk.carry_out(&op),
        };
        self.nodes[n].engine.handle(self.now, Input::DiskDone { id: op.id, result });
    }

    /// The slow disk ends all that it was given until now; how many operations that was.
    pub(crate) fn finish_slow(&mut self) -> usize {
        let operations = std::mem::take(&mut self.slow_operations);
        let count = operations.len();
        for (n, op) in operations {
            self.finish_operation(n, op);
        }
        self.settle();
        count
    }

    /// Delivers what was kept back, and keeps nothing back any longer.
    pub(crate) fn deliver(&mut self) {
        self.hold = None;
        for (from, message) in std::mem::take(&mut self.held) {
            let input = Input::PeerMessage { peer: NodeId(from as u8), message };
            self.nodes[1 - from].engine.handle(self.now, input);
        }
        self.settle();
    }

    /// What was kept back is lost with the connection it was sent on, and nothing is kept back any longer.
    pub(crate) fn drop_held(&mut self) {
        self.hold = None;
        self.held.clear();
    }

    /// Delivers the first message that was kept back.
    pub(crate) fn deliver_first(&mut self) {
        let (from, message) = self.held.remove(0);
        self.feed(1 - from, Input::PeerMessage { peer: NodeId(from as u8), message });
    }

    /// Begins a write that does not complete at once.
    pub(crate) fn begin_write(&mut self, n: usize, offset: u64, byte: u8) -> RequestId {
        let payload = Payload::new(vec![byte; 4096].into());
        self.begin_client(n, ClientOp::Write { offset, payload, fua: false })
    }

    /// True if the request has completed.
    pub(crate) fn completed(&mut self, id: RequestId) -> bool {
        self.completed.remove(&id.0).is_some_and(|r| r.is_ok())
    }

    /// Gives a command that does not end at once; its number.
    pub(crate) fn begin_command(&mut self, n: usize, command: Command) -> CommandId {
        self.next_id += 1;
        let id = CommandId(self.next_id);
        self.feed(n, Input::Command { id, command });
        id
    }

    /// How the command ended, if it has.
    pub(crate) fn ended(&mut self, id: CommandId) -> Option<Result<(), CommandError>> {
        self.done.remove(&id.0)
    }

    /// The handlers that run on a node.
    pub(crate) fn running(&self, n: usize) -> Vec<Handler> {
        self.running.iter().filter(|(node, ..)| *node == n).map(|(_, handler, _)| *handler).collect()
    }

    /// The handler that began first on a node ends.
    pub(crate) fn end_handler(&mut self, n: usize, handler: Handler, outcome: HandlerOutcome) {
        let at = self.running.iter().position(|(node, which, _)| (*node, *which) == (n, handler));
        let (_, _, id) = self.running.remove(at.unwrap_or_else(|| panic!("{handler} does not run")));
        self.feed(n, Input::HandlerDone { id, outcome });
    }

    /// The link works again.
    pub(crate) fn heal(&mut self) {
        self.link_is_down = false;
        self.settle();
    }

    pub(crate) fn cut(&mut self) {
        for n in 0..2 {
            if std::mem::take(&mut self.nodes[n].linked) {
                self.nodes[n].wants_peer = false;
                let (how, reason) = (ConnectionState::BrokenPipe, "cut".to_owned());
                let input = Input::PeerGone { peer: NodeId(1 - n as u8), how, reason };
                self.nodes[n].engine.handle(self.now, input);
            }
        }
    }

    pub(crate) fn command(&mut self, n: usize, command: Command) -> Result<(), CommandError> {
        self.next_id += 1;
        let id = self.next_id;
        self.feed(n, Input::Command { id: CommandId(id), command });
        self.done.remove(&id).expect("the command has not ended")
    }

    pub(crate) fn attach(&mut self, n: usize) -> Result<(), CommandError> {
        let id = self.begin_attach(n);
        self.ended(id).expect("the command has not ended")
    }

    /// Attaches a disk that takes its time.
    pub(crate) fn begin_attach(&mut self, n: usize) -> CommandId {
        let disk = &mut self.nodes[n].disk;
        let bytes = disk.size_bytes();
        let mut metadata = metadata::load(disk, Placement::Internal, bytes, NodeId(n as u8)).unwrap();
        metadata.undo = self.undo_logs.then(|| UndoLog::new(0, metadata.volume_bytes()));
        self.begin_command(n, Command::Attach { metadata: Box::new(metadata) })
    }

    /// A new disk in the place of the old one, with room for the bitmaps of so many peers.
    pub(crate) fn replace_disk(&mut self, n: usize, bytes: usize, max_peers: u8) {
        self.engines_started += 1;
        let disk = &mut self.nodes[n].disk;
        disk.0 = vec![0; bytes];
        metadata::create(disk, Placement::Internal, bytes as u64, max_peers, self.engines_started).unwrap();
    }

    /// A new disk for several volumes in the place of the old one.
    pub(crate) fn replace_disk_for(&mut self, n: usize, layout: Layout) {
        self.engines_started += 1;
        // Behind the space there is room for it to grow.
        let bytes = layout.space_bytes() + 4 * SLOT_BYTES;
        let disk = &mut self.nodes[n].disk;
        disk.0 = vec![0; bytes as usize];
        let id = self.engines_started;
        metadata::create_for_volumes(disk, Placement::Internal, bytes, 1, id, layout).unwrap();
    }

    pub(crate) fn client(&mut self, n: usize, op: ClientOp) -> Result<Bytes, ClientError> {
        let id = self.begin_client(n, op);
        self.answered(id).expect("the request has not completed")
    }

    /// Gives a request that may take its time; its number.
    pub(crate) fn begin_client(&mut self, n: usize, op: ClientOp) -> RequestId {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        self.feed(n, Input::Client { id, op });
        id
    }

    /// How the request ended, if it has.
    pub(crate) fn answered(&mut self, id: RequestId) -> Option<Result<Bytes, ClientError>> {
        self.completed.remove(&id.0)
    }

    pub(crate) fn write(&mut self, n: usize, offset: u64, byte: u8) {
        let payload = Payload::new(vec![byte; 4096].into());
        self.client(n, ClientOp::Write { offset, payload, fua: false }).unwrap();
    }

    pub(crate) fn up(&mut self) {
        for n in 0..2 {
            self.attach(n).unwrap();
            self.command(n, Command::Connect).unwrap();
        }
    }

    pub(crate) fn assert_in_sync(&self) {
        for node in &self.nodes {
            let status = node.engine.status(self.now);
            let peer = &status.peers[0];
            assert_eq!(
                (status.disk, peer.disk, peer.connection, peer.replication, peer.out_of_sync_bytes),
                (
                    DiskState::UpToDate,
                    DiskState::UpToDate,
                    ConnectionState::Connected,
                    ReplicationState::Established,
                    0
                )
            );
        }
        let size = self.nodes[0].engine.size_bytes() as usize;
        assert_eq!(self.nodes[0].disk.0[..size], self.nodes[1].disk.0[..size]);
    }

    /// Throws the engine away as a crash would, and starts another on the same disk.
    pub(crate) fn crash(&mut self, n: usize) {
        self.nodes[n].linked = false;
        self.nodes[n].wants_peer = false;
        self.engines_started += 1;
        self.nodes[n].engine = Pair::engine(n, &self.options, &self.handlers, self.engines_started);
        self.running.retain(|(node, ..)| *node != n);
        self.cut();
        self.settle();
    }
}
