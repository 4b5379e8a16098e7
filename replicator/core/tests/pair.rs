//! Two engines joined back to back, with disks in memory and no faults: what must work when nothing goes wrong.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_core::config::{EngineConfig, PeerConfig, Protocol, WriteOrdering};
use tandem_core::io::{ClientError, ClientOp, Command, DiskError, DiskOp, DiskOpKind, Payload};
use tandem_core::metadata::{self, MetaIo, Placement};
use tandem_core::refusal::CommandError;
use tandem_core::state::{ConnectionState, DiskState, ReplicationState, Role};
use tandem_core::units::{ByteRange, CommandId, NodeId, RequestId, Timestamp};
use tandem_core::{Engine, Input, Output};

const DISK_BYTES: usize = 1 << 20;

struct MemoryDisk(Vec<u8>);

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
    fn carry_out(&mut self, op: &DiskOp) -> Result<Bytes, DiskError> {
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

struct Node {
    engine: Engine,
    disk: MemoryDisk,
    wants_peer: bool,
    linked: bool,
}

struct Pair {
    nodes: [Node; 2],
    now: Timestamp,
    next_id: u64,
    done: BTreeMap<u64, Result<(), CommandError>>,
    completed: BTreeMap<u64, Result<Bytes, ClientError>>,
}

impl Pair {
    fn new(protocol: Protocol) -> Pair {
        let nodes = [0, 1].map(|n| Node {
            engine: Pair::engine(n, protocol),
            disk: MemoryDisk(vec![0; DISK_BYTES]),
            wants_peer: false,
            linked: false,
        });
        let mut pair =
            Pair { nodes, now: Timestamp(0), next_id: 0, done: BTreeMap::new(), completed: BTreeMap::new() };
        for n in 0..2 {
            metadata::create(&mut pair.nodes[n].disk, Placement::Internal, DISK_BYTES as u64, 1, n as u64)
                .unwrap();
        }
        pair
    }

    fn engine(n: usize, protocol: Protocol) -> Engine {
        let name = |n: usize| ["alpha", "bravo"][n].to_owned();
        let config = EngineConfig {
            resource: "r0".into(),
            node: NodeId(n as u8),
            node_name: name(n),
            peers: vec![PeerConfig { id: NodeId(1 - n as u8), name: name(1 - n) }],
            protocol,
            write_ordering: WriteOrdering::Flush,
            timeout_ms: 6000,
            ping_interval_ms: 10_000,
            ping_timeout_ms: 500,
            ko_count: 7,
            max_epoch_size: 2048,
        };
        Engine::new(config, 42 + n as u64, Timestamp(0))
    }

    fn feed(&mut self, n: usize, input: Input) {
        self.nodes[n].engine.handle(self.now, input);
        self.settle();
    }

    /// Carries out every output of both nodes until there is none.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            for n in 0..2 {
                while let Some(output) = self.nodes[n].engine.poll_output() {
                    idle = false;
                    self.carry_out(n, output);
                }
            }
            if self.nodes[0].wants_peer && self.nodes[1].wants_peer && !self.nodes[0].linked {
                idle = false;
                for n in 0..2 {
                    self.nodes[n].linked = true;
                    self.nodes[n].engine.handle(self.now, Input::PeerConnected(NodeId(1 - n as u8)));
                }
            }
            if idle {
                return;
            }
        }
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        let other = NodeId(1 - n as u8);
        match output {
            Output::Disk(op) => {
                let result = self.nodes[n].disk.carry_out(&op);
                self.nodes[n].engine.handle(self.now, Input::DiskDone { id: op.id, result });
            }
            Output::Send { message, .. } => {
                if self.nodes[1 - n].linked {
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
                self.nodes[n].wants_peer = false;
                self.cut();
            }
            Output::CommandDone { id, result } => {
                self.done.insert(id.0, result);
            }
            Output::ReleaseDisk | Output::Event(_) => {}
        }
    }

    fn cut(&mut self) {
        for n in 0..2 {
            if std::mem::take(&mut self.nodes[n].linked) {
                self.nodes[n].wants_peer = false;
                let (how, reason) = (ConnectionState::BrokenPipe, "cut".to_owned());
                let input = Input::PeerGone { peer: NodeId(1 - n as u8), how, reason };
                self.nodes[n].engine.handle(self.now, input);
            }
        }
    }

    fn command(&mut self, n: usize, command: Command) -> Result<(), CommandError> {
        self.next_id += 1;
        let id = self.next_id;
        self.feed(n, Input::Command { id: CommandId(id), command });
        self.done.remove(&id).expect("the command has not ended")
    }

    fn attach(&mut self, n: usize) -> Result<(), CommandError> {
        let disk = &mut self.nodes[n].disk;
        let metadata = metadata::load(disk, Placement::Internal, DISK_BYTES as u64, NodeId(n as u8)).unwrap();
        self.command(n, Command::Attach { metadata: Box::new(metadata) })
    }

    fn client(&mut self, n: usize, op: ClientOp) -> Result<Bytes, ClientError> {
        self.next_id += 1;
        let id = self.next_id;
        self.feed(n, Input::Client { id: RequestId(id), op });
        self.completed.remove(&id).expect("the request has not completed")
    }

    fn write(&mut self, n: usize, offset: u64, byte: u8) {
        let payload = Payload::new(vec![byte; 4096].into());
        self.client(n, ClientOp::Write { offset, payload, fua: false }).unwrap();
    }

    fn up(&mut self) {
        for n in 0..2 {
            self.attach(n).unwrap();
            self.command(n, Command::Connect).unwrap();
        }
    }

    fn assert_in_sync(&self) {
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
    fn crash(&mut self, n: usize, protocol: Protocol) {
        self.nodes[n].linked = false;
        self.nodes[n].wants_peer = false;
        self.nodes[n].engine = Pair::engine(n, protocol);
        self.cut();
        self.settle();
    }
}

#[test]
fn a_fresh_pair_waits_for_somebody_to_decide() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    let status = pair.nodes[0].engine.status(pair.now);
    assert_eq!((status.disk, status.peers[0].disk), (DiskState::Inconsistent, DiskState::Inconsistent));
    assert_eq!(status.peers[0].connection, ConnectionState::Connected);
    let refused = pair.command(0, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-2) Need access to UpToDate data");
    assert_eq!(refused.exit_code(), 17);
}

#[test]
fn force_primary_syncs_the_peer_and_writes_reach_it() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = Pair::new(protocol);
        pair.nodes[0].disk.0[..8192].fill(0xaa);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.assert_in_sync();
        pair.write(0, 4096 * 7, 0x55);
        pair.client(0, ClientOp::Flush).unwrap();
        let range = ByteRange::new(4096, 4096);
        pair.client(0, ClientOp::Zero { range, unmap: true, fua: true }).unwrap();
        pair.assert_in_sync();
        assert_eq!(pair.client(0, ClientOp::Read(ByteRange::new(4096 * 7, 512))).unwrap()[..], [0x55; 512]);
        assert_eq!(pair.nodes[1].disk.0[4096], 0);
    }
}

#[test]
fn a_second_primary_is_refused() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    let refused = pair.command(1, Command::Primary { force: false }).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-1) Multiple primaries not allowed by config");
    assert_eq!(refused.exit_code(), 11);
    assert_eq!(refused.detail(), ["alpha is Primary"]);
    pair.command(0, Command::Secondary).unwrap();
    pair.command(1, Command::Primary { force: false }).unwrap();
    pair.write(1, 0, 1);
    pair.assert_in_sync();
}

#[test]
fn an_open_device_refuses_demotion_and_names_the_client() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    assert!(pair.nodes[0].engine.open("x".into()).is_err());
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.nodes[0].engine.open("nbdcopy (pid 7)".into()).unwrap();
    let refused = pair.command(0, Command::Secondary).unwrap_err();
    assert_eq!(refused.to_string(), "State change failed: (-12) Device is held open by someone");
    assert_eq!(refused.detail(), ["opened by nbdcopy (pid 7)"]);
    pair.nodes[0].engine.close("nbdcopy (pid 7)");
    pair.command(0, Command::Secondary).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).role, Role::Secondary);
}

#[test]
fn after_a_cut_exactly_the_blocks_written_meanwhile_are_resynced() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    assert_eq!(pair.nodes[1].engine.status(pair.now).disk, DiskState::Outdated);
    pair.write(0, 4096 * 3, 3);
    pair.write(0, 4096 * 9, 9);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 8192);
    let received = pair.nodes[1].engine.status(pair.now).peers[0].received_bytes;
    pair.command(1, Command::Connect).unwrap();
    pair.assert_in_sync();
    assert_eq!(pair.nodes[1].engine.status(pair.now).peers[0].received_bytes - received, 8192);
}

#[test]
fn the_survivor_is_promoted_and_the_old_primary_returns_as_target() {
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        let mut pair = Pair::new(protocol);
        pair.up();
        pair.command(0, Command::Primary { force: true }).unwrap();
        pair.write(0, 0, 1);
        pair.crash(0, protocol);
        pair.command(1, Command::Primary { force: false }).unwrap();
        pair.write(1, 8192, 2);
        pair.attach(0).unwrap();
        pair.command(0, Command::Connect).unwrap();
        pair.assert_in_sync();
        assert_eq!((pair.nodes[0].disk.0[0], pair.nodes[0].disk.0[8192]), (1, 2));
    }
}

#[test]
fn both_sides_of_a_split_brain_stand_alone_and_keep_their_data() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(0, Command::Disconnect).unwrap();
    pair.command(1, Command::Disconnect).unwrap();
    pair.command(1, Command::Primary { force: false }).unwrap();
    pair.write(0, 0, 1);
    pair.write(1, 0, 2);
    for n in 0..2 {
        pair.command(n, Command::Connect).unwrap();
    }
    for n in 0..2 {
        let status = pair.nodes[n].engine.status(pair.now);
        assert_eq!(status.peers[0].connection, ConnectionState::StandAlone);
        assert!(status.peers[0].standalone_reason.as_ref().unwrap().contains("Split-Brain detected"));
        assert_eq!(pair.nodes[n].disk.0[0], n as u8 + 1);
    }
}

#[test]
fn detach_and_attach_of_a_secondary_costs_what_was_written_meanwhile() {
    let mut pair = Pair::new(Protocol::C);
    pair.up();
    pair.command(0, Command::Primary { force: true }).unwrap();
    pair.command(1, Command::Detach).unwrap();
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].disk, DiskState::Diskless);
    pair.write(0, 4096 * 5, 5);
    assert_eq!(pair.nodes[0].engine.status(pair.now).peers[0].out_of_sync_bytes, 4096);
    pair.attach(1).unwrap();
    pair.assert_in_sync();
}
