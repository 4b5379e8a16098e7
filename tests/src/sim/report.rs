//! What a run tells: counts, failures, and the trace of a replay.

use std::fmt;

use tandem_core::config::Protocol;
use tandem_core::io::{ClientOp, DiskOp, DiskOpKind, Event};
use tandem_core::mutation::Mutation;
use tandem_core::wire::{Message, Stream};

use super::client::Client;
use super::disk::token_at;
use super::faults::Kind;
use super::link::Micros;
use super::oracle::write_of;
use super::world::World;

/// What happened in one history, or in many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Histories.
    pub seeds: u64,
    /// Events.
    pub events: u64,
    /// Requests that completed.
    pub requests: u64,
    /// Requests that failed or whose node died.
    pub requests_lost: u64,
    /// Promotions that were judged.
    pub promotions: u64,
    /// Times both copies came to be in sync.
    pub syncs: u64,
    /// Times each kind of fault happened.
    pub kinds: [u64; Kind::ALL.len()],
    /// Verifies that came to their end.
    pub verifies: u64,
    /// Blocks that they found.
    pub blocks_found: u64,
    /// Virtual time.
    pub micros: Micros,
    /// A digest of every event, to tell whether two runs were the same.
    pub digest: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            seeds: 0,
            events: 0,
            requests: 0,
            requests_lost: 0,
            promotions: 0,
            syncs: 0,
            verifies: 0,
            blocks_found: 0,
            kinds: [0; Kind::ALL.len()],
            micros: 0,
            digest: 0,
        }
    }
}

impl Counts {
    /// Notes that a fault of this kind happened.
    pub fn note(&mut self, kind: Kind) {
        self.kinds[kind as usize] += 1;
    }

    /// Adds the counts of other histories.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.requests += other.requests;
        self.requests_lost += other.requests_lost;
        self.promotions += other.promotions;
        self.syncs += other.syncs;
        self.verifies += other.verifies;
        self.blocks_found += other.blocks_found;
        self.micros += other.micros;
        self.digest ^= other.digest;
        for (sum, n) in self.kinds.iter_mut().zip(other.kinds) {
            *sum += n;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} events, {:.1} s of virtual time, {} requests completed, {} lost, {} promotions, {} times in sync, {} verifies found {} blocks",
            self.seeds,
            self.events,
            self.micros as f64 / 1e6,
            self.requests,
            self.requests_lost,
            self.promotions,
            self.syncs,
            self.verifies,
            self.blocks_found
        )?;
        for (kind, n) in Kind::ALL.iter().zip(self.kinds) {
            writeln!(f, "  {:<16} {n:>10}", kind.name())?;
        }
        Ok(())
    }
}

/// A history that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The history.
    pub seed: u64,
    /// With this protocol.
    pub protocol: Protocol,
    /// And this seeded bug.
    pub mutation: Option<Mutation>,
    /// Which checker found it: K1 to K11 of the reference, or `panic`.
    pub checker: &'static str,
    /// What was found.
    pub message: String,
    /// After this many events.
    pub event: u64,
    /// At this virtual time.
    pub micros: Micros,
}

impl Failure {
    /// The command that shows the history again.
    pub fn replay_command(&self) -> String {
        let mutation = self.mutation.map_or(String::new(), |m| format!(" --mutation {}", m.name()));
        format!("cargo xtask sim --replay {} --protocol {}{mutation}", self.seed, self.protocol.letter())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} protocol {}: {} at event {} ({} us): {}",
            self.seed,
            self.protocol.letter(),
            self.checker,
            self.event,
            self.micros,
            self.message
        )
    }
}

/// The wire's view of a message, without its bytes.
pub(super) fn show_message(message: &Message) -> String {
    let stream = if message.stream() == Stream::Data { "data" } else { "ctrl" };
    let text = match message {
        Message::Write { seq, offset, payload, .. } => {
            format!("Write #{} {offset}+{} w{}", seq.0, payload.len(), write_of(token_at(&payload.data, 0)))
        }
        Message::Zero { seq, range, .. } => format!("Zero #{} {range}", seq.0),
        Message::ResyncData { offset, payload } => format!("ResyncData {offset}+{}", payload.len()),
        Message::ReadReply { id, payload } => format!("ReadReply {id} ok:{}", payload.is_some()),
        Message::BitmapChunk { chunk, words } => format!("BitmapChunk {chunk} bytes:{}", words.len()),
        Message::Handshake(h) => format!(
            "Handshake round:{} {} {} {:X}:{:X} dirty:{} crashed:{}",
            h.round, h.role, h.disk, h.generations.current, h.bitmap_id, h.dirty_blocks, h.crashed_primary
        ),
        other => format!("{other:?}"),
    };
    format!("{stream} {text}")
}

/// A disk operation, without its bytes.
pub(super) fn show_disk_op(op: &DiskOp) -> String {
    let what = match &op.kind {
        DiskOpKind::Read(range) => format!("read {range}"),
        DiskOpKind::Write { offset, data, fua } => format!("write {offset}+{}{}", data.len(), show_fua(*fua)),
        DiskOpKind::Zero { range, .. } => format!("zero {range}"),
        DiskOpKind::Flush => "flush".into(),
    };
    format!("#{} {:?} {what}", op.id.0, op.device)
}

/// A client's request, without its bytes.
pub(super) fn show_request(op: &ClientOp) -> String {
    match op {
        ClientOp::Read(range) => format!("read {range}"),
        ClientOp::Write { offset, payload, fua } => {
            let number = write_of(token_at(&payload.data, 0));
            format!("write {offset}+{}{} w{number}", payload.len(), show_fua(*fua))
        }
        ClientOp::Zero { range, fua, .. } => format!("zero {range}{}", show_fua(*fua)),
        ClientOp::Flush => "flush".into(),
    }
}

/// An engine's event, in one line.
pub(super) fn show_event(event: &Event) -> String {
    match event {
        Event::Role { old, new } => format!("role {old} -> {new}"),
        Event::Disk { old, new } => format!("disk {old} -> {new}"),
        Event::DiskFailed { why } => format!("disk given up: {why}"),
        Event::Connection { old, new, .. } => format!("connection {old} -> {new}"),
        Event::Replication { old, new, .. } => format!("replication {old} -> {new}"),
        Event::PeerRole { old, new, .. } => format!("peer role {old} -> {new}"),
        Event::PeerDisk { old, new, .. } => format!("peer disk {old} -> {new}"),
        Event::OutOfSync { range, .. } => format!("out of sync: {range}"),
        Event::Verified { ranges, blocks, .. } => {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            format!("verified {}: {blocks} blocks differ", ranges.join(", "))
        }
        Event::HandlerCalled { handler, .. } => format!("helper {handler}"),
        Event::HandlerDone { handler, outcome, .. } => format!("helper {handler} {outcome}"),
        Event::Note { level, text, .. } => format!("{level:?}: {text}"),
    }
}

fn show_fua(fua: bool) -> &'static str {
    if fua { " fua" } else { "" }
}

impl World {
    /// Prints a line of the trace, if one is wanted.
    pub(super) fn trace(&self, node: Option<usize>, what: &str, detail: impl FnOnce() -> String) {
        if self.tracing {
            let node = node.map_or("-".into(), |n| n.to_string());
            println!("{:>7} {:>9} {node} {what:<10} {}", self.counts.events, self.now, detail());
        }
    }

    /// The state of everything, in one line.
    pub(super) fn describe(&self) -> String {
        let node = |n: usize| match &self.nodes[n].status {
            None => format!("node {n}: dead"),
            Some(s) => format!(
                "node {n}: {} {} {:X}:{:X} client requests:{} errand:{:?}; peer {} {} {} {} oos:{} {:?}",
                s.role,
                s.disk,
                s.generations.current,
                s.generations.history[0],
                self.nodes[n].client.as_ref().map_or(0, Client::pending),
                self.nodes[n].errand.as_ref().map(|e| &e.1),
                s.peers[0].connection,
                s.peers[0].replication,
                s.peers[0].role,
                s.peers[0].disk,
                s.peers[0].out_of_sync_bytes,
                s.peers[0].standalone_reason,
            ),
        };
        format!("{}; {}", node(0), node(1))
    }
}
