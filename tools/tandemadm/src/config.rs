//! From the configuration to what the daemon is told of a resource on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_config::language::nearest;
use tandem_config::{
    CannotRun, ConfigError, Diagnostic, DiskOptions, Fencing, Global, Host, MetaDisk, NetOptions,
    OnCongestion, Pair, Protocol, Resource, Section, Sources, Stage, StartupOptions, Value, Volume,
};
use tandem_control::{
    BlockDeviceSpec, DeviceDriver, HandlersSpec, NodeSpec, PathSpec, ResourceSpec, VolumeSpec,
};
use tandem_core::authentication::{Authentication, HmacAlgorithm, Secret};
use tandem_core::config::{
    self, CongestionOptions, OnIoError, OnNoData, Options, ResyncOptions, RrConflict, WriteOrdering,
};
use tandem_core::digest::DigestAlgorithm;
use tandem_core::handler::Handler;
use tandem_core::split_brain::{AfterSplitBrain, NoPrimary, OnePrimary, TwoPrimaries};
use tandem_core::units::NodeId;

use crate::address::Address;
use crate::commands::Local;
use crate::failure::Failure;
use crate::output::errln;
use crate::quorum;

/// The word that stands for every resource.
const ALL: &str = "all";
/// So many names are listed where one is wrong.
const MOST_NAMES: usize = 10;

/// Stands for the standard input where a file is named.
const STDIN: &str = "-";

/// Which files the command line names.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The main one; none for the default one, `-` for the standard input.
    pub main: Option<PathBuf>,
    /// One that is checked as if it belonged to it.
    pub to_test: Option<PathBuf>,
    /// One that is left out where it is included.
    pub to_exclude: Option<PathBuf>,
}

/// A valid configuration, seen from one node.
#[derive(Debug)]
pub struct Config {
    config: tandem_config::Config,
    file: PathBuf,
    node: String,
}

impl Config {
    /// Reads the files, as the node that the environment or the host's name says.
    pub fn load(files: &Files) -> Result<Config, Failure> {
        let main = files.main.as_deref().unwrap_or(Path::new(tandem_config::DEFAULT_PATH));
        let from_stdin = main == Path::new(STDIN);
        let path = if from_stdin { Path::new("STDIN") } else { main };
        let text = from_stdin.then(read_stdin).transpose()?;
        let config = tandem_config::Config::load_all(Sources {
            path,
            text: text.as_deref(),
            more: files.to_test.as_deref(),
            excluded: files.to_exclude.as_deref(),
        })
        .map_err(|error| failure(&error))?;
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Config { config, file, node: tandem_config::node_name() })
    }

    /// A text as if it were the file `path`, as `node` sees it.
    pub fn parse(path: &Path, text: &str, node: &str) -> Result<Config, Failure> {
        let config = tandem_config::Config::parse(path, text).map_err(|error| failure(&error))?;
        Ok(Config { config, file: path.to_owned(), node: node.to_owned() })
    }

    /// What was accepted but has no effect, for the operator.
    pub fn print_warnings(&self) {
        self.config.warnings.iter().for_each(|warning| errln!("{warning}\n"));
    }

    /// The same.
    pub fn into_warnings(self) -> Vec<Diagnostic> {
        self.config.warnings
    }

    /// The names of this node's resources.
    pub fn names(&self) -> Vec<String> {
        self.config.for_node(&self.node).into_iter().map(|resource| resource.name.clone()).collect()
    }

    /// This node has the resource.
    pub fn require(&self, name: &str) -> Result<(), Failure> {
        let is_here = self.names().iter().any(|known| known == name);
        if is_here { Ok(()) } else { Err(self.not_defined(name)) }
    }

    /// The resources named, or all of this node's that this version can run, in the order of the configuration.
    pub fn specs(&self, names: &[String]) -> Result<Vec<ResourceSpec>, Failure> {
        let mut chosen = self.choose(names)?;
        match chosen.is_empty() {
            true if self.config.resources.is_empty() => errln!("no resources defined!"),
            true => errln!("{}", Failure::NoResources(self.node.clone())),
            false => {}
        }
        if says_all(names) {
            chosen.retain(|resource| resource.runnable().is_ok());
        }
        chosen.into_iter().map(|resource| self.spec(resource)).collect()
    }

    /// The resources named, each with its volume's number where one of several is named.
    pub fn specs_with_volume(&self, names: &[String]) -> Result<Vec<(ResourceSpec, Option<u16>)>, Failure> {
        if self.is_all(names)? {
            return Ok(self.specs(names)?.into_iter().map(|spec| (spec, None)).collect());
        }
        let named = |local: Local<'_>| {
            let one = local.volumes.first().filter(|_| local.volumes.len() < local.host.volumes.len());
            let number = one.map(|volume| narrow("volume", volume.number)).transpose()?;
            Ok((self.spec(local.resource)?, number))
        };
        self.locals(names)?.into_iter().map(named).collect()
    }

    /// Why some of all resources are left out.
    pub fn left_out(&self, names: &[String]) -> Vec<Failure> {
        let all = self.config.for_node(&self.node);
        let errors = all.iter().filter(|_| says_all(names)).filter_map(|resource| resource.runnable().err());
        errors.map(|error| failure(&error)).collect()
    }

    /// Says which resources listen at an address that this host does not have, or not yet. They wait for it.
    pub fn print_missing_addresses(&self, specs: &[ResourceSpec]) {
        self.missing_addresses(specs).iter().for_each(|warning| errln!("{warning}\n"));
    }

    fn missing_addresses(&self, specs: &[ResourceSpec]) -> Vec<String> {
        let checked = specs.iter().filter(|_| !self.config.global.disable_ip_verification);
        let of_spec = |spec: &ResourceSpec| {
            let addresses: BTreeSet<IpAddr> = spec.own_addresses().iter().map(SocketAddr::ip).collect();
            let missing = addresses.into_iter().filter(|address| !tandem_config::has_address(*address));
            let warning = |address| {
                format!(
                    "warning: in resource {}, on {}: IP {address} not found on this host. It listens as soon as it is \
                     there; if that is meant, write `global {{ disable-ip-verification; }}`",
                    spec.name, spec.node.name,
                )
            };
            missing.map(warning).collect::<Vec<_>>()
        };
        checked.flat_map(of_spec).collect()
    }

    /// The resources named, or the whole configuration, as it was understood.
    pub fn dump(&self, names: &[String]) -> Result<String, Failure> {
        if self.is_all(names)? {
            return Ok(self.config.dump(&self.node));
        }
        let chosen = self.choose(names)?;
        Ok(chosen
            .into_iter()
            .map(|resource| self.config.dump_resource(resource, &self.node))
            .collect::<Vec<_>>()
            .join("\n"))
    }

    /// The same as XML, with drbdadm's elements.
    pub fn dump_xml(&self, names: &[String]) -> Result<String, Failure> {
        if self.is_all(names)? {
            return Ok(self.config.dump_xml(&self.file.display().to_string()));
        }
        Ok(self.choose(names)?.into_iter().map(|resource| self.config.dump_xml_resource(resource)).collect())
    }

    /// How long to wait for a resource's peers at boot.
    pub fn startup(&self, name: &str) -> Option<StartupOptions> {
        Some(self.config.resource_for_node(name, &self.node).ok()?.startup())
    }

    /// How often the countdown at boot is redrawn.
    pub fn dialog_refresh(&self) -> Duration {
        Duration::from_secs(self.config.global.dialog_refresh_s)
    }

    /// What the configuration says of the number of devices.
    pub fn minor_count(&self) -> Option<u64> {
        match self.config.global.settings.get(Section::Global, "minor-count") {
            Some(Value::Number(count)) => Some(*count),
            _ => None,
        }
    }

    /// The resources, named in any way or `all`, as this node has them, in the order of the names.
    pub(crate) fn locals(&self, names: &[String]) -> Result<Vec<Local<'_>>, Failure> {
        let all = || self.config.for_node(&self.node);
        if self.is_all(names)? {
            let locals =
                all().into_iter().map(|resource| self.local(resource)).collect::<Result<Vec<_>, _>>()?;
            return if locals.is_empty() { Err(Failure::NoResources(self.node.clone())) } else { Ok(locals) };
        }
        let mut found = Vec::new();
        for name in names {
            let unknown = || self.not_defined(name);
            if let Some(minor) = name.strip_prefix("minor-").and_then(|digits| digits.parse::<u32>().ok()) {
                let locals = self.locals(&[])?;
                let with = locals.into_iter().find(|local| local.volumes.iter().any(|v| v.minor == minor));
                let mut local = with.ok_or_else(unknown)?;
                local.volumes.retain(|volume| volume.minor == minor);
                found.push(local);
                continue;
            }
            let address = Address::parse(name);
            let resource = all().into_iter().find(|one| one.name == address.resource).ok_or_else(unknown)?;
            if let Some(peer) = address.peer
                && !resource.peers(&self.node).iter().any(|host| host.is(peer) || host.name() == peer)
            {
                let peers: Vec<String> = resource.peers(&self.node).iter().map(|host| host.name()).collect();
                let peers = format!("; the peers of {} are: {}", resource.name, peers.join(", "));
                return Err(Failure::NoConnection(name.clone(), peers));
            }
            let mut local = self.local(resource)?;
            if let Some(number) = address.volume {
                local.volumes.retain(|volume| volume.number.to_string() == number);
                if local.volumes.is_empty() {
                    return Err(Failure::NoVolume(resource.name.clone(), number.to_owned()));
                }
            }
            found.push(local);
        }
        Ok(found)
    }

    /// All resources are meant; what is named besides must be one of them.
    fn is_all(&self, names: &[String]) -> Result<bool, Failure> {
        let others: Vec<String> = names.iter().filter(|name| *name != ALL).cloned().collect();
        if says_all(names) && !others.is_empty() {
            self.locals(&others)?;
        }
        Ok(says_all(names))
    }

    /// What is not there, and what is, as long as that can be taken in.
    fn not_defined(&self, name: &str) -> Failure {
        let names = self.names();
        let known = match names.as_slice() {
            [] => format!("\nNo resource has an `on` section for {}.", self.node),
            names if names.len() <= MOST_NAMES => format!("\nThis node has: {}.", names.join(", ")),
            names => match nearest(name, names.iter().map(String::as_str)) {
                Some(near) => format!("\nDid you mean '{near}'?"),
                None => String::new(),
            },
        };
        Failure::NotDefined(name.to_owned(), known)
    }

    fn local<'a>(&self, resource: &'a Resource) -> Result<Local<'a>, Failure> {
        let not_here = || self.not_defined(&resource.name);
        let host = resource.local(&self.node).ok_or_else(not_here)?;
        Ok(Local { resource, host, volumes: host.volumes.iter().collect() })
    }

    fn spec(&self, resource: &Resource) -> Result<ResourceSpec, Failure> {
        let pair = resource.pair(&self.node).map_err(|error| match error {
            CannotRun::NotDefined(_) => self.not_defined(&resource.name),
            CannotRun::NotSupported(error) => failure(&error),
        })?;
        let (net, disk) = (pair.net(), pair.disk_of_all());
        let peer = node_spec(pair.peer)?;
        Ok(ResourceSpec {
            name: resource.name.clone(),
            node: node_spec(pair.local)?,
            paths: pair.paths().map(|[local, remote]| PathSpec { peer: peer.id, local, remote }).collect(),
            peers: vec![peer],
            volume: volume_spec(pair.volume, &disk)?,
            more_volumes: more_volumes(&pair)?,
            undo_log: disk.resync_undo.as_ref().map(PathBuf::from),
            options: options(&net, &disk, &pair, resource)?,
            handlers: HandlersSpec {
                commands: handlers(resource),
                limit_ms: resource.handler_limit_ms(),
                config_file: self.file.clone(),
            },
            // Its volumes have one resync: none of them waits for another one.
            resync_after: disk.resync_after.filter(|after| *after != resource.name),
            connect_interval_ms: net.connect_interval_ms,
            nbd_listen: self.config.global.nbd_listen,
            block_device: block_device(&self.config.global),
        })
    }

    /// Whole resources. A volume's name stands for its resource if that has no other.
    fn choose(&self, names: &[String]) -> Result<Vec<&Resource>, Failure> {
        let mut resources = self.config.for_node(&self.node);
        if self.is_all(names)? {
            return Ok(resources);
        }
        let chosen = self.locals(names)?;
        let in_part = |local: &&Local<'_>| local.volumes.len() < local.host.volumes.len();
        if let Some(local) = chosen.iter().find(in_part) {
            return Err(Failure::AllVolumes(local.resource.name.clone()));
        }
        resources.retain(|resource| chosen.iter().any(|local| local.resource.name == resource.name));
        Ok(resources)
    }
}

fn says_all(names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|name| name == ALL)
}

fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Failure::System("reading the standard input", e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn failure(error: &ConfigError) -> Failure {
    let code = match error.stage {
        Stage::File => 20,
        Stage::Syntax | Stage::Check => 10,
    };
    Failure::Config(error.to_string(), code)
}

fn block_device(global: &Global) -> BlockDeviceSpec {
    let driver = DeviceDriver::from_word(&global.device_driver).unwrap_or(DeviceDriver::Auto);
    BlockDeviceSpec { driver, away_limit_ms: global.device_timeout_ms }
}

/// The table lets pass what the engine runs, and no other.
fn handlers(resource: &Resource) -> BTreeMap<Handler, String> {
    resource
        .handlers()
        .filter_map(|(name, command)| Some((Handler::from_name(name)?, command.to_owned())))
        .collect()
}

fn options(
    net: &NetOptions,
    disk: &DiskOptions,
    pair: &Pair<'_>,
    resource: &Resource,
) -> Result<Options, Failure> {
    Ok(Options {
        after_split_brain: after_split_brain(net, pair, resource)?,
        rr_conflict: match net.rr_conflict.as_str() {
            "call-pri-lost" => RrConflict::CallPriLost,
            "retry-connect" => RrConflict::RetryConnect,
            "auto-discard" => RrConflict::AutoDiscard,
            "violently" => RrConflict::Violently,
            _ => RrConflict::Disconnect,
        },
        protocol: protocol(net.protocol),
        write_ordering: match (disk.disk_flushes, disk.disk_drain) {
            (true, _) => WriteOrdering::Flush,
            (false, true) => WriteOrdering::Drain,
            (false, false) => WriteOrdering::None,
        },
        timeout_ms: net.timeout_ms,
        ping_interval_ms: net.ping_interval_ms,
        ping_timeout_ms: net.ping_timeout_ms,
        ko_count: narrow("ko-count", net.ko_count)?,
        max_epoch_size: narrow("max-epoch-size", net.max_epoch_size)?,
        congestion: congestion(net)?,
        authentication: authentication(net)?,
        fencing: fencing(net.fencing),
        quorum: quorum::required(resource)?,
        on_no_data: match resource.on_no_data().as_str() {
            "suspend-io" => OnNoData::SuspendIo,
            _ => OnNoData::IoError,
        },
        verify_algorithm: net.verify_algorithm.as_deref().and_then(DigestAlgorithm::from_name),
        resync: ResyncOptions {
            fixed_bytes_per_s: disk.resync.fixed_bytes_per_s,
            plan_ahead_ms: disk.resync.plan_ahead_ms,
            delay_target_ms: disk.resync.delay_target_ms,
            fill_target_bytes: disk.resync.fill_target_bytes,
            max_bytes_per_s: disk.resync.max_bytes_per_s,
            min_bytes_per_s: disk.resync.min_bytes_per_s,
            csums_algorithm: net.csums_algorithm.as_deref().and_then(DigestAlgorithm::from_name),
            csums_after_crash_only: net.csums_after_crash_only,
        },
        al_extents: narrow("al-extents", disk.al_extents)?,
        al_updates: disk.al_updates,
        on_io_error: match disk.on_io_error.as_str() {
            "call-local-io-error" => OnIoError::CallLocalIoError,
            "pass_on" => OnIoError::PassOn,
            _ => OnIoError::Detach,
        },
        disk_timeout_ms: disk.disk_timeout_ms,
    })
}

/// The table lets pass what the engine does, and no other word.
fn after_split_brain(
    net: &NetOptions,
    pair: &Pair<'_>,
    resource: &Resource,
) -> Result<AfterSplitBrain, Failure> {
    let node = |host: Option<&Host>| -> Result<NodeId, Failure> {
        let unknown = || {
            let text =
                format!("after-sb-0pri {} names no host of {}", net.after_split_brain[0], resource.name);
            Failure::Config(text, 10)
        };
        Ok(NodeId(narrow("node-id", host.ok_or_else(unknown)?.node_id)?))
    };
    let [no_primary, one_primary, two_primaries] = net.after_split_brain.each_ref().map(String::as_str);
    Ok(AfterSplitBrain {
        no_primary: match no_primary {
            "discard-younger-primary" => NoPrimary::DiscardYoungerPrimary,
            "discard-older-primary" => NoPrimary::DiscardOlderPrimary,
            "discard-zero-changes" => NoPrimary::DiscardZeroChanges,
            "discard-least-changes" => NoPrimary::DiscardLeastChanges,
            "discard-local" => NoPrimary::DiscardNode(node(Some(pair.local))?),
            "discard-remote" => NoPrimary::DiscardNode(node(Some(pair.peer))?),
            word => match word.strip_prefix("discard-node-") {
                Some(name) => NoPrimary::DiscardNode(node(resource.local(name))?),
                None => NoPrimary::Disconnect,
            },
        },
        one_primary: match one_primary {
            "consensus" => OnePrimary::Consensus,
            "discard-secondary" => OnePrimary::DiscardSecondary,
            "call-pri-lost-after-sb" => OnePrimary::CallPriLostAfterSb,
            "violently-as0p" => OnePrimary::ViolentlyAs0p,
            _ => OnePrimary::Disconnect,
        },
        two_primaries: match two_primaries {
            "call-pri-lost-after-sb" => TwoPrimaries::CallPriLostAfterSb,
            "violently-as0p" => TwoPrimaries::ViolentlyAs0p,
            _ => TwoPrimaries::Disconnect,
        },
        always: net.always_after_split_brain,
    })
}

fn node_spec(host: &Host) -> Result<NodeSpec, Failure> {
    Ok(NodeSpec { id: NodeId(narrow("node-id", host.node_id)?), name: host.name() })
}

fn more_volumes(pair: &Pair<'_>) -> Result<Vec<VolumeSpec>, Failure> {
    pair.more_volumes.iter().map(|volume| volume_spec(volume, &pair.disk(volume))).collect()
}

fn volume_spec(volume: &Volume, disk: &DiskOptions) -> Result<VolumeSpec, Failure> {
    // What has no disk, or shares its metadata's device, is not run.
    let unusable = |what| Failure::Config(format!("volume {}: {what}", volume.number), 10);
    Ok(VolumeSpec {
        number: narrow("volume", volume.number)?,
        minor: volume.minor,
        device: volume.device.clone(),
        disk: volume.disk.clone().ok_or_else(|| unusable("no backing device"))?,
        meta_disk: match &volume.meta_disk {
            MetaDisk::Internal => None,
            MetaDisk::External(path) => Some(path.clone()),
            MetaDisk::Indexed(..) => return Err(unusable("indexed external metadata")),
        },
        size_bytes: Some(disk.size_bytes).filter(|bytes| *bytes > 0),
    })
}

/// The table lets pass what the engine can do. Were it not so, nobody must go without what was asked for.
fn authentication(net: &NetOptions) -> Result<Option<Authentication>, Failure> {
    let Some(name) = &net.hmac_algorithm else { return Ok(None) };
    let unable =
        || Failure::Config(format!("cram-hmac-alg {name}, or its shared-secret, cannot be used."), 10);
    let algorithm = HmacAlgorithm::from_name(name).ok_or_else(unable)?;
    let secret = Secret::new(net.shared_secret.as_ref().ok_or_else(unable)?);
    Ok(Some(Authentication { algorithm, secret }))
}

fn congestion(net: &NetOptions) -> Result<CongestionOptions, Failure> {
    let default = CongestionOptions::default();
    Ok(CongestionOptions {
        policy: match net.on_congestion {
            OnCongestion::Block => config::OnCongestion::Block,
            OnCongestion::PullAhead => config::OnCongestion::PullAhead,
            OnCongestion::Disconnect => config::OnCongestion::Disconnect,
        },
        fill_bytes: net.congestion_fill_bytes,
        extents: narrow("congestion-extents", net.congestion_extents)?,
        send_buffer_bytes: match net.send_buffer_bytes {
            0 => default.send_buffer_bytes,
            bytes => bytes,
        },
    })
}

fn fencing(fencing: Fencing) -> config::Fencing {
    match fencing {
        Fencing::DontCare => config::Fencing::DontCare,
        Fencing::ResourceOnly => config::Fencing::ResourceOnly,
        Fencing::ResourceAndStonith => config::Fencing::ResourceAndStonith,
    }
}

fn protocol(protocol: Protocol) -> config::Protocol {
    match protocol {
        Protocol::A => config::Protocol::A,
        Protocol::B => config::Protocol::B,
        Protocol::C => config::Protocol::C,
    }
}

/// The configuration's ranges are within the daemon's; were they not, the value must not be cut silently.
fn narrow<From: Copy + std::fmt::Display, To: TryFrom<From>>(what: &str, value: From) -> Result<To, Failure> {
    To::try_from(value).map_err(|_| Failure::Config(format!("{what} {value} is too big."), 10))
}

#[cfg(test)]
mod tests;
