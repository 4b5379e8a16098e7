//! Why a command was refused: DRBD's numbers, texts and exit codes.

use thiserror::Error;

/// A refused state change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
#[error("State change failed: ({}) {}", self.number(), self.text())]
#[repr(i8)]
pub enum StateChangeRefusal {
    /// A peer is Primary.
    TwoPrimaries = -1,
    /// No UpToDate disk can be reached.
    NoUpToDateDisk = -2,
    /// The peer has no disk.
    NoRemoteDisk = -5,
    /// A resync or verify is under way.
    ResyncRunning = -8,
    /// A connected node knows better what its data is worth.
    OutdateConnected = -6,
    /// A peer that is not connected may have other data.
    PeerNotOutdated = -7,
    /// A peer said no.
    PeerRefused = -10,
    /// The operation needs a disk.
    Diskless = -11,
    /// A client holds the device open.
    HeldOpen = -12,
    /// No peer is configured.
    NoNetConfig = -13,
    /// No digest is configured for a verify.
    NoVerifyAlgorithm = -14,
    /// No peer is connected.
    NeedConnection = -15,
    /// The disk is not even Outdated.
    LowerThanOutdated = -16,
    /// Another change is under way.
    InTransientState = -18,
    /// The peer or the disk did not answer in time.
    Timeout = -23,
    /// Too few nodes can be reached.
    NoQuorum = -25,
}

impl StateChangeRefusal {
    /// DRBD's number of this refusal.
    pub const fn number(self) -> i8 {
        self as i8
    }

    /// DRBD's text of this refusal.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TwoPrimaries => "Multiple primaries not allowed by config",
            Self::NoUpToDateDisk => "Need access to UpToDate data",
            Self::NoRemoteDisk => "Can not resync without remote disk",
            Self::ResyncRunning => "Can not start OV/resync since it is already active",
            Self::OutdateConnected => "Refusing to be Outdated while Connected",
            Self::PeerNotOutdated => "Refusing to be Primary while peer is not outdated",
            Self::PeerRefused => "State change was refused by peer node",
            Self::Diskless => "Device is diskless, the requested operation requires a disk",
            Self::HeldOpen => "Device is held open by someone",
            Self::NoNetConfig => "Have no net/connection configuration",
            Self::NoVerifyAlgorithm => "Need a verify algorithm to start online verify",
            Self::NeedConnection => "State change requires a connection",
            Self::LowerThanOutdated => "Disk state is lower than outdated",
            Self::InTransientState => "In transient state, retry after next state change",
            Self::Timeout => "Timeout in operation",
            Self::NoQuorum => "No quorum",
        }
    }

    /// The exit code of the command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NoUpToDateDisk => 17,
            Self::LowerThanOutdated => 5,
            _ => 11,
        }
    }
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CommandError {
    /// The state machine refused.
    #[error("{refusal}")]
    Refused {
        /// Which rule.
        refusal: StateChangeRefusal,
        /// What the operator needs to know besides: who holds the device open, which peer is Primary.
        detail: Vec<String>,
    },
    /// A failure that is no state change: DRBD's number from 101 up, and its text.
    #[error("Failure: ({number}) {text}")]
    Failure {
        /// DRBD's number.
        number: u16,
        /// DRBD's text.
        text: &'static str,
        /// What the operator needs to know besides.
        detail: Vec<String>,
    },
}

impl CommandError {
    /// The exit code of the command line.
    pub const fn exit_code(&self) -> u8 {
        match self {
            CommandError::Refused { refusal, .. } => refusal.exit_code(),
            CommandError::Failure { .. } => 10,
        }
    }

    /// Lines that explain the refusal.
    pub fn detail(&self) -> &[String] {
        match self {
            CommandError::Refused { detail, .. } | CommandError::Failure { detail, .. } => detail,
        }
    }
}

impl From<StateChangeRefusal> for CommandError {
    fn from(refusal: StateChangeRefusal) -> Self {
        CommandError::Refused { refusal, detail: Vec::new() }
    }
}

/// The disk failed where the metadata is.
pub const METADATA_IO_ERROR: (u16, &str) = (118, "IO error(s) occurred during initial access to meta-data.");
/// The metadata has no room for what the configuration asks for.
pub const INVALID_REQUEST: (u16, &str) = (162, "Invalid configuration request");
/// `attach` of a disk that is smaller than the volume that clients use.
pub const DISK_TOO_SMALL: (u16, &str) = (111, "Low.dev. smaller than requested DRBD-dev. size.");
/// `attach` to a Primary that works through no peer.
pub const DATA_NOT_CURRENT: (u16, &str) = (150, "Can only attach to the data we lost last (see kernel log).");
/// `attach` of a volume that has a disk.
pub const HAS_DISK: (u16, &str) = (124, "Device is attached to a disk (use detach first)");
/// `connect --discard-my-data` on a Primary.
pub const DISCARD_ON_PRIMARY: (u16, &str) = (123, "--discard-my-data not allowed when primary.");
/// `connect` of a peer that is connected or connecting.
pub const HAS_NET: (u16, &str) = (125, "Device has a net-config (use disconnect first)");
/// A command that needs a disk, on a volume without.
pub const NO_DISK: (u16, &str) = (138, "Device does not have a disk-config");
/// `new-current-uuid` while the peer is there, or may come.
pub const NEED_STANDALONE: (u16, &str) = (151, "Need to be StandAlone");
/// Requests cannot wait for a peer to be fenced that completed before it had them.
pub const STONITH_NEEDS_B_OR_C: (u16, &str) =
    (154, "Fencing policy resource-and-stonith only with prot B or C allowed");
/// Only with protocol A do writes go on without the peer.
pub const AHEAD_NEEDS_A: (u16, &str) = (155, "on-congestion policy pull-ahead only with prot A allowed");
/// A target asks by the digest that the resync began with.
pub const CSUMS_IN_USE: (u16, &str) = (148, "Can not change csums-alg while resync is in progress");
/// Both sides compare by the digest that the verify began with.
pub const VERIFY_IN_USE: (u16, &str) = (149, "Can not change verify-alg while online verify runs");
/// `resize` while the copies are compared, or one is being sent.
pub const RESIZE_DURING_RESYNC: (u16, &str) = (130, "Resize not allowed during resync.");
/// `resize` while no node's data is in use.
pub const NEED_PRIMARY: (u16, &str) = (131, "Need one Primary node to resize.");
/// `resize` to less than there is.
pub const SHRINKS: (u16, &str) = (170, "Implicit device shrinking not allowed. See kernel log.");
/// A volume is to go that has its disk.
pub const MINOR_CONFIGURED: (u16, &str) = (160, "Minor still configured (down it first)");
/// What is to be made is there.
pub const ALREADY_EXISTS: (u16, &str) = (174, "Already exists");
/// `pause-sync` twice.
pub const PAUSE_IS_SET: (u16, &str) = (134, "Sync-pause flag is already set");
/// `resume-sync` without a pause.
pub const PAUSE_IS_CLEAR: (u16, &str) = (135, "Sync-pause flag is already cleared");
/// `resume-sync` while another resource comes first.
pub const PAUSE_IS_DEPENDENCY: (u16, &str) = (
    156,
    "Sync-pause flag is already cleared. Note: Resync pause caused by a local resync-after dependency.",
);
/// `resume-sync` while the peer pauses.
pub const PAUSE_IS_PEERS: (u16, &str) =
    (157, "Sync-pause flag is already cleared. Note: Resync pause caused by the peer node.");
