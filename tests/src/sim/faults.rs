//! What may go wrong in one history. Every seed draws its own subset and rates ("swarm"): a history with every kind
//! of fault at once hardly ever gets deep into any of them.

use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
use tandem_core::config::{
    CongestionOptions, Fencing, OnCongestion, OnIoError, OnNoData, ResyncOptions, WriteOrdering,
};
use tandem_core::digest::DigestAlgorithm;

use super::handlers::Handlers;
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, TwoPrimaries};
use tandem_core::units::NodeId;

use super::link::Micros;
use super::policy::Policy;
use super::prng::Prng;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// A kind of fault, or of work for the administrator.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Kind { $($(#[doc = $doc])+ $name),+ }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$name => stringify!($name)),+ }
            }
        }
    };
}

kinds! {
    /// A process dies; its disk's cache lives.
    ProcessCrash,
    /// A machine loses power.
    PowerLoss,
    /// Both machines lose power, at once or nearly so.
    PowerLossBoth,
    /// Both nodes die, one way or another, shortly after each other.
    DoubleDeath,
    /// The connection breaks, both sides hear of it, a new one can be made at once.
    LinkFlap,
    /// The connection breaks, both sides hear of it, and for a while no new one can be made.
    LinkCut,
    /// The network goes silent: one side, or none, hears of it.
    HalfOpen,
    /// A disk is slow for a while.
    SlowDisk,
    /// The network is slow for a while.
    SlowLink,
    /// The Primary is demoted in good order, the other promoted.
    Switchover,
    /// The Primary is demoted in good order; then either is promoted.
    Demotion,
    /// Demotion is tried while a client is there.
    BusyDemotion,
    /// The administrator disconnects a node, and connects it again.
    Disconnect,
    /// Whoever gave a command waits for it no longer.
    Impatience,
    /// The Secondary's disk is detached, and attached again.
    DetachSecondary,
    /// The Primary's disk is detached, and attached again: it works through its peer.
    DetachPrimary,
    /// A node is taken down in good order, and brought up again.
    CleanRestart,
    /// A disk rots, and the copies are compared, perhaps repaired.
    Verify,
    /// One copy is given up, by a command on its own node or on the other, to be had anew.
    Invalidate,
    /// A copy of one node's disk is made the other's.
    Truck,
    /// Resyncs are paused, and go on.
    PauseSync,
    /// What was chosen for a resource that is up changes.
    Options,
    /// What is required of the other node changes.
    Policy,
    /// Both disks grow, or one, and the volume.
    Grow,
    /// A disk grows, and is cut again: nobody has resized anything.
    GrowByMistake,
    /// Requests are suspended, and resumed.
    Suspension,
    /// A node is disconnected and outdated, and connected again.
    Outdate,
    /// A disk cannot read once.
    ReadError,
    /// A disk cannot write once.
    WriteError,
    /// A disk cannot write metadata once.
    MetadataError,
    /// A flush fails, and loses what it should have made durable; the next succeeds.
    FlushError,
    /// From some moment on every operation of a disk fails; it is repaired or replaced later.
    DyingDisk,
    /// A disk does not answer for long.
    HungDisk,
    /// Somebody without the secret has the peer's address.
    Impostor,
    /// A node's clock jumps ahead.
    ClockJump,
    /// A node's clock stands still for a while.
    ClockStop,
    /// Not drawn, but counted: a survivor was promoted while its peer was away.
    Failover,
    /// Not drawn, but counted: clients saw a larger volume.
    Grown,
    /// Not drawn, but counted: a fault was timed to hit a state change.
    Ambush,
    /// Not drawn, but counted: a Primary pulled ahead of its peer.
    PullAhead,
    /// Not drawn, but counted: fence-peer came to its point.
    Fencing,
    /// Not drawn, but counted: both nodes were Primary at once, on purpose.
    SplitBrain,
    /// Not drawn, but counted: the initial sync was skipped.
    SkippedSync,
    /// Not drawn, but counted: a resync was undone.
    Undone,
    /// Not drawn, but counted: a failed disk was replaced by a new one.
    NewDisk,
    /// Not drawn, but counted: a Primary without a disk met a peer that lacks what it has shown, and refused it.
    Orphaned,
    /// Not drawn, but counted: a Primary reached no copy of its data, and its clients waited.
    NoData,
}

/// Number of kinds that [`Plan::draw_kind`] draws from.
const DRAWN: usize = Kind::Failover as usize;

/// What one history is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often each kind happens, relative to the others.
    pub weights: [u64; DRAWN],
    /// Mean time between faults; 0 for none.
    pub fault_interval: Micros,
    /// Faults are also timed to hit handshakes, resyncs, promotions, attaches.
    pub ambush: bool,
    /// Both nodes shall be Primary at once.
    pub split_brain: bool,
    /// One of them has died when they meet again.
    pub crashes_when_split: bool,
    /// What both are configured to do about it.
    pub after_split_brain: AfterSplitBrain,
    /// How the receiving side keeps epochs apart; the disks' caches are volatile if it flushes.
    pub write_ordering: WriteOrdering,
    /// How fast a resync may go.
    pub resync: ResyncOptions,
    /// What becomes of a peer that cannot keep up.
    pub congestion: CongestionOptions,
    /// What a resync overwrites is kept.
    pub undo_logs: bool,
    /// Metadata on the data's own device.
    pub internal_metadata: bool,
    /// The two disks differ at first.
    pub diverged: bool,
    /// Longest time that a dead node stays dead.
    pub longest_death: Micros,
    /// Of 100 chances, how many the administrator takes to promote a survivor before the other returns.
    pub eagerness: u64,
    /// Disk operations take from .. to.
    pub disk_delay: (Micros, Micros),
    /// Messages take from .. to.
    pub link_delay: (Micros, Micros),
    /// The clients.
    pub workload: Workload,
    /// Of 100 chances, how many the administrator takes to promote a node while the other is Primary, if it relies on
    /// fencing.
    pub recklessness: u64,
    /// How copies are compared.
    pub verify_digest: DigestAlgorithm,
    /// With what the nodes prove to each other who they are.
    pub authentication: Option<Authentication>,
    /// What is required of the other node: at first, and perhaps later.
    pub policies: [Policy; 2],
    /// What becomes of requests while no copy can be reached.
    pub on_no_data: OnNoData,
    /// The administrator's programs.
    pub handlers: Handlers,
    /// Extents that the activity log has room for, and their size: small ones are few enough to be evicted.
    pub al_extents: u16,
    /// Bytes of an extent.
    pub al_extent_bytes: u64,
    /// The resource has two volumes of half the size.
    pub two_volumes: bool,
    /// An activity log is kept.
    pub al_updates: bool,
    /// What is done about a disk that fails.
    pub on_io_error: OnIoError,
    /// A disk that takes longer has failed; 0: never.
    pub disk_timeout_ms: u64,
    /// How many times slower than drawn each node's disk is.
    pub disk_factors: [Micros; 2],
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Requests in all.
    pub requests: u64,
    /// At a time.
    pub depth: usize,
    /// Longest pause between requests.
    pub pause: Micros,
    /// Weights of write, write zeroes, read, flush.
    pub mix: [u64; 4],
    /// Of 100 writes, how many are FUA.
    pub fua: u64,
    /// Of 100 requests, how many go to the hot blocks.
    pub heat: u64,
    /// The hot blocks, from block 0.
    pub hot_blocks: u64,
    /// Most blocks of a large request.
    pub max_blocks: u64,
    /// Writes may overlap others in flight.
    pub overlaps: bool,
}

const DISK_FAULTS: [Kind; 6] = [
    Kind::ReadError,
    Kind::WriteError,
    Kind::MetadataError,
    Kind::FlushError,
    Kind::DyingDisk,
    Kind::HungDisk,
];

impl Plan {
    /// The plan of a seed.
    pub fn draw(prng: &mut Prng) -> Plan {
        let mut weights = [0; DRAWN];
        for weight in &mut weights {
            *weight = if prng.chance(1, 3) { prng.between(1, 4) } else { 0 };
        }
        if prng.chance(1, 6) {
            weights[Kind::Verify as usize] += 8;
        }
        if prng.chance(1, 8) {
            // Crashed Primaries that come back alone have something to clear.
            weights[Kind::Truck as usize] += 16;
            weights[Kind::DoubleDeath as usize] += 8;
        }
        if prng.chance(1, 4) {
            // Power matters most: nothing else tells a flush from none.
            weights[Kind::PowerLoss as usize] += 4;
            weights[Kind::PowerLossBoth as usize] += 4;
        }
        if prng.chance(1, 2) {
            // Failed disks mean full resyncs: other faults get deeper without them.
            DISK_FAULTS.iter().for_each(|kind| weights[*kind as usize] = 0);
        } else if prng.chance(1, 3) {
            // Only a power loss tells what a failed flush has lost.
            weights[Kind::FlushError as usize] += 6;
            weights[Kind::PowerLoss as usize] += 3;
        }
        if weights.iter().sum::<u64>() == 0 {
            weights[Kind::ProcessCrash as usize] = 1;
        }
        let policy_changes = prng.chance(1, 6);
        if !policy_changes {
            weights[Kind::Policy as usize] = 0;
        }
        let policies = Policy::draw_two(prng, policy_changes);
        let fences = policies.iter().any(|policy| policy.fencing != Fencing::DontCare);
        if fences && prng.chance(1, 2) {
            // Nothing to fence without a cut.
            weights[Kind::LinkCut as usize] += 6;
        }
        let mut plan = Plan {
            weights,
            fault_interval: [0, 3_000, 10_000, 30_000, 100_000][prng.weighted(&[1, 3, 6, 6, 3])],
            ambush: prng.chance(1, 2),
            split_brain: prng.chance(1, 15),
            crashes_when_split: false,
            after_split_brain: draw_policies(prng),
            write_ordering: [WriteOrdering::Flush, WriteOrdering::Drain, WriteOrdering::None]
                [prng.weighted(&[12, 1, 1])],
            resync: draw_resync(prng),
            verify_digest: draw_digest(prng),
            authentication: prng.chance(1, 3).then(|| Authentication {
                algorithm: HmacAlgorithm::ALL[prng.below(HmacAlgorithm::ALL.len() as u64) as usize],
                secret: Secret::new("Raspberry Jam"),
            }),
            congestion: draw_congestion(prng),
            undo_logs: prng.chance(1, 2),
            internal_metadata: prng.chance(1, 2),
            diverged: prng.chance(1, 2),
            longest_death: [2_000, 20_000, 200_000][prng.below(3) as usize],
            eagerness: [0, 2, 20, 80][prng.below(4) as usize],
            disk_delay: [(10, 100), (50, 500), (10, 3_000)][prng.below(3) as usize],
            link_delay: [(10, 60), (50, 300), (10, 3_000)][prng.below(3) as usize],
            workload: Workload::draw(prng),
            recklessness: [1, 5, 40][prng.below(3) as usize],
            policies,
            on_no_data: [OnNoData::IoError, OnNoData::SuspendIo][prng.below(2) as usize],
            handlers: Handlers::draw(prng, fences),
            al_extents: [7, 7, 7, 12, 67, 1237][prng.below(6) as usize],
            al_extent_bytes: [8 << 10, 8 << 10, 16 << 10, 64 << 10][prng.below(4) as usize],
            two_volumes: prng.chance(1, 4),
            al_updates: prng.chance(15, 16),
            on_io_error: [OnIoError::Detach, OnIoError::CallLocalIoError, OnIoError::PassOn]
                [prng.below(3) as usize],
            disk_timeout_ms: 0,
            disk_factors: [[1, 1], [1, 1], [1, 20], [20, 1]][prng.below(4) as usize],
        };
        // From a split on no disk is given up: who has none is asked nothing.
        if prng.chance(1, 3) && !plan.split_brain {
            // Longer than any disk takes that works.
            let [a, b] = plan.disk_factors;
            plan.disk_timeout_ms = 10 + 4 * plan.disk_delay.1 * a.max(b) / 1000;
        }
        if prng.chance(1, 3) {
            plan.churn(prng);
        }
        if plan.two_volumes && prng.chance(1, 2) {
            plan.part_volumes(prng);
        }
        if plan.on_no_data == OnNoData::SuspendIo && prng.chance(1, 6) {
            plan.lose_the_last_copy(prng);
        }
        plan.draw_growth(prng);
        if prng.chance(1, 8) && !plan.split_brain {
            plan.work_through_the_peer(prng);
        }
        if plan.split_brain && prng.chance(2, 3) {
            plan.split_in_peace(prng);
        } else if policy_changes {
            plan.change_policies(prng);
        }
        plan
    }

    /// What is required changes when both are in sync; and that it has changed, only a cut tells, and an administrator who relies
    /// on it.
    fn change_policies(&mut self, prng: &mut Prng) {
        let besides = [Kind::ProcessCrash, Kind::PowerLoss, Kind::LinkFlap, Kind::HalfOpen, Kind::Switchover];
        self.nothing_but(&besides, prng);
        (self.weights[Kind::Policy as usize], self.weights[Kind::LinkCut as usize]) = (6, 6);
        self.fault_interval = [10_000, 30_000][prng.below(2) as usize];
        (self.eagerness, self.recklessness) = (80, 40);
        self.begin_quickly();
    }

    /// Data splits when both are in sync, and many a history is torn apart before they are.
    fn split_in_peace(&mut self, prng: &mut Prng) {
        self.fault_interval = 100_000;
        self.begin_quickly();
        if prng.chance(1, 2) {
            // After a crash nobody knows how much has changed: what weighs the changes must not decide.
            self.crashes_when_split = true;
            self.after_split_brain.no_primary = NoPrimary::DiscardLeastChanges;
        }
    }

    /// Of these kinds some, and of the others none.
    fn nothing_but(&mut self, kinds: &[Kind], prng: &mut Prng) {
        self.weights = [0; DRAWN];
        kinds.iter().for_each(|kind| self.weights[*kind as usize] = prng.below(2));
    }

    /// Both are in sync soon, and clients take their time.
    fn begin_quickly(&mut self) {
        self.longest_death = 2_000;
        self.workload.pause = 3_000;
        self.resync =
            ResyncOptions { fixed_bytes_per_s: 4 << 20, plan_ahead_ms: 0, ..ResyncOptions::default() };
    }

    /// The metadata shares a cache with the first volume only, and nobody but the activity log flushes the second: the loss
    /// of power tells whether it does.
    fn part_volumes(&mut self, prng: &mut Prng) {
        self.churn(prng);
        (self.internal_metadata, self.write_ordering) = (true, WriteOrdering::Flush);
        (self.workload.mix[3], self.workload.fua) = (0, 0);
        if prng.chance(1, 2) {
            self.nothing_but(&[Kind::LinkFlap, Kind::Switchover], prng);
            (self.fault_interval, self.longest_death) = ([10_000, 30_000][prng.below(2) as usize], 2_000);
            self.workload.requests = prng.between(100, 160);
        }
        self.weights[Kind::PowerLoss as usize] += 6;
    }

    /// A Primary that works through its peer loses it over and over, while clients write and read the same few blocks.
    fn lose_the_last_copy(&mut self, prng: &mut Prng) {
        self.weights[Kind::DetachPrimary as usize] += 12;
        self.weights[Kind::LinkCut as usize] += 12;
        // A disk that has lost what it had completed is the wrong one to go on with.
        self.weights[Kind::FlushError as usize] += 12;
        (self.workload.heat, self.workload.hot_blocks, self.workload.max_blocks) = (90, 1, 2);
        (self.workload.depth, self.workload.pause, self.workload.overlaps) = (8, 200, true);
        self.workload.mix[2] += prng.between(2, 8);
    }

    /// Disks grow in some histories, and volumes with them.
    fn draw_growth(&mut self, prng: &mut Prng) {
        let grows = prng.chance(1, 3);
        for kind in [Kind::Grow, Kind::GrowByMistake] {
            self.weights[kind as usize] = if grows { prng.between(1, 8) } else { 0 };
        }
        if grows && prng.chance(2, 3) {
            self.grow_in_peace(prng);
        }
    }

    /// Nothing grows before both are in sync, and little before its requests are over: nothing else disturbs but deaths.
    fn grow_in_peace(&mut self, prng: &mut Prng) {
        self.nothing_but(&[Kind::ProcessCrash, Kind::PowerLoss, Kind::PowerLossBoth], prng);
        (self.weights[Kind::Grow as usize], self.weights[Kind::GrowByMistake as usize]) =
            (8, [0, 6][prng.below(2) as usize]);
        (self.fault_interval, self.longest_death) = (30_000, 2_000);
        self.workload.pause = 3_000;
        self.resync =
            ResyncOptions { fixed_bytes_per_s: 4 << 20, plan_ahead_ms: 0, ..ResyncOptions::default() };
    }

    /// A Primary loses its disk, gets it back, or a new one, and loses that while it is brought up to date; and so does its peer, whose
    /// cache is empty most of the time.
    fn work_through_the_peer(&mut self, prng: &mut Prng) {
        let besides = [Kind::WriteError, Kind::ReadError, Kind::LinkCut, Kind::DetachSecondary];
        self.nothing_but(&besides, prng);
        (self.weights[Kind::DetachPrimary as usize], self.weights[Kind::LinkFlap as usize]) = (8, 6);
        self.weights[Kind::DyingDisk as usize] = prng.between(3, 6);
        (self.on_io_error, self.write_ordering, self.two_volumes) =
            (OnIoError::Detach, WriteOrdering::Flush, false);
        self.fault_interval = [10_000, 30_000][prng.below(2) as usize];
        self.begin_quickly();
        self.resync.fixed_bytes_per_s = 512 << 10;
    }

    /// Writes everywhere, and few extents to hold them: every write takes another's place in the activity log.
    fn churn(&mut self, prng: &mut Prng) {
        (self.al_extents, self.al_extent_bytes) = (7, 8 << 10);
        (self.workload.heat, self.workload.depth) = (0, 8);
        (self.workload.pause, self.workload.max_blocks) = (200, prng.between(1, 2));
        self.weights[Kind::PowerLoss as usize] += 2;
        self.weights[Kind::DoubleDeath as usize] += 4;
    }

    /// Draws a kind of fault.
    pub fn draw_kind(&self, prng: &mut Prng) -> Kind {
        Kind::ALL[prng.weighted(&self.weights)]
    }
}

/// Links are slow enough, and writes large enough, that the small bounds are reached often.
pub(super) fn draw_congestion(prng: &mut Prng) -> CongestionOptions {
    CongestionOptions {
        policy: if prng.chance(1, 2) { OnCongestion::PullAhead } else { OnCongestion::Block },
        fill_bytes: [0, 4 << 10, 32 << 10][prng.below(3) as usize],
        extents: [1237, 3][prng.below(2) as usize],
        send_buffer_bytes: [64 << 20, 64 << 10, 8 << 10][prng.below(3) as usize],
    }
}

/// A volume has 256 KiB: at the slowest, a resync of all of it takes two seconds.
pub(super) fn draw_resync(prng: &mut Prng) -> ResyncOptions {
    const KIB: u64 = 1 << 10;
    ResyncOptions {
        fixed_bytes_per_s: [128 * KIB, 4096 * KIB][prng.below(2) as usize],
        plan_ahead_ms: [0, 100, 2000][prng.weighted(&[1, 2, 4])],
        delay_target_ms: 100,
        fill_target_bytes: [0, 4 * KIB, 64 * KIB][prng.below(3) as usize],
        max_bytes_per_s: [0, 256 * KIB, 4096 * KIB][prng.weighted(&[6, 1, 2])],
        min_bytes_per_s: [0, 128 * KIB, 1024 * KIB][prng.weighted(&[4, 1, 2])],
        csums_algorithm: prng.chance(1, 3).then(|| draw_digest(prng)),
        csums_after_crash_only: prng.chance(1, 4),
    }
}

fn draw_digest(prng: &mut Prng) -> DigestAlgorithm {
    DigestAlgorithm::ALL[prng.below(DigestAlgorithm::ALL.len() as u64) as usize]
}

fn draw_policies(prng: &mut Prng) -> AfterSplitBrain {
    let no_primary = [
        NoPrimary::Disconnect,
        NoPrimary::DiscardYoungerPrimary,
        NoPrimary::DiscardOlderPrimary,
        NoPrimary::DiscardZeroChanges,
        NoPrimary::DiscardLeastChanges,
        NoPrimary::DiscardNode(NodeId(prng.node() as u8)),
    ];
    let one_primary = [
        OnePrimary::Disconnect,
        OnePrimary::Consensus,
        OnePrimary::DiscardSecondary,
        OnePrimary::CallPriLostAfterSb,
        OnePrimary::ViolentlyAs0p,
    ];
    let two_primaries =
        [TwoPrimaries::Disconnect, TwoPrimaries::CallPriLostAfterSb, TwoPrimaries::ViolentlyAs0p];
    AfterSplitBrain {
        no_primary: no_primary[prng.below(6) as usize],
        one_primary: one_primary[prng.below(5) as usize],
        two_primaries: two_primaries[prng.below(3) as usize],
        always: prng.chance(1, 4),
    }
}

impl Workload {
    fn draw(prng: &mut Prng) -> Workload {
        Workload {
            requests: prng.between(20, 160),
            depth: [1, 2, 8, 8][prng.below(4) as usize],
            pause: [50, 400, 3_000][prng.below(3) as usize],
            mix: [prng.between(4, 12), prng.below(3), prng.below(6), [0, 1, 1, 4][prng.below(4) as usize]],
            fua: [0, 5, 40][prng.below(3) as usize],
            heat: [0, 50, 90][prng.below(3) as usize],
            hot_blocks: prng.between(1, 4),
            max_blocks: [1, 2, 8][prng.below(3) as usize],
            overlaps: prng.chance(2, 3),
        }
    }
}
