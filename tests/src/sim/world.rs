//! Two nodes, their disks, the network between them, clients, and an administrator: one queue of events in virtual
//! time. What happens to them is in the neighbouring files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tandem_core::config::{
    CongestionOptions, EngineConfig, OnCongestion, Options, PeerConfig, Protocol, WriteOrdering,
};
use tandem_core::handler::{Handler, HandlerOutcome};
use tandem_core::layout::{Layout as VolumeLayout, VolumeSize};
use tandem_core::metadata::{self, CreateError, Geometry, LastPlace, Placement};
use tandem_core::mutation::Mutation;
use tandem_core::units::{CommandId, DiskOpId, HandlerId, NodeId};
use tandem_core::wire::Message;
use tandem_core::{Engine, refusal::CommandError};

use super::checks::Mask;
use super::client::Completion;
use super::disk::Layout;
use super::exposed::Reliance;
use super::faults::{Kind, Plan};
use super::impostor::Impostor;
use super::link::{Link, Micros};
use super::network::EpochLog;
use super::no_data::NoData;
use super::node::Node;
use super::oracle::{Oracle, Violation};
use super::policy::Policy;
use super::prng::Prng;
use super::report::Counts;
use super::resize::{GROWTH_BYTES, MOST_GROWTH_BYTES};
use super::rot::Condemned;
use super::script::Script;
use super::split::Act;
use super::verify::Watch;

/// Bytes of data on each disk at first: 64 blocks, a bit for each in one word.
pub(super) const DATA_BYTES: u64 = 64 * 4096;
/// Bytes of metadata for one peer: a page of bitmap, the ring with the second superblock, the superblock.
const META_BYTES: u64 = 40 << 10;
/// Any request or command that takes longer hangs.
pub(super) const PATIENCE: Micros = 60_000_000;
/// Once faults have stopped, everything must have come to rest within this time.
const CONVERGENCE: Micros = 120_000_000;
/// A history that takes more events does not come to rest.
const MOST_EVENTS: u64 = 2_000_000;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A disk operation ends.
    DiskDone { node: usize, incarnation: u32, op: DiskOpId },
    /// Both nodes try to connect: they meet.
    Meet,
    /// A node hears that the connection stands.
    Opened { node: usize, session: u64 },
    /// A message arrives.
    Arrives { node: usize, session: u64, message: Message },
    /// A node hears that the connection broke.
    Gone { node: usize, session: u64 },
    /// An engine's deadline.
    Tick { node: usize, incarnation: u32 },
    /// The client on a node may submit requests.
    Submit { node: usize, incarnation: u32 },
    /// The administrator looks around.
    Admin,
    /// A fault is due; another follows.
    Fault,
    /// A fault that hits at this moment on purpose.
    Strike { kind: Kind, node: usize },
    /// A handler ends.
    HandlerDone { node: usize, incarnation: u32, id: HandlerId, handler: Handler, outcome: HandlerOutcome },
    /// A driver has found out how large a disk is.
    Measured { node: usize, incarnation: u32, use_all: bool },
    /// A dead node comes back.
    Restart { node: usize },
    /// The network recovers.
    LinkUp,
    /// A dead disk works again, or is replaced.
    Repaired { node: usize },
    /// A clock that stood still goes on.
    ClockRuns { node: usize },
    /// A disk, or the network (`None`), recovers its speed.
    Calm { node: Option<usize> },
}

/// Everything.
pub(super) struct World {
    pub(super) prng: Prng,
    pub(super) plan: Plan,
    pub(super) protocol: Protocol,
    mutation: Option<Mutation>,
    pub(super) now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    scheduled: u64,
    pub(super) nodes: [Node; 2],
    pub(super) link: Link,
    pub(super) link_slowness: u64,
    pub(super) epochs: [EpochLog; 2],
    pub(super) oracle: Oracle,
    pub(super) script: Option<Script>,
    /// The largest volume that clients have seen.
    pub(super) size_bytes: u64,
    pub(super) requests_left: u64,
    pub(super) next_id: u64,
    /// Writes that completed on each node while it was not connected.
    pub(super) served_alone: [u64; 2],
    /// Who has begun a generation by command since both were last in sync: an administrator promotes no other.
    pub(super) begun_alone: Option<usize>,
    /// Promotions since both were last in sync.
    pub(super) lone_promotions: u32,
    /// Faults have stopped; since when.
    pub(super) healing: Option<Micros>,
    /// Both nodes are, were, or will be Primary at once.
    pub(super) split: bool,
    /// How far that has come.
    pub(super) act: Option<Act>,
    /// What each node requires of the other.
    pub(super) policies: [Policy; 2],
    /// The administrator relies on that.
    pub(super) is_trusting: bool,
    /// Whose fence-peer has succeeded, and unfence-peer has not.
    pub(super) holds_data: Option<usize>,
    /// Who was promoted by force, whatever the other may do, and both have not been in sync since.
    pub(super) forced: Option<usize>,
    /// The administrator has asked for the initial sync to be skipped.
    pub(super) skips_sync: bool,
    /// Both engines say that they are in sync.
    pub(super) in_sync: bool,
    /// Both were in sync once: from then on every difference must be known.
    pub(super) met: bool,
    /// The data that differs, and of which versions of both disks' data.
    pub(super) differences: ([u64; 2], Option<Mask>),
    /// Who sent what the other lacked, since they were last not in sync.
    pub(super) sync_source: Option<usize>,
    pub(super) finished: bool,
    /// Damage that the engines know of.
    pub(super) condemned: Vec<Condemned>,
    /// An undo log did not lead back.
    pub(super) broken_undo: Option<Violation>,
    /// Who works through the other's copy.
    pub(super) reliance: Option<Reliance>,
    /// Online verify.
    pub(super) watch: Watch,
    /// Who has connected to a node in its peer's place.
    pub(super) impostor: Option<Impostor>,
    pub(super) counts: Counts,
    pub(super) tracing: bool,
    pub(super) commands_done: Vec<(usize, CommandId, Result<(), CommandError>)>,
    pub(super) completions: Vec<Completion>,
}

impl World {
    /// The beginning of a history.
    pub(super) fn new(seed: u64, protocol: Protocol, mutation: Option<Mutation>, tracing: bool) -> Self {
        let mut prng = Prng::new(seed ^ u64::from(protocol.letter() as u8) << 56);
        let plan = Plan::draw(&mut prng);
        let layout = Layout {
            data_bytes: DATA_BYTES,
            meta_bytes: META_BYTES,
            internal: plan.internal_metadata,
            second_at: plan.two_volumes.then_some(DATA_BYTES / 2),
            volatile: plan.write_ordering == WriteOrdering::Flush,
            grown_bytes: 0,
            most_growth_bytes: MOST_GROWTH_BYTES * if plan.two_volumes { 2 } else { 1 },
        };
        World {
            now: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            scheduled: 0,
            nodes: std::array::from_fn(|_| Node::new(layout)),
            link: Link::default(),
            link_slowness: 1,
            epochs: Default::default(),
            oracle: Oracle::new(protocol, plan.write_ordering, (DATA_BYTES / 512) as usize),
            script: None,
            size_bytes: DATA_BYTES,
            requests_left: plan.workload.requests,
            next_id: 1,
            served_alone: [0; 2],
            begun_alone: None,
            lone_promotions: 0,
            healing: None,
            split: false,
            act: None,
            policies: [Policy::NONE; 2],
            is_trusting: false,
            holds_data: None,
            forced: None,
            skips_sync: false,
            in_sync: false,
            met: false,
            differences: ([0; 2], None),
            sync_source: None,
            finished: false,
            condemned: Vec::new(),
            broken_undo: None,
            reliance: None,
            watch: Watch::default(),
            impostor: None,
            counts: Counts { seeds: 1, ..Counts::default() },
            tracing,
            commands_done: Vec::new(),
            completions: Vec::new(),
            prng,
            plan,
            protocol,
            mutation,
        }
    }

    /// Lives the history to its end.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        self.begin();
        while let Some(Reverse((at, _, slot))) = self.queue.pop() {
            self.now = at;
            let Some(event) = self.events[slot].take() else { continue };
            self.free.push(slot);
            self.counts.events += 1;
            self.counts.digest = (self.counts.digest ^ at).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
            self.happen(event)?;
            self.broken_undo.take().map_or(Ok(()), Err)?;
            self.check()?;
            if self.finished {
                break;
            }
            if self.healing.is_some_and(|since| at > since + CONVERGENCE) || self.counts.events > MOST_EVENTS
            {
                return Err(Violation::new(
                    "K6",
                    format!("no convergence after faults stopped: {}", self.describe()),
                ));
            }
        }
        self.counts.micros = self.now;
        Ok(())
    }

    /// What was counted.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The virtual time.
    pub(super) fn now(&self) -> Micros {
        self.now
    }

    fn begin(&mut self) {
        if self.tracing {
            println!("{:#?}", self.plan);
        }
        self.begin_with_policy();
        for n in 0..2 {
            if self.plan.diverged {
                for sector in 0..(DATA_BYTES / 512) as usize {
                    if self.prng.chance(1, 2) {
                        self.nodes[n].disk.fill(sector, (0x4000 * (n as u64 + 1)) | sector as u64);
                    }
                }
            }
            let device_id = self.prng.next_u64();
            let created = self.create_metadata(n, device_id);
            assert!(
                created.is_ok_and(|g| g.data_bytes == DATA_BYTES),
                "the simulated disk has another layout"
            );
            self.at(n as u64, Event::Restart { node: n });
        }
        self.at(10, Event::Admin);
        if self.plan.fault_interval > 0 {
            let first = self.prng.below(2 * self.plan.fault_interval);
            self.at(first, Event::Fault);
        }
    }

    /// As `create-md` does.
    pub(super) fn create_metadata(&mut self, n: usize, device_id: u64) -> Result<Geometry, CreateError> {
        let placement = self.placement();
        let backing_bytes = self.nodes[n].disk.layout().backing_bytes();
        self.nodes[n].last_place = Some(LastPlace { device_id, ends: vec![backing_bytes] });
        let disk = &mut self.nodes[n].disk;
        let half = |number| VolumeSize { number, bytes: DATA_BYTES / 2 };
        let volumes = match disk.layout().second_at {
            Some(_) => VolumeLayout::with_slots(vec![half(0), half(1)], GROWTH_BYTES).unwrap_or_default(),
            None => VolumeLayout::default(),
        };
        metadata::create_for_volumes(disk, placement, backing_bytes, 1, device_id, volumes)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::DiskDone { node, incarnation, op } => {
                if self.nodes[node].incarnation == incarnation {
                    return self.disk_due(node, op);
                }
                Ok(())
            }
            Event::Meet => {
                self.meet();
                Ok(())
            }
            Event::Opened { node, session } => self.opened(node, session),
            Event::Arrives { node, session, message } => self.arrives(node, session, message),
            Event::Gone { node, session } => self.gone(node, session),
            Event::Tick { node, incarnation } => self.tick(node, incarnation),
            Event::Submit { node, incarnation } => {
                if self.nodes[node].incarnation == incarnation {
                    self.submit(node)
                } else {
                    Ok(())
                }
            }
            Event::Admin => self.administrate(),
            Event::Fault => self.fault(),
            Event::Strike { kind, node } => {
                if self.healing.is_some() {
                    Ok(())
                } else {
                    self.inject(kind, node)
                }
            }
            Event::HandlerDone { node, incarnation, id, handler, outcome } => {
                if self.nodes[node].incarnation == incarnation {
                    self.handler_done(node, id, handler, outcome)
                } else {
                    Ok(())
                }
            }
            Event::Measured { node, incarnation, use_all } => {
                if self.nodes[node].incarnation == incarnation {
                    self.measured(node, use_all)
                } else {
                    Ok(())
                }
            }
            Event::Restart { node } => {
                self.start(node);
                Ok(())
            }
            Event::LinkUp => {
                self.link_up();
                Ok(())
            }
            Event::Repaired { node } => {
                self.repair(node);
                Ok(())
            }
            Event::ClockRuns { node } => {
                self.clock_runs(node);
                Ok(())
            }
            Event::Calm { node } => {
                match node {
                    Some(n) => self.nodes[n].disk_slowness = 1,
                    None => self.link_slowness = 1,
                }
                Ok(())
            }
        }
    }

    // The queue.

    /// Something will happen in `delay` microseconds.
    pub(super) fn at(&mut self, delay: Micros, event: Event) {
        self.scheduled += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.queue.push(Reverse((self.now + delay, self.scheduled, slot)));
    }

    // Nodes.

    /// The process starts, with everything that it knows on its disk.
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].engine.is_some() {
            return;
        }
        if self.nodes[n].on_truck {
            return self.at(1_000, Event::Restart { node: n });
        }
        let config = EngineConfig {
            resource: "r0".into(),
            node: NodeId(n as u8),
            node_name: format!("node{n}"),
            peers: vec![PeerConfig { id: NodeId(1 - n as u8), name: format!("node{}", 1 - n) }],
            al_extent_bytes: self.plan.al_extent_bytes,
            options: self.configured_options(n),
            handlers: self.plan.handlers.configured.clone(),
        };
        let entropy = self.prng.next_u64();
        let now = self.nodes[n].clock.read(self.now);
        let mut engine = Engine::new(config, entropy, now);
        engine.seed_bug(self.mutation);
        let node = &mut self.nodes[n];
        node.status = Some(engine.status(now));
        node.engine = Some(engine);
        node.no_data = NoData::configured(self.plan.on_no_data);
        node.want_disk = true;
        node.want_net = true;
        self.reset_broken_connection(n);
        self.trace(Some(n), "starts", String::new);
    }

    /// What the node's process starts with.
    pub(super) fn configured_options(&self, n: usize) -> Options {
        Options {
            after_split_brain: self.plan.after_split_brain,
            rr_conflict: Default::default(),
            protocol: self.protocol,
            write_ordering: self.plan.write_ordering,
            timeout_ms: 100,
            ping_interval_ms: 150,
            ping_timeout_ms: 50,
            ko_count: 3,
            authentication: self.plan.authentication.clone(),
            verify_algorithm: Some(self.plan.verify_digest),
            max_epoch_size: 20,
            resync: self.plan.resync.clone(),
            al_extents: self.plan.al_extents,
            al_updates: self.plan.al_updates,
            congestion: self.possible(self.plan.congestion.clone()),
            on_io_error: self.plan.on_io_error,
            disk_timeout_ms: self.plan.disk_timeout_ms,
            fencing: self.policies[n].fencing,
            quorum: self.policies[n].quorum,
            on_no_data: self.plan.on_no_data,
        }
    }

    /// Only with protocol A may a Primary pull ahead.
    pub(super) fn possible(&self, congestion: CongestionOptions) -> CongestionOptions {
        let policy = if self.protocol == Protocol::A { congestion.policy } else { OnCongestion::Block };
        CongestionOptions { policy, ..congestion }
    }

    /// The process is gone. What its disk keeps is the caller's to say.
    pub(super) fn drop_process(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.engine = None;
        node.incarnation += 1;
        node.disk_in_use = false;
        node.status = None;
        node.snapshot = None;
        node.outdating = None;
        node.suspended = false;
        node.tick_at = None;
        node.errand = None;
        if let Some(client) = node.client.take() {
            self.counts.requests_lost += client.pending() as u64;
        }
        self.link.wanted[n] = false;
        self.give_up_script();
    }

    /// Where metadata is kept.
    pub(super) fn placement(&self) -> Placement {
        if self.plan.internal_metadata { Placement::Internal } else { Placement::External }
    }
}
