//! What the engine is told of its resource.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::authentication::Authentication;
use crate::digest::DigestAlgorithm;
use crate::handler::Handler;
use crate::split_brain::AfterSplitBrain;
use crate::units::NodeId;

/// When a write completes to the client (docs/guarantees.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Protocol {
    /// Local write done and handed to the send queue.
    A,
    /// Local write done and received by the peer.
    B,
    /// Local write done and written by the peer.
    C,
}

impl Protocol {
    /// The letter of the configuration file.
    pub const fn letter(self) -> char {
        match self {
            Protocol::A => 'A',
            Protocol::B => 'B',
            Protocol::C => 'C',
        }
    }

    /// The protocol with this letter.
    pub const fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'A' => Some(Protocol::A),
            b'B' => Some(Protocol::B),
            b'C' => Some(Protocol::C),
            _ => None,
        }
    }
}

/// How the secondary keeps epochs apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteOrdering {
    /// Wait for the epoch's writes, then flush the disk.
    Flush,
    /// Wait for the epoch's writes; flush only when the primary's client asks for durability.
    Drain,
    /// Wait for nothing but overlapping writes: epochs are acknowledged in order, and written in any.
    None,
}

/// What the loss of a peer requires (drbd.conf(5), fencing).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fencing {
    /// Nothing.
    DontCare,
    /// fence-peer is run.
    ResourceOnly,
    /// fence-peer is run, and clients' requests wait until it has succeeded or the peer is back.
    ResourceAndStonith,
}

/// One peer of the resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerConfig {
    /// Its number.
    pub id: NodeId,
    /// Its name in the configuration.
    pub name: String,
}

/// The resource as this node sees it.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The resource's name; both sides must agree.
    pub resource: String,
    /// This node.
    pub node: NodeId,
    /// This node's name.
    pub node_name: String,
    /// The other nodes.
    pub peers: Vec<PeerConfig>,
    /// Bytes of an extent of the activity log, a power of two: [`AL_EXTENT_BYTES`], but on small simulated disks.
    pub al_extent_bytes: u64,
    /// What the administrator has chosen.
    pub options: Options,
    /// The handlers that are configured.
    pub handlers: BTreeSet<Handler>,
}

/// Bytes of an extent of the activity log: DRBD's.
pub const AL_EXTENT_BYTES: u64 = 4 << 20;

/// What both nodes must have chosen alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Replication protocol.
    pub protocol: Protocol,
    /// What is done about a split brain.
    pub after_split_brain: AfterSplitBrain,
}

impl Terms {
    /// The options in which the peer differs.
    pub fn differences(&self, theirs: &Terms) -> Vec<&'static str> {
        let (mine, peer) = (&self.after_split_brain, &theirs.after_split_brain);
        let differences = [
            (self.protocol != theirs.protocol, "protocol"),
            (mine.no_primary != peer.no_primary, "after-sb-0pri"),
            (mine.one_primary != peer.one_primary, "after-sb-1pri"),
            (mine.two_primaries != peer.two_primaries, "after-sb-2pri"),
            (mine.always != peer.always, "always-asbp"),
        ];
        differences.into_iter().filter(|(differs, _)| *differs).map(|(_, name)| name).collect()
    }
}

/// What is done when a Primary would have to become the target of a resync.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RrConflict {
    /// Both stand alone.
    #[default]
    Disconnect,
    /// Both try again after a while, until nothing is in the way.
    RetryConnect,
    /// Both stand alone. What DRBD rolls back with this, writes of protocol A that a crashed Primary alone has, is rolled
    /// back anyway once the other has been promoted.
    AutoDiscard,
    /// The Primary's clients are cut off and it steps down.
    Violently,
    /// Both stand alone, and the Primary runs the handler `pri-lost`.
    CallPriLost,
}

/// What is done about a disk that cannot read or write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnIoError {
    /// It is given up, and the peer serves.
    #[default]
    Detach,
    /// The same, and the handler `local-io-error` is run.
    CallLocalIoError,
    /// It stays in use: what it lacks is had from the peer, or the client gets the error.
    PassOn,
}

/// How many of the voters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Votes {
    /// None need be.
    #[default]
    Off,
    /// More than half.
    Majority,
    /// Every one.
    All,
    /// So many.
    Count(u8),
}

impl Votes {
    /// The number, of so many voters.
    pub fn at(self, voters: usize) -> usize {
        match self {
            Votes::Off => 0,
            Votes::Majority => voters / 2 + 1,
            Votes::All => voters,
            Votes::Count(count) => count.into(),
        }
    }
}

/// What becomes of requests without quorum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNoQuorum {
    /// They wait.
    #[default]
    SuspendIo,
    /// They fail.
    IoError,
}

/// What becomes of requests while no copy of the data can be reached (drbd.conf(5), on-no-data-accessible).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNoData {
    /// They fail.
    #[default]
    IoError,
    /// They wait.
    SuspendIo,
}

/// How many nodes a Primary needs (drbd.conf(5), quorum).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Quorum {
    /// That can be reached, itself included.
    pub votes: Votes,
    /// That are UpToDate, of those.
    pub minimum_redundancy: Votes,
    /// Without them.
    pub on_loss: OnNoQuorum,
}

impl Quorum {
    /// Something is required.
    pub fn is_needed(self) -> bool {
        self.votes != Votes::Off || self.minimum_redundancy != Votes::Off
    }
}

/// What the configuration file lets the administrator choose; the defaults are DRBD's unless their line says
/// otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Replication protocol.
    pub protocol: Protocol,
    /// What is done about a split brain.
    pub after_split_brain: AfterSplitBrain,
    /// What is done when a Primary would have to become the target of a resync.
    pub rr_conflict: RrConflict,
    /// How this node, as a secondary, keeps epochs apart.
    pub write_ordering: WriteOrdering,
    /// A peer must answer a request within `timeout_ms * ko_count`.
    pub timeout_ms: u64,
    /// Idle time after which a heartbeat is sent.
    pub ping_interval_ms: u64,
    /// A heartbeat must be answered within this time.
    pub ping_timeout_ms: u64,
    /// Times `timeout_ms` until a peer that does not finish a request is dropped; 0 for never.
    pub ko_count: u32,
    /// Writes in an epoch.
    pub max_epoch_size: u32,
    /// With what peers prove who they are, if they must. Both nodes have it alike, or neither.
    pub authentication: Option<Authentication>,
    /// What the loss of a peer requires.
    pub fencing: Fencing,
    /// What a Primary requires of the others.
    pub quorum: Quorum,
    /// What becomes of requests while no copy of the data can be reached.
    #[serde(default)]
    pub on_no_data: OnNoData,
    /// The digest of an online verify, if one shall be possible.
    pub verify_algorithm: Option<DigestAlgorithm>,
    /// How a resync goes, and how fast.
    pub resync: ResyncOptions,
    /// Extents that the activity log has room for, at most [`crate::metadata::MAX_LOG_SLOTS`].
    pub al_extents: u16,
    /// Keep the activity log; without it everything counts as different after a crash of the Primary.
    pub al_updates: bool,
    /// What becomes of a peer that cannot keep up.
    pub congestion: CongestionOptions,
    /// What is done about a disk that cannot read or write.
    pub on_io_error: OnIoError,
    /// A disk that takes longer for an operation has failed; 0: never.
    pub disk_timeout_ms: u64,
}

/// When a peer counts as congested.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCongestion {
    /// Writes wait.
    Block,
    /// Writes go on without it; it is resynced later. With protocol A only.
    PullAhead,
    /// It is disconnected.
    Disconnect,
}

/// What becomes of a peer that cannot keep up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CongestionOptions {
    /// What is done.
    pub policy: OnCongestion,
    /// A peer that has not confirmed so much counts as congested; 0: when the send buffer is full.
    pub fill_bytes: u64,
    /// So does one that keeps so many extents of the activity log from being let go.
    pub extents: u16,
    /// Most that a peer may be sent and has not confirmed; writes wait beyond it.
    pub send_buffer_bytes: u64,
}

/// Fills a link of 10 Gbit/s for 50 ms, about what a flush of the peer's disk takes. DRBD leaves it to TCP.
const SEND_BUFFER_BYTES: u64 = 64 << 20;

impl Default for CongestionOptions {
    fn default() -> Self {
        CongestionOptions {
            policy: OnCongestion::Block,
            fill_bytes: 0,
            extents: 1237,
            send_buffer_bytes: SEND_BUFFER_BYTES,
        }
    }
}

/// How a resync goes, and how fast. The defaults are not DRBD's, whose users suffer from its ceiling of 100 MiB/s on fast links
/// and from its floor of 250 KiB/s beside clients.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResyncOptions {
    /// The speed when `plan_ahead_ms` is 0.
    pub fixed_bytes_per_s: u64,
    /// What a resync has in flight is corrected over this time; 0: a fixed speed.
    pub plan_ahead_ms: u64,
    /// How long a request may wait in queues, if `fill_target_bytes` is 0.
    pub delay_target_ms: u64,
    /// What shall be in flight; 0: as much as the link carries.
    pub fill_target_bytes: u64,
    /// Upper limit; 0: none.
    pub max_bytes_per_s: u64,
    /// The limit while clients are at work; 0: none.
    pub min_bytes_per_s: u64,
    /// A target asks by digest, and gets only what differs.
    pub csums_algorithm: Option<DigestAlgorithm>,
    /// It does so only after a Primary has crashed.
    pub csums_after_crash_only: bool,
}

impl Default for ResyncOptions {
    fn default() -> Self {
        ResyncOptions {
            fixed_bytes_per_s: 250 << 10,
            plan_ahead_ms: 2000,
            delay_target_ms: 100,
            fill_target_bytes: 0,
            max_bytes_per_s: 0,
            min_bytes_per_s: 10 << 20,
            csums_algorithm: None,
            csums_after_crash_only: false,
        }
    }
}

/// When a changed option counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// At once.
    AtOnce,
    /// With the next connection: both sides must have it alike, or what is on its way would be taken for something else.
    WithNextConnection,
    /// With the next attach: the disk is opened with it, or the activity log is made for it.
    WithNextAttach,
    /// When the resource is brought up the next time.
    WithNextUp,
}

impl Takes {
    /// Why these cannot change now, and what to do about it.
    pub fn refusal(self, names: &[&str]) -> String {
        let (when, first) = match self {
            Takes::AtOnce => ("at once", "try again"),
            Takes::WithNextConnection => {
                ("with the next connection only", "'disconnect' first, or use 'adjust'")
            }
            Takes::WithNextAttach => ("with the next attach only", "'detach' first, or use 'adjust'"),
            Takes::WithNextUp => ("when the resource is brought up only", "'down' and 'up'"),
        };
        format!("changes {when}: {}; {first}", names.join(", "))
    }
}

impl Options {
    /// What `new` changes, in the configuration's words, and when that counts. The configuration's table says the same of each.
    pub fn changes(&self, new: &Options) -> Vec<(&'static str, Takes)> {
        use Takes::{AtOnce, WithNextAttach, WithNextConnection};
        // Nothing may be forgotten here.
        let Options {
            protocol,
            after_split_brain,
            rr_conflict,
            write_ordering,
            timeout_ms,
            ping_interval_ms,
            ping_timeout_ms,
            ko_count,
            max_epoch_size,
            authentication,
            fencing,
            quorum,
            on_no_data,
            verify_algorithm,
            resync,
            al_extents,
            al_updates,
            congestion,
            on_io_error,
            disk_timeout_ms,
        } = self;
        let hmac = |a: &Option<Authentication>| a.as_ref().map(|a| a.algorithm);
        let secret = |a: &Option<Authentication>| a.as_ref().map(|a| a.secret.clone());
        let (mine, other) = (after_split_brain, &new.after_split_brain);
        let flushes = |ordering: WriteOrdering| ordering == WriteOrdering::Flush;
        // What waits for its turn must not be overtaken by what comes later and waits no more.
        let drains = |ordering: WriteOrdering| ordering != WriteOrdering::None;
        let changes = [
            (*protocol != new.protocol, "protocol", WithNextConnection),
            (mine.no_primary != other.no_primary, "after-sb-0pri", WithNextConnection),
            (mine.one_primary != other.one_primary, "after-sb-1pri", WithNextConnection),
            (mine.two_primaries != other.two_primaries, "after-sb-2pri", WithNextConnection),
            (mine.always != other.always, "always-asbp", WithNextConnection),
            (*rr_conflict != new.rr_conflict, "rr-conflict", AtOnce),
            (*timeout_ms != new.timeout_ms, "timeout", AtOnce),
            (*ping_interval_ms != new.ping_interval_ms, "ping-int", AtOnce),
            (*ping_timeout_ms != new.ping_timeout_ms, "ping-timeout", AtOnce),
            (*ko_count != new.ko_count, "ko-count", AtOnce),
            (*max_epoch_size != new.max_epoch_size, "max-epoch-size", AtOnce),
            (hmac(authentication) != hmac(&new.authentication), "cram-hmac-alg", AtOnce),
            (secret(authentication) != secret(&new.authentication), "shared-secret", AtOnce),
            (*fencing != new.fencing, "fencing", AtOnce),
            (*verify_algorithm != new.verify_algorithm, "verify-alg", AtOnce),
            (resync.csums_algorithm != new.resync.csums_algorithm, "csums-alg", AtOnce),
            (
                resync.csums_after_crash_only != new.resync.csums_after_crash_only,
                "csums-after-crash-only",
                AtOnce,
            ),
            (congestion.policy != new.congestion.policy, "on-congestion", AtOnce),
            (congestion.fill_bytes != new.congestion.fill_bytes, "congestion-fill", AtOnce),
            (congestion.extents != new.congestion.extents, "congestion-extents", AtOnce),
            (congestion.send_buffer_bytes != new.congestion.send_buffer_bytes, "sndbuf-size", AtOnce),
            (flushes(*write_ordering) != flushes(new.write_ordering), "disk-flushes", AtOnce),
            (drains(*write_ordering) != drains(new.write_ordering), "disk-drain", WithNextConnection),
            (*on_io_error != new.on_io_error, "on-io-error", AtOnce),
            (*disk_timeout_ms != new.disk_timeout_ms, "disk-timeout", AtOnce),
            (quorum.votes != new.quorum.votes, "quorum", AtOnce),
            (quorum.minimum_redundancy != new.quorum.minimum_redundancy, "quorum-minimum-redundancy", AtOnce),
            (quorum.on_loss != new.quorum.on_loss, "on-no-quorum", AtOnce),
            (*on_no_data != new.on_no_data, "on-no-data-accessible", AtOnce),
            (*al_extents != new.al_extents, "al-extents", WithNextAttach),
            (*al_updates != new.al_updates, "al-updates", WithNextAttach),
            (resync.fixed_bytes_per_s != new.resync.fixed_bytes_per_s, "resync-rate", AtOnce),
            (resync.plan_ahead_ms != new.resync.plan_ahead_ms, "c-plan-ahead", AtOnce),
            (resync.delay_target_ms != new.resync.delay_target_ms, "c-delay-target", AtOnce),
            (resync.fill_target_bytes != new.resync.fill_target_bytes, "c-fill-target", AtOnce),
            (resync.max_bytes_per_s != new.resync.max_bytes_per_s, "c-max-rate", AtOnce),
            (resync.min_bytes_per_s != new.resync.min_bytes_per_s, "c-min-rate", AtOnce),
        ];
        changes.into_iter().filter(|change| change.0).map(|(_, name, takes)| (name, takes)).collect()
    }

    /// What the peer must have chosen alike.
    pub const fn terms(&self) -> Terms {
        Terms { protocol: self.protocol, after_split_brain: self.after_split_brain }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            protocol: Protocol::C,
            after_split_brain: AfterSplitBrain::default(),
            rr_conflict: RrConflict::default(),
            write_ordering: WriteOrdering::Flush,
            timeout_ms: 6000,
            ping_interval_ms: 10_000,
            ping_timeout_ms: 500,
            ko_count: 7,
            max_epoch_size: 2048,
            authentication: None,
            fencing: Fencing::DontCare,
            quorum: Quorum::default(),
            on_no_data: OnNoData::default(),
            verify_algorithm: None,
            resync: ResyncOptions::default(),
            al_extents: 1237,
            al_updates: true,
            congestion: CongestionOptions::default(),
            on_io_error: OnIoError::default(),
            disk_timeout_ms: 0,
        }
    }
}
