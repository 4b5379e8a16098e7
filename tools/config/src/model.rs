//! The checked configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::options::{self, OPTIONS, OptionDef, Section, Value};

/// A whole configuration: the main file and what it includes. Equal configurations mean the same, wherever it was
/// written: places and warnings play no part.
#[derive(Clone, Debug)]
pub struct Config {
    /// In the order of the files.
    pub resources: Vec<Resource>,
    /// What concerns the node.
    pub global: Global,
    /// What was accepted but has no effect.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// The resources that have `node` as a host.
    pub fn for_node(&self, node: &str) -> Vec<&Resource> {
        self.resources.iter().filter(|resource| resource.local(node).is_some()).collect()
    }

    /// One resource that has `node` as a host.
    pub fn resource_for_node(&self, name: &str, node: &str) -> Result<&Resource, NotDefined> {
        self.resources
            .iter()
            .find(|resource| resource.name == name && resource.local(node).is_some())
            .ok_or_else(|| NotDefined { name: name.to_owned() })
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources && self.global == other.global
    }
}

/// A resource is not in the configuration, or not with this host. DRBD's tools exit with 1 then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' not defined in your config (for this host).")]
pub struct NotDefined {
    /// The name that was asked for.
    pub name: String,
}

/// What concerns the node rather than a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Where devices are exported over NBD with TCP.
    pub nbd_listen: Option<SocketAddr>,
    /// What makes the block device of a primary, in the option's own words.
    pub device_driver: String,
    /// How long requests to it wait for a daemon that has gone; 0: for ever.
    pub device_timeout_ms: u64,
    /// Everything that `global` sets.
    pub settings: Settings,
}

impl Global {
    pub(crate) fn new(settings: Settings) -> Self {
        let nbd_listen = match settings.get(Section::Global, "nbd-listen") {
            Some(Value::Address(address)) => Some(*address),
            _ => None,
        };
        Self {
            nbd_listen,
            device_driver: settings.word(Section::Global, "device-driver"),
            device_timeout_ms: settings.number(Section::Global, "device-timeout") * 1000,
            settings,
        }
    }
}

/// One replicated resource. Equal resources mean the same; `source` plays no part.
#[derive(Clone, Debug, Eq)]
pub struct Resource {
    /// Letters, digits and `+_-.`.
    pub name: String,
    /// The file and the line (from 1) where the definition starts.
    pub source: (PathBuf, usize),
    /// Two hosts in this version, in the order of appearance.
    pub hosts: Vec<Host>,
    /// How the hosts are connected.
    pub net: NetOptions,
    /// Every option that is set for the resource, its own or from `common`.
    pub settings: Settings,
}

impl Resource {
    /// The host that a node is.
    pub fn local(&self, node: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.is(node))
    }

    /// The programs that are run at events, by their names.
    pub fn handlers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.settings.iter().filter_map(|(definition, value)| match value {
            Value::Text(command) if definition.home() == Section::Handlers => {
                Some((definition.name, command.as_str()))
            }
            _ => None,
        })
    }

    /// The file for undo logs of resyncs.
    pub fn resync_undo(&self) -> Option<&str> {
        match self.settings.get(Section::Disk, "resync-undo") {
            Some(Value::Text(path)) => Some(path),
            _ => None,
        }
    }

    /// The resource whose resync comes first. Volumes are not told apart: there is one.
    pub fn resync_after(&self) -> Option<&str> {
        match self.settings.get(Section::Disk, "resync-after") {
            Some(Value::Text(name)) => Some(name.split('/').next().unwrap_or(name)),
            _ => None,
        }
    }

    /// A handler that takes longer is killed.
    pub fn handler_limit_ms(&self) -> u64 {
        self.settings.number(Section::Options, "handler-timeout") * 1000
    }

    /// The other hosts.
    pub fn peers(&self, node: &str) -> Vec<&Host> {
        self.hosts.iter().filter(|host| !host.is(node)).collect()
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.hosts == other.hosts && self.settings == other.settings
    }
}

/// One `on` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// At least one; what `uname -n` may print on this host.
    pub names: Vec<String>,
    /// 0 to 31: explicit, or by order of appearance.
    pub node_id: u32,
    /// Where this host listens for its peer.
    pub address: SocketAddr,
    /// One in this version.
    pub volumes: Vec<Volume>,
}

impl Host {
    /// Whether the host has this name.
    pub fn is(&self, node: &str) -> bool {
        self.names.iter().any(|name| name == node)
    }

    /// The first name, for messages.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// One volume on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// 0 in this version.
    pub number: u32,
    /// Unique on the host.
    pub minor: u32,
    /// The device that clients use.
    pub device: PathBuf,
    /// The backing device.
    pub disk: PathBuf,
    /// Where its metadata lies.
    pub meta_disk: MetaDisk,
    /// What holds for this volume on this host, inherited options included.
    pub disk_options: DiskOptions,
    /// The disk options that are set for this volume or host alone.
    pub settings: Settings,
}

/// Where the metadata of a volume lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaDisk {
    /// At the end of the backing device.
    Internal,
    /// On a device of its own.
    External(PathBuf),
}

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
            protocol: match settings.effective(Section::Net, "protocol") {
                Some(Value::Text(word)) if word == "A" => Protocol::A,
                Some(Value::Text(word)) if word == "B" => Protocol::B,
                _ => Protocol::C,
            },
            timeout_ms: number("timeout") * 100,
            ping_interval_ms: number("ping-int") * 1000,
            ping_timeout_ms: number("ping-timeout") * 100,
            connect_interval_ms: number("connect-int") * 1000,
            ko_count: number("ko-count"),
            max_epoch_size: number("max-epoch-size"),
            send_buffer_bytes: number("sndbuf-size"),
            on_congestion: match settings.effective(Section::Net, "on-congestion") {
                Some(Value::Text(word)) if word == "pull-ahead" => OnCongestion::PullAhead,
                Some(Value::Text(word)) if word == "disconnect" => OnCongestion::Disconnect,
                _ => OnCongestion::Block,
            },
            congestion_fill_bytes: number("congestion-fill") * 512,
            congestion_extents: number("congestion-extents"),
            after_split_brain: ["after-sb-0pri", "after-sb-1pri", "after-sb-2pri"].map(word),
            always_after_split_brain: settings.effective(Section::Net, "always-asbp")
                == Some(Value::Flag(true)),
            rr_conflict: word("rr-conflict"),
            csums_algorithm: match settings.effective(Section::Net, "csums-alg") {
                Some(Value::Text(word)) if word != "none" => Some(word),
                _ => None,
            },
            csums_after_crash_only: settings.effective(Section::Net, "csums-after-crash-only")
                == Some(Value::Flag(true)),
            fencing: match settings.effective(Section::Net, "fencing") {
                Some(Value::Text(word)) if word == "resource-only" => Fencing::ResourceOnly,
                Some(Value::Text(word)) if word == "resource-and-stonith" => Fencing::ResourceAndStonith,
                _ => Fencing::DontCare,
            },
            verify_algorithm: match settings.effective(Section::Net, "verify-alg") {
                Some(Value::Text(word)) if word != "none" => Some(word),
                _ => None,
            },
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
        let on = |name| settings.effective(Section::Disk, name) != Some(Value::Flag(false));
        Self {
            disk_flushes: on("disk-flushes"),
            disk_drain: on("disk-drain"),
            al_extents: settings.number(Section::Disk, "al-extents"),
            al_updates: on("al-updates"),
            on_io_error: settings.word(Section::Disk, "on-io-error"),
            disk_timeout_ms: settings.number(Section::Disk, "disk-timeout") * 100,
            resync: settings.into(),
        }
    }
}

/// Options that are set, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<usize, Value>);

impl Settings {
    /// The value of an option, if it is set.
    pub fn get(&self, section: Section, name: &str) -> Option<&Value> {
        options::find(section, name).and_then(|(index, _)| self.0.get(&index))
    }

    /// The value of an option, or its default if it has one.
    pub fn effective(&self, section: Section, name: &str) -> Option<Value> {
        let (index, definition) = options::find(section, name)?;
        self.0.get(&index).cloned().or_else(|| definition.kind.default_value())
    }

    /// All options that are set, with their definitions.
    pub fn iter(&self) -> impl Iterator<Item = (&'static OptionDef, &Value)> {
        self.0.iter().filter_map(|(&index, value)| OPTIONS.get(index).map(|definition| (definition, value)))
    }

    /// The word, or the first of its choices, that an option of the table has.
    fn word(&self, section: Section, name: &str) -> String {
        match self.effective(section, name) {
            Some(Value::Text(word)) => word,
            _ => String::new(),
        }
    }

    /// The value or default of a numeric option of the table, in its unit.
    fn number(&self, section: Section, name: &str) -> u64 {
        match self.effective(section, name) {
            Some(Value::Number(number)) => number,
            other => {
                debug_assert!(false, "{name} is not a number of the table: {other:?}");
                0
            }
        }
    }
}

impl FromIterator<(usize, Value)> for Settings {
    fn from_iter<I: IntoIterator<Item = (usize, Value)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
