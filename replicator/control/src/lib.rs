//! What `tandemadm` and `tandemd` say to each other: one JSON object per line on a Unix socket, a reply to each request.

pub mod clock;
mod difference;
mod last_seen;
pub mod output;
mod path;
mod paths;
mod prepared;
mod promotion;
pub mod utc;
mod watch;

pub use difference::Difference;
pub use last_seen::LastSeen;
pub use path::PathSpec;
pub use paths::RuntimeDir;
pub use promotion::Promotion;
pub use watch::{HelperEvent, Watch};

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_core::authentication::Secret;
use tandem_core::config::Options;
use tandem_core::divergence::Divergence;
use tandem_core::handler::Handler;
use tandem_core::io::{Repair, Resize};
use tandem_core::layout::{Layout, SLOT_BYTES};
use tandem_core::metadata::{Placement, VolumeDisk};
use tandem_core::status::{PeerStatus, PeerVolumeStatus, Status, VolumeStatus};
use tandem_core::units::NodeId;
use thiserror::Error;

/// Longest request in bytes, newline included; a longer one ends the connection. A reply is as long as it must be.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// How long the daemon lets one step take, such as `secondary`; then it answers that the time is up.
pub const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Steps of `up` and `down`: secondary, disconnect, detach.
const MAX_STEPS: u32 = 3;
/// How long whoever asks for a change has to wait for the answer: longer than all its steps may take.
pub const CHANGE_LIMIT: Duration =
    STEP_LIMIT.saturating_mul(MAX_STEPS).saturating_add(Duration::from_secs(30));

/// What is asked of the daemon.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Create the resource if it is not there, attach if it is diskless, connect if it is StandAlone.
    Up {
        /// The resource as the configuration has it for this node.
        spec: ResourceSpec,
    },
    /// Create the resource, without disk and without peers: the rest comes with changes and actions.
    New {
        /// The whole resource.
        spec: Box<ResourceSpec>,
    },
    /// One more piece of a resource is known, or one less. It is made once it is whole; one that is up already is changed as far
    /// as that is possible while it is up.
    Prepare {
        /// What was known of it; nothing, if it was not there. Refused if that is not so any more.
        was: Option<Box<ResourceSpec>>,
        /// What is known of it now; nothing, if it shall be there no more.
        becomes: Option<Box<ResourceSpec>>,
    },
    /// Do one thing to a resource that is there.
    Act {
        /// The resource's name.
        resource: String,
        /// What to do.
        action: Action,
    },
    /// From now on a resource that is up is as this says; refused if that cannot be so yet.
    Change {
        /// The whole resource.
        spec: Box<ResourceSpec>,
    },
    /// Snapshots of one resource or of all.
    Status {
        /// The resource's name, or all.
        resource: Option<String>,
    },
    /// The same but for who has the devices open, which takes a search through every process of the machine.
    BriefStatus {
        /// The resource's name, or all.
        resource: Option<String>,
    },
    /// Snapshots of one resource or of all, now and whenever they change, and the handlers that are run.
    Watch {
        /// The resource's name, or all.
        resource: Option<String>,
    },
    /// What is known of copies that went on without each other.
    Divergences {
        /// The resource's name.
        resource: String,
        /// List the ranges from here on.
        from_bytes: u64,
    },
}

/// One thing to do to a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Take the configured disk into use.
    Attach,
    /// Give the disk up.
    Detach {
        /// At once, although it hangs or is the last good copy.
        force: bool,
    },
    /// Connect to the peers.
    Connect {
        /// Give this node's data up for the peer's, where they differ.
        discard_my_data: bool,
        /// Only find out what would happen: why the connection is StandAlone afterwards tells.
        tentative: bool,
    },
    /// Disconnect from the peers.
    Disconnect,
    /// The same, also from the one that has the only good data.
    ForceDisconnect,
    /// Become Primary.
    Primary {
        /// Consider the local data UpToDate.
        force: bool,
    },
    /// Become Secondary.
    Secondary {
        /// At once, although the device is open: every request fails, those under way too.
        force: bool,
    },
    /// Compare the copies.
    Verify {
        /// Only this volume, from whose beginning start and stop count.
        volume: Option<u16>,
        /// From here; if not given, from where the last one of all volumes ended early, or from the beginning.
        start_bytes: Option<u64>,
        /// To here; if not given, to the end.
        stop_bytes: Option<u64>,
        /// Resync what is found at once.
        repair: Option<Repair>,
    },
    /// Give up the local copy and have it anew from the peer.
    Invalidate {
        /// Every block, not only those that are marked.
        reset_bitmap: bool,
    },
    /// Give up the peer's copy and send it the local one.
    InvalidateRemote {
        /// Every block, not only those that are marked.
        reset_bitmap: bool,
    },
    /// Begin a new generation.
    NewCurrentUuid {
        /// Nothing counts as different.
        clear_bitmap: bool,
    },
    /// Grow the volume.
    Resize(Resize),
    /// Let resyncs wait.
    PauseSync,
    /// Let them go on.
    ResumeSync,
    /// Consider the local data old.
    Outdate,
    /// Let clients' requests wait.
    SuspendIo,
    /// Let clients' requests go on.
    ResumeIo,
    /// Secondary, disconnect, detach, forget.
    Down,
}

/// A resource as the configuration has it for this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// Its name.
    pub name: String,
    /// This node.
    pub node: NodeSpec,
    /// The other nodes.
    pub peers: Vec<NodeSpec>,
    /// The ways to them; a peer without any is not reached.
    #[serde(default)]
    pub paths: Vec<PathSpec>,
    /// Its first volume; the metadata of all lies on this one's meta-disk.
    pub volume: VolumeSpec,
    /// The others, by ascending number.
    #[serde(default)]
    pub more_volumes: Vec<VolumeSpec>,
    /// The file for undo logs, if they are to be kept.
    pub undo_log: Option<PathBuf>,
    /// What the engine is told.
    pub options: Options,
    /// The administrator's programs.
    pub handlers: HandlersSpec,
    /// The resource whose resync comes first.
    pub resync_after: Option<String>,
    /// Longest pause between attempts to connect.
    pub connect_interval_ms: u64,
    /// TCP address on which the daemon also offers its exports.
    pub nbd_listen: Option<SocketAddr>,
    /// The block device of the Primary.
    pub block_device: BlockDeviceSpec,
}

/// How the block device of a Primary is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockDeviceSpec {
    /// With what.
    pub driver: DeviceDriver,
    /// How long requests wait for a daemon that has gone, until all fail; 0: for ever.
    pub away_limit_ms: u64,
}

impl DeviceDriver {
    /// All of them, with the configuration's words.
    const WORDS: [(DeviceDriver, &str); 4] =
        [(Self::Auto, "auto"), (Self::Nbd, "nbd"), (Self::Fuse, "fuse"), (Self::None, "none")];

    /// The configuration's word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(driver, _)| *driver == self).map_or("", |(_, word)| word)
    }

    /// What the configuration's word means.
    pub fn from_word(word: &str) -> Option<DeviceDriver> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(driver, _)| *driver)
    }
}

/// What makes a block device of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceDriver {
    /// The best that this machine has.
    Auto,
    /// The kernel's NBD driver.
    Nbd,
    /// A FUSE file and a loop device.
    Fuse,
    /// Nothing: clients speak NBD.
    None,
}

/// The programs that are run at events.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandlersSpec {
    /// Command lines for the shell.
    pub commands: BTreeMap<Handler, String>,
    /// A handler that takes longer is killed.
    pub limit_ms: u64,
    /// The configuration file, for the handlers.
    pub config_file: PathBuf,
}

/// A node of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
}

/// A volume on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its number within the resource.
    pub number: u16,
    /// Its device minor.
    pub minor: u32,
    /// Its device name, such as `/dev/drbd0`.
    pub device: PathBuf,
    /// The backing device or file.
    pub disk: PathBuf,
    /// The metadata's device or file; `None` when internal.
    pub meta_disk: Option<PathBuf>,
    /// Use only this much of the disk.
    pub size_bytes: Option<u64>,
}

impl Request {
    /// What it says of a resource, as it was and as it shall be.
    pub fn specs_mut(&mut self) -> Vec<&mut ResourceSpec> {
        match self {
            Request::Up { spec } => vec![spec],
            Request::New { spec } | Request::Change { spec } => vec![spec.as_mut()],
            Request::Prepare { was, becomes } => {
                [was, becomes].into_iter().flatten().map(AsMut::as_mut).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl ResourceSpec {
    /// Makes it fit to be shown.
    pub fn hide_secrets(&mut self) {
        if let Some(authentication) = &mut self.options.authentication {
            authentication.secret = Secret::new("(not shown)");
        }
    }

    /// All volumes, by ascending number.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeSpec> {
        std::iter::once(&self.volume).filter(|volume| !volume.is_absent()).chain(&self.more_volumes)
    }

    /// The NBD export of a volume: the resource's name, and the volume's number if there are several.
    pub fn export_name(&self, volume: &VolumeSpec) -> String {
        match self.more_volumes.is_empty() {
            true => self.name.clone(),
            false => format!("{}/{}", self.name, volume.number),
        }
    }
}

impl VolumeSpec {
    /// Its disk, of this size, as the metadata's layout sees it.
    pub fn with_disk_of(&self, backing_bytes: u64) -> VolumeDisk {
        let placement = if self.meta_disk.is_some() { Placement::External } else { Placement::Internal };
        VolumeDisk { number: self.number, placement, backing_bytes, size_bytes: self.size_bytes }
    }
}

/// The daemon's answer.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// 0, or the exit code that the command line ends with.
    pub exit_code: u8,
    /// What went wrong, as DRBD words it: `r0: State change failed: (-2) Need access to UpToDate data`.
    pub error: Option<String>,
    /// What the operator needs to know besides.
    pub detail: Vec<String>,
    /// The snapshots asked for.
    pub status: Vec<ResourceStatus>,
    /// Resources that are down now, if they are watched. Of those whose state is not in the reply, nothing has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// Handlers that were started or have ended, if they are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<HelperEvent>,
    /// One entry per peer, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divergences: Vec<Divergence>,
}

/// A resource's snapshot with what the daemon knows of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// As it was brought up, or changed since.
    pub spec: ResourceSpec,
    /// What the engine says.
    pub engine: Status,
    /// The paths that connections go over.
    #[serde(default)]
    pub used_paths: Vec<PathSpec>,
    /// What the disk was given up for, or what the last attempt to attach it met with.
    #[serde(default)]
    pub disk_failure: Option<String>,
}

impl ResourceStatus {
    /// Each volume as it was brought up, with what is known of it; of several that were never attached that is nothing.
    pub fn volumes(&self) -> Vec<(&VolumeSpec, VolumeStatus)> {
        let engine = &self.engine;
        let single = || VolumeStatus {
            size_bytes: engine.size_bytes,
            disk_read_bytes: engine.disk_read_bytes,
            disk_written_bytes: engine.disk_written_bytes,
            local_pending: engine.local_pending,
            client_pending: engine.client_pending,
            openers: engine.openers.clone(),
        };
        match self.spec.more_volumes.is_empty() {
            true => self.spec.volumes().map(|volume| (volume, single())).collect(),
            false => self.spec.volumes().zip(padded(&engine.volumes)).collect(),
        }
    }

    /// Where the volumes lie in the resource's space of blocks.
    pub fn layout(&self) -> Layout {
        // While sizes are not known there is none.
        Layout::of_pieces(self.engine.pieces.clone(), SLOT_BYTES).unwrap_or_default()
    }

    /// Each volume as it was brought up, with what is known of it on a peer.
    pub fn peer_volumes(&self, peer: &PeerStatus) -> Vec<(&VolumeSpec, PeerVolumeStatus)> {
        let single = || PeerVolumeStatus {
            sent_bytes: peer.sent_bytes,
            received_bytes: peer.received_bytes,
            pending: peer.pending,
            unacked: peer.unacked,
            out_of_sync_bytes: peer.out_of_sync_bytes,
            resync: peer.resync,
        };
        match self.spec.more_volumes.is_empty() {
            true => self.spec.volumes().map(|volume| (volume, single())).collect(),
            false => self.spec.volumes().zip(padded(&peer.volumes)).collect(),
        }
    }
}

fn padded<T: Clone + Default>(known: &[T]) -> impl Iterator<Item = T> {
    known.iter().cloned().chain(std::iter::repeat_with(T::default))
}

/// Why the daemon could not be asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("tandemd is not running (no answer on {0}); start it with 'tandemadm up'")]
    NotRunning(PathBuf),
    /// The conversation broke.
    #[error("talking to tandemd on {path}: {}", reason(source))]
    Io {
        /// The control socket.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// It listens and says nothing.
    #[error("tandemd does not answer on {0} within {secs} s: it hangs, or is stopped; look at its log", secs = .1.as_secs())]
    Mute(PathBuf, Duration),
    /// It hung up.
    #[error(
        "tandemd ended the conversation on {0} without an answer: it is stopping, or too many ask it at once; look at \
         its log"
    )]
    NoReply(PathBuf),
    /// The reply made no sense.
    #[error(
        "tandemd's reply on {0} was not understood: {1}; tandemadm and tandemd must be of the same release"
    )]
    Reply(PathBuf, String),
}

/// What the system said, and what to do where that is the same whatever was tried.
pub fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => format!("{error}; run it as root"),
        _ => error.to_string(),
    }
}

/// Asks the daemon one thing. `timeout` bounds the wait for its reply.
pub fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ClientError> {
    let io = |source: std::io::Error| match source.kind() {
        // It hung up on what we said.
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ClientError::NoReply(socket.to_owned()),
        ErrorKind::WouldBlock => ClientError::Mute(socket.to_owned(), timeout),
        _ => ClientError::Io { path: socket.to_owned(), source },
    };
    let mut stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(socket.to_owned()),
        _ => io(e),
    })?;
    stream.set_read_timeout(Some(timeout)).map_err(io)?;
    let mut line =
        serde_json::to_vec(request).map_err(|e| ClientError::Reply(socket.to_owned(), e.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(io)?;
    if reply.is_empty() {
        return Err(ClientError::NoReply(socket.to_owned()));
    }
    serde_json::from_str(&reply).map_err(|e| ClientError::Reply(socket.to_owned(), e.to_string()))
}
