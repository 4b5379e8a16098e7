//! The configuration as it was understood: what the grammar accepts, whether or not this version can run it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::effective::StartupOptions;
use crate::here;
use crate::options::{Section, Value};
use crate::settings::Settings;

/// A whole configuration: the main file and what it includes. Equal configurations mean the same, wherever it was
/// written: places and warnings play no part.
#[derive(Clone, Debug)]
pub struct Config {
    /// In the order of the files.
    pub resources: Vec<Resource>,
    /// What concerns the node.
    pub global: Global,
    /// What holds for every resource that does not say otherwise; the resources have it already.
    pub common: Settings,
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
        self.resources == other.resources && self.global == other.global && self.common == other.common
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
    /// Do not look whether a resource's address is one of this host's.
    pub disable_ip_verification: bool,
    /// How often the countdown at boot is redrawn; 0: never.
    pub dialog_refresh_s: u64,
    /// Everything that `global` and the top level set.
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
            disable_ip_verification: settings.flag(Section::Global, "disable-ip-verification"),
            dialog_refresh_s: settings.number(Section::Global, "dialog-refresh"),
            settings,
        }
    }
}

/// One replicated resource. Equal resources mean the same; `source`, `template` and `obstacles` play no part.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Letters, digits and `+_-.`.
    pub name: String,
    /// The file and the line (from 1) where the definition starts.
    pub source: (PathBuf, usize),
    /// At least one, in the order of appearance.
    pub hosts: Vec<Host>,
    /// Who is connected with whom.
    pub connections: Vec<Connection>,
    /// Every option that is set for the resource, its own or from `common`.
    pub settings: Settings,
    /// What DRBD Proxy is told.
    pub proxy: Vec<Verbatim>,
    /// The template file that it has in place of `common`, and what that sets.
    pub template: Option<(PathBuf, Settings)>,
    /// Why this version cannot run it; empty if it can.
    pub obstacles: Vec<Diagnostic>,
}

impl Resource {
    /// The options that it does not have from `common` or from its template.
    pub(crate) fn own_settings(&self, common: &Settings) -> Settings {
        self.settings.without(self.template.as_ref().map_or(common, |(_, template)| template))
    }

    /// The host that a node is.
    pub fn local(&self, node: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.is(node))
    }

    /// The other hosts.
    pub fn peers(&self, node: &str) -> Vec<&Host> {
        self.hosts.iter().filter(|host| !host.is(node)).collect()
    }

    /// The programs that are run at events, by their names.
    pub fn handlers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.settings.iter().filter_map(|(definition, value)| match value {
            Value::Text(command) if definition.home() == Section::Handlers => {
                Some((definition.name, command.as_str())).filter(|(_, command)| !command.is_empty())
            }
            _ => None,
        })
    }

    /// How many nodes a primary needs, how many of these with good data, and what becomes of requests without them, in the
    /// options' own words.
    pub fn quorum(&self) -> [String; 3] {
        ["quorum", "quorum-minimum-redundancy", "on-no-quorum"].map(|name| self.policy(name))
    }

    /// What becomes of requests while no copy of the data can be reached, in the option's own words.
    pub fn on_no_data(&self) -> String {
        self.policy("on-no-data-accessible")
    }

    fn policy(&self, name: &str) -> String {
        match self.settings.effective(Section::Options, name) {
            Some(Value::Text(word)) => word,
            Some(Value::Number(nodes)) => nodes.to_string(),
            _ => String::new(),
        }
    }

    /// How long to wait for the peers at boot.
    pub fn startup(&self) -> StartupOptions {
        StartupOptions::from(&self.settings)
    }

    /// A handler that takes longer is killed.
    pub fn handler_limit_ms(&self) -> u64 {
        self.settings.number(Section::Options, "handler-timeout") * 1000
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.hosts == other.hosts
            && self.connections == other.connections
            && self.settings == other.settings
            && self.proxy == other.proxy
    }
}

/// Names of hosts have no capitals, and one without a domain stands for one with any, as for drbdadm.
fn is_one_host(name: &str, other: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let comparable = name.contains('.') != other.contains('.');
    name.eq_ignore_ascii_case(other) || comparable && short(name) == short(other)
}

/// How a host section says which machine it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// `on NAME...`: at least one; what `uname -n` may print on this host.
    Named(Vec<String>),
    /// `floating ADDRESS`: the machine that has the address.
    Floating,
    /// `stacked-on-top-of RESOURCE`: the machine that is primary of the other resource.
    Stacked(String),
}

/// One `on`, `floating` or `stacked-on-top-of` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Which machine it is.
    pub kind: HostKind,
    /// 0 to 31: explicit, or by order of appearance.
    pub node_id: u32,
    /// Where this host listens for its peers, unless their connections say otherwise.
    pub address: Option<Address>,
    /// In the order of their numbers.
    pub volumes: Vec<Volume>,
    /// `proxy on NAME {}`.
    pub proxy: Vec<Verbatim>,
}

impl Host {
    /// Whether the host is the machine of this name.
    pub fn is(&self, node: &str) -> bool {
        match &self.kind {
            HostKind::Named(names) => names.iter().any(|name| is_one_host(name, node)),
            HostKind::Floating => {
                self.address.as_ref().is_some_and(|address| here::has_address(address.socket.ip()))
            }
            HostKind::Stacked(_) => false,
        }
    }

    /// How other sections speak of it: as for drbdadm, a floating host is its address.
    pub(crate) fn reference(&self) -> String {
        match (&self.kind, &self.address) {
            (HostKind::Floating, Some(Address { family: Family::Ipv4, socket })) => socket.to_string(),
            _ => self.name(),
        }
    }

    /// The first name, for messages and for the peers.
    pub fn name(&self) -> String {
        match (&self.kind, &self.address) {
            (HostKind::Named(names), _) => names.first().cloned().unwrap_or_default(),
            (HostKind::Stacked(lower), _) => lower.clone(),
            (HostKind::Floating, address) => address.as_ref().map(Address::to_string).unwrap_or_default(),
        }
    }
}

/// What kind of socket an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// TCP over IPv4.
    Ipv4,
    /// TCP over IPv6.
    Ipv6,
    /// The sockets of Dolphin's cards.
    Ssocks,
    /// The sockets direct protocol of InfiniBand.
    Sdp,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ipv4, Self::Ipv6, Self::Ssocks, Self::Sdp];

    /// The word of the grammar.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Ssocks => "ssocks",
            Self::Sdp => "sdp",
        }
    }
}

/// Where a host is reached. Its `Display` is what dump writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The kind of socket.
    pub family: Family,
    /// IP and port.
    pub socket: SocketAddr,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.word(), self.socket)
    }
}

/// One volume on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// 0 to 65534.
    pub number: u32,
    /// Unique on the host.
    pub minor: u32,
    /// The device that clients use.
    pub device: PathBuf,
    /// The backing device; none for `disk none` and on top of another resource.
    pub disk: Option<PathBuf>,
    /// Where its metadata lies.
    pub meta_disk: MetaDisk,
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
    /// In one of the slots of 128 MiB of a device.
    Indexed(PathBuf, u32),
}

/// Two hosts that replicate to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// It is there because the resource has two hosts; nothing was written.
    pub implicit: bool,
    /// The ways between the two hosts; at least one.
    pub paths: Vec<[PathEnd; 2]>,
    /// The options that are set for this connection alone.
    pub settings: Settings,
    /// The options that are set for one volume of this connection, by volume.
    pub volumes: Vec<(u32, Settings)>,
    /// What DRBD Proxy is told.
    pub proxy: Vec<Verbatim>,
}

/// One end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathEnd {
    /// The host's place among the resource's hosts.
    pub host: usize,
    /// Where it is reached on this path.
    pub address: Address,
    /// `via proxy on NAME {}`.
    pub via: Option<Verbatim>,
}

/// Words that are kept as they stand: what only DRBD Proxy understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbatim {
    /// At least one.
    pub words: Vec<String>,
    /// What stands between the braces, if it has any.
    pub body: Option<Vec<Verbatim>>,
}
