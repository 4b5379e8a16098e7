//! What holds in the end: options with their defaults, in the daemon's units.

use std::fmt;

use crate::options::Section;
use crate::settings::Settings;

/// DRBD's on-disk log of 32 KiB has room for no more, whatever is asked for.
pub(crate) const MAX_HOT_EXTENTS: u64 = 6433;
/// DRBD does not work with less, either.
pub(crate) const MIN_HOT_EXTENTS: u64 = 67;

/// When a write completes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// With the local write, once it is handed to the send queue.
    A,
    /// With the local write, once the peer has received it.
    B,
    /// With the local write, once the peer has written it.
    C,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        })
    }
}

/// What a lost peer requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// Nothing.
    DontCare,
    /// The fence-peer handler is run.
    ResourceOnly,
    /// It is run, and requests wait until it has succeeded.
    ResourceAndStonith,
}

/// The connection of a resource, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// When a write completes.
    pub protocol: Protocol,
    /// The peer must answer within this time.
    pub timeout_ms: u64,
    /// An idle connection is probed this often.
    pub ping_interval_ms: u64,
    /// A probe must be answered within this time.
    pub ping_timeout_ms: u64,
    /// Connecting is tried again this often.
    pub connect_interval_ms: u64,
    /// A peer that does not finish a write within this many timeouts is dropped; 0: never.
    pub ko_count: u64,
    /// Most writes between two barriers.
    pub max_epoch_size: u64,
    /// Most that the peer may be sent unconfirmed; 0: as the daemon sees fit.
    pub send_buffer_bytes: u64,
    /// What happens when the peer cannot keep up.
    pub on_congestion: OnCongestion,
    /// It cannot when it has not confirmed so much; 0: when the send buffer is full.
    pub congestion_fill_bytes: u64,
    /// Or keeps so many extents of the activity log hot.
    pub congestion_extents: u64,
    /// What is done about a split brain, in the option's own words: with no Primary, with one, with two.
    pub after_split_brain: [String; 3],
    /// Also where the bitmaps do not tell.
    pub always_after_split_brain: bool,
    /// What is done when a Primary would have to become a target, in the option's own words.
    pub rr_conflict: String,
    /// The digest for resync by checksums; none if all blocks are sent.
    pub csums_algorithm: Option<String>,
    /// Resync by checksums only after a primary has crashed.
    pub csums_after_crash_only: bool,
    /// The digest with which peers prove who they are; none if they need not.
    pub hmac_algorithm: Option<String>,
    /// What they prove it by.
    pub shared_secret: Option<String>,
    /// What a lost peer requires.
    pub fencing: Fencing,
    /// The digest for online verify; none if it shall not be possible.
    pub verify_algorithm: Option<String>,
}

impl From<&Settings> for NetOptions {
    fn from(settings: &Settings) -> Self {
        let number = |name| settings.number(Section::Net, name);
        let word = |name| settings.word(Section::Net, name);
        Self {
            protocol: match word("protocol").as_str() {
                "A" => Protocol::A,
                "B" => Protocol::B,
                _ => Protocol::C,
            },
            timeout_ms: number("timeout") * 100,
            ping_interval_ms: number("ping-int") * 1000,
            ping_timeout_ms: number("ping-timeout") * 100,
            connect_interval_ms: number("connect-int") * 1000,
            ko_count: number("ko-count"),
            max_epoch_size: number("max-epoch-size"),
            send_buffer_bytes: number("sndbuf-size"),
            on_congestion: match word("on-congestion").as_str() {
                "pull-ahead" => OnCongestion::PullAhead,
                "disconnect" => OnCongestion::Disconnect,
                _ => OnCongestion::Block,
            },
            congestion_fill_bytes: number("congestion-fill") * 512,
            congestion_extents: number("congestion-extents"),
            after_split_brain: ["after-sb-0pri", "after-sb-1pri", "after-sb-2pri"].map(word),
            always_after_split_brain: settings.flag(Section::Net, "always-asbp"),
            rr_conflict: word("rr-conflict"),
            csums_algorithm: settings.chosen(Section::Net, "csums-alg"),
            csums_after_crash_only: settings.flag(Section::Net, "csums-after-crash-only"),
            hmac_algorithm: settings.chosen(Section::Net, "cram-hmac-alg"),
            shared_secret: Some(word("shared-secret")).filter(|secret| !secret.is_empty()),
            fencing: match word("fencing").as_str() {
                "resource-only" => Fencing::ResourceOnly,
                "resource-and-stonith" => Fencing::ResourceAndStonith,
                _ => Fencing::DontCare,
            },
            verify_algorithm: settings.chosen(Section::Net, "verify-alg"),
        }
    }
}

/// What happens when a peer cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCongestion {
    /// Writes wait.
    Block,
    /// Writes go on, the peer is resynced later.
    PullAhead,
    /// The peer is disconnected.
    Disconnect,
}

/// The backing device of a volume, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Order writes by flushes; otherwise by waiting for completion alone.
    pub disk_flushes: bool,
    /// Without flushes, order writes by waiting for completion; otherwise not at all.
    pub disk_drain: bool,
    /// Extents that the activity log has room for.
    pub al_extents: u64,
    /// Keep the activity log.
    pub al_updates: bool,
    /// What is done about a disk that fails, in the option's own words.
    pub on_io_error: String,
    /// A disk that takes longer for an operation has failed; 0: never.
    pub disk_timeout_ms: u64,
    /// How fast a resync may go.
    pub resync: ResyncOptions,
    /// The resource whose resync comes first.
    pub resync_after: Option<String>,
    /// The file for undo logs of resyncs.
    pub resync_undo: Option<String>,
    /// Use only this much of the backing device; 0: all.
    pub size_bytes: u64,
}

/// How fast a resync may go, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResyncOptions {
    /// The speed without a plan.
    pub fixed_bytes_per_s: u64,
    /// What is in flight is corrected over this time; 0: no plan.
    pub plan_ahead_ms: u64,
    /// How long a request may wait in queues.
    pub delay_target_ms: u64,
    /// What shall be in flight; 0: as much as the link carries.
    pub fill_target_bytes: u64,
    /// Upper limit; 0: none.
    pub max_bytes_per_s: u64,
    /// The limit while clients are at work; 0: none.
    pub min_bytes_per_s: u64,
}

/// How long to wait for the peers at boot; 0: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartupOptions {
    /// Where nothing else is known.
    pub wfc_timeout_s: u64,
    /// Where this node was alone already when it went down.
    pub degr_wfc_timeout_s: u64,
    /// Where the peers are known to be outdated.
    pub outdated_wfc_timeout_s: u64,
    /// Also after a split brain.
    pub wait_after_split_brain: bool,
}

impl From<&Settings> for StartupOptions {
    fn from(settings: &Settings) -> Self {
        let number = |name| settings.number(Section::Startup, name);
        Self {
            wfc_timeout_s: number("wfc-timeout"),
            degr_wfc_timeout_s: number("degr-wfc-timeout"),
            outdated_wfc_timeout_s: number("outdated-wfc-timeout"),
            wait_after_split_brain: settings.flag(Section::Startup, "wait-after-sb"),
        }
    }
}

impl From<&Settings> for ResyncOptions {
    fn from(settings: &Settings) -> Self {
        let number = |name| settings.number(Section::Disk, name);
        Self {
            fixed_bytes_per_s: number("resync-rate") * 1024,
            plan_ahead_ms: number("c-plan-ahead") * 100,
            delay_target_ms: number("c-delay-target") * 100,
            fill_target_bytes: number("c-fill-target") * 512,
            max_bytes_per_s: number("c-max-rate") * 1024,
            min_bytes_per_s: number("c-min-rate") * 1024,
        }
    }
}

impl From<&Settings> for DiskOptions {
    fn from(settings: &Settings) -> Self {
        let on = |name| settings.flag(Section::Disk, name);
        Self {
            disk_flushes: on("disk-flushes"),
            disk_drain: on("disk-drain"),
            al_extents: settings.number(Section::Disk, "al-extents").clamp(MIN_HOT_EXTENTS, MAX_HOT_EXTENTS),
            al_updates: on("al-updates"),
            on_io_error: settings.word(Section::Disk, "on-io-error"),
            disk_timeout_ms: settings.number(Section::Disk, "disk-timeout") * 100,
            resync: settings.into(),
            // Volumes are not told apart: a resource's are resynced together.
            resync_after: settings
                .chosen(Section::Disk, "resync-after")
                .map(|name| name.split('/').next().unwrap_or_default().to_owned()),
            resync_undo: settings.chosen(Section::Disk, "resync-undo"),
            size_bytes: settings.number(Section::Disk, "size") * 512,
        }
    }
}
