//! What becomes of a resource by one command of drbdsetup's: a function of the command and of what is known of all resources.

use std::net::SocketAddr;
use std::path::PathBuf;

use tandem_config::Section;
use tandem_control::{NodeSpec, PathSpec, ResourceSpec, ResourceStatus, VolumeSpec};
use tandem_core::handler::Handler;
use tandem_core::refusal::{HAS_DISK, HAS_NET, INVALID_REQUEST, MINOR_CONFIGURED};
use tandem_core::state::{ConnectionState, DiskState, Role};
use tandem_core::units::NodeId;

use crate::address;
use crate::cli;
use crate::commands::options::Wanted;
use crate::commands::paths;
use crate::commands::peers::{self, refusal};
use crate::drbdsetup::{self, Piece};
use crate::failure::Failure;
use crate::settings;

const UNKNOWN_RESOURCE: (u16, &str) = (158, "Unknown resource");
const UNKNOWN_MINOR: (u16, &str) = (127, "Device minor not allocated");
const RESOURCE_IN_USE: (u16, &str) = (159, "Resource still in use (delete all minors first)");
const VOLUME_EXISTS: (u16, &str) = (161, "Minor or volume exists already (delete it first)");
const BAD_RESYNC_AFTER: (u16, &str) = (132, "The resync-after minor number is invalid");

/// What shall be done to a resource.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Wish {
    /// What is known of it.
    pub(super) was: Option<ResourceSpec>,
    /// What shall be.
    pub(super) becomes: Option<ResourceSpec>,
    /// The peers are left before.
    pub(super) leaves: bool,
    /// The disk is taken into use afterwards.
    pub(super) attaches: bool,
    /// The peers are met again afterwards.
    pub(super) connects: bool,
}

impl Wish {
    /// What the command asks for.
    pub(super) fn new(piece: &Piece, known: &[ResourceStatus]) -> Result<Wish, Failure> {
        let asked = Asked { piece, known };
        let arguments: Vec<&str> = piece.arguments.iter().map(String::as_str).collect();
        match (piece.command.as_str(), arguments.as_slice()) {
            ("new-resource", [name, node]) => asked.new_resource(name, node_id(node)?),
            ("del-resource", [name]) => asked.del_resource(name),
            ("new-minor", [name, minor, volume]) => {
                let minor = number(drbdsetup::minor_number(minor), "minor")?;
                asked.new_minor(name, minor, number(volume, "volume")?)
            }
            ("del-minor", [minor]) => asked.del_minor(minor),
            ("new-peer", [name, id]) => asked.new_peer(name, node_id(id)?),
            ("del-peer", [name, id]) => asked.del_peer(name, node_id(id)?),
            ("new-path", [name, id, local, remote]) => {
                asked.path(paths::Change::Add, name, node_id(id)?, [end(local)?, end(remote)?])
            }
            ("del-path", [name, id, local, remote]) => {
                asked.path(paths::Change::Remove, name, node_id(id)?, [end(local)?, end(remote)?])
            }
            ("attach", [minor, disk, meta_disk, place]) => asked.attach(minor, disk, meta_disk, place),
            ("resource-options", [name]) => asked.set(asked.resource(name)?, Section::Options),
            ("net-options", [name, id]) => asked.set(asked.connection(name, node_id(id)?)?.0, Section::Net),
            ("peer-device-options", [name, id, _]) => {
                asked.set(asked.connection(name, node_id(id)?)?.0, Section::PeerDevice)
            }
            ("disk-options", [minor]) => asked.set(asked.minor(minor)?.0, Section::Disk),
            (command, _) => Err(usage(format!("drbdsetup: {command}: unknown command"))),
        }
    }

    fn change(was: &ResourceSpec, becomes: ResourceSpec) -> Wish {
        Wish { was: Some(was.clone()), becomes: Some(becomes), ..Wish::default() }
    }
}

struct Asked<'a> {
    piece: &'a Piece,
    known: &'a [ResourceStatus],
}

impl<'a> Asked<'a> {
    fn resource(&self, name: &str) -> Result<&'a ResourceStatus, Failure> {
        let found = self.known.iter().find(|status| status.spec.name == name);
        found.ok_or_else(|| refusal(name, UNKNOWN_RESOURCE, ""))
    }

    fn minor(&self, word: &str) -> Result<(&'a ResourceStatus, &'a VolumeSpec), Failure> {
        let minor: u32 = number(drbdsetup::minor_number(word), "minor")?;
        let volumes =
            self.known.iter().flat_map(|status| status.spec.volumes().map(move |volume| (status, volume)));
        let mut found = volumes.filter(|(_, volume)| volume.minor == minor);
        found.next().ok_or_else(|| refusal(&minor.to_string(), UNKNOWN_MINOR, ""))
    }

    fn connection(&self, name: &str, id: NodeId) -> Result<(&'a ResourceStatus, &'a NodeSpec), Failure> {
        let status = self.resource(name)?;
        let peer = status.spec.peers.iter().find(|peer| peer.id == id);
        Ok((status, peer.ok_or_else(|| refusal(name, INVALID_REQUEST, "unknown connection"))?))
    }

    /// The resource with the options that are named.
    fn with_options(
        &self,
        spec: &ResourceSpec,
        section: Section,
        options: &[String],
        set_defaults: bool,
    ) -> Result<ResourceSpec, Failure> {
        let mut wanted = Wanted::parse(&self.piece.command, section, options)?;
        wanted.set_defaults |= set_defaults;
        wanted.applied(section, spec, spec)
    }

    fn set(&self, status: &ResourceStatus, section: Section) -> Result<Wish, Failure> {
        let (own, options) = Own::split(&self.piece.options)?;
        let mut becomes = self.with_options(&status.spec, section, &options, false)?;
        self.apply(own, &mut becomes)?;
        Ok(Wish::change(&status.spec, becomes))
    }

    /// Asked for again, there is nothing to do.
    fn new_resource(&self, name: &str, id: NodeId) -> Result<Wish, Failure> {
        if self.resource(name).is_ok() {
            return Ok(Wish::default());
        }
        let mut spec = settings::unsaid(name, id)?;
        if let Some(drbdadm) = caller() {
            let command = |handler: &Handler| (*handler, format!("'{}' {handler} {name}", drbdadm.display()));
            spec.handlers.commands = Handler::ALL.iter().map(command).collect();
        }
        let becomes = self.with_options(&spec, Section::Options, &self.piece.options, false)?;
        Ok(Wish { becomes: Some(becomes), ..Wish::default() })
    }

    fn del_resource(&self, name: &str) -> Result<Wish, Failure> {
        let status = self.resource(name)?;
        if status.spec.volumes().next().is_some() {
            return Err(refusal(name, RESOURCE_IN_USE, ""));
        }
        if !is_alone(status) {
            return Err(refusal(name, HAS_NET, ""));
        }
        Ok(Wish { was: Some(status.spec.clone()), ..Wish::default() })
    }

    /// Asked for again, there is nothing to do.
    fn new_minor(&self, name: &str, minor: u32, number: u16) -> Result<Wish, Failure> {
        let spec = &self.resource(name)?.spec;
        let object = minor.to_string();
        if let Ok((status, volume)) = self.minor(&object) {
            return match (status.spec.name == spec.name, volume.number == number) {
                (true, true) => Ok(Wish::default()),
                (true, false) => Err(refusal(&object, INVALID_REQUEST, "minor exists as different volume")),
                (false, _) => Err(refusal(&object, INVALID_REQUEST, "minor exists in different resource")),
            };
        }
        if spec.volumes().any(|volume| volume.number == number) {
            return Err(refusal(&object, VOLUME_EXISTS, ""));
        }
        let mut becomes = spec.clone();
        becomes
            .set_volumes(spec.volumes().cloned().chain([VolumeSpec::without_disk(number, minor)]).collect());
        Ok(Wish::change(spec, becomes))
    }

    fn del_minor(&self, minor: &str) -> Result<Wish, Failure> {
        let (status, volume) = self.minor(minor)?;
        if status.engine.disk != DiskState::Diskless || status.engine.role == Role::Primary {
            return Err(refusal(&volume.minor.to_string(), MINOR_CONFIGURED, ""));
        }
        let spec = &status.spec;
        let mut becomes = spec.clone();
        becomes.set_volumes(spec.volumes().filter(|one| one.minor != volume.minor).cloned().collect());
        // It is made of its pieces anew; none of the others has a disk, either.
        Ok(Wish { leaves: !is_alone(status), ..Wish::change(spec, becomes) })
    }

    fn new_peer(&self, name: &str, id: NodeId) -> Result<Wish, Failure> {
        let spec = &self.resource(name)?.spec;
        if self.connection(name, id).is_ok() {
            let why = format!("Connection for peer node id {id} already exists");
            return Err(refusal(name, INVALID_REQUEST, &why));
        }
        if id == spec.node.id {
            return Err(refusal(name, (171, "Invalid peer-node-id"), ""));
        }
        let (own, options) = Own::split(&self.piece.options)?;
        let peer_name = own.name.clone().unwrap_or_else(|| format!("node-{id}"));
        let mut becomes = spec.clone();
        becomes.peers.push(NodeSpec { id, name: peer_name });
        let becomes = self.with_options(&becomes, Section::Net, &options, true)?;
        Ok(Wish::change(spec, becomes))
    }

    fn del_peer(&self, name: &str, id: NodeId) -> Result<Wish, Failure> {
        let (status, peer) = self.connection(name, id)?;
        let becomes = peers::Change::DelPeer.applied(status, &status.spec, peer)?;
        Ok(Wish { leaves: !is_alone(status), ..Wish::change(&status.spec, becomes) })
    }

    /// A connection whose path is taken away is made anew over another one.
    fn path(
        &self,
        change: paths::Change,
        name: &str,
        peer: NodeId,
        [local, remote]: [SocketAddr; 2],
    ) -> Result<Wish, Failure> {
        let (status, node) = self.connection(name, peer)?;
        let becomes = change.applied(status, &status.spec, node, &[PathSpec { peer, local, remote }])?;
        let is_cut = paths::is_cut(status, &becomes);
        Ok(Wish { leaves: is_cut, connects: is_cut, ..Wish::change(&status.spec, becomes) })
    }

    /// The disks of all volumes are taken into use together: with the last one that is named.
    fn attach(&self, minor: &str, disk: &str, meta_disk: &str, place: &str) -> Result<Wish, Failure> {
        let (status, volume) = self.minor(minor)?;
        let (spec, object) = (&status.spec, volume.minor.to_string());
        let (own, options) = Own::split(&self.piece.options)?;
        let volume = VolumeSpec {
            disk: PathBuf::from(disk),
            meta_disk: place_of_metadata(disk, meta_disk, place)?,
            size_bytes: own.size_bytes.unwrap_or(volume.size_bytes),
            ..volume.clone()
        };
        if status.engine.disk != DiskState::Diskless {
            let is_attached_with_others =
                !spec.more_volumes.is_empty() && spec.volumes().any(|one| *one == volume);
            return match is_attached_with_others {
                true => Ok(Wish::default()),
                false => Err(refusal(&object, HAS_DISK, "")),
            };
        }
        let number = volume.number;
        let others = spec.volumes().filter(|one| one.number != number).cloned();
        let mut becomes = spec.clone();
        becomes.set_volumes(others.chain([volume]).collect());
        let mut becomes = self.with_options(&becomes, Section::Disk, &options, true)?;
        self.apply(own, &mut becomes)?;
        let (is_made, has_disks) =
            (spec.volumes().all(VolumeSpec::has_disk), becomes.volumes().all(VolumeSpec::has_disk));
        if has_disks && !is_made && !becomes.is_whole() {
            let why = "the meta-data has a bitmap for each peer: new-peer and new-path come before attach";
            return Err(refusal(&object, INVALID_REQUEST, why));
        }
        Ok(Wish { attaches: has_disks, ..Wish::change(spec, becomes) })
    }

    fn apply(&self, own: Own, spec: &mut ResourceSpec) -> Result<(), Failure> {
        match own.resync_after {
            None => Ok(()),
            Some(None) => {
                spec.resync_after = None;
                Ok(())
            }
            Some(Some(minor)) => {
                let unknown = |_| refusal(&spec.name, BAD_RESYNC_AFTER, "");
                let other = self.minor(&minor.to_string()).map_err(unknown)?.0.spec.name.clone();
                // Its volumes have one resync.
                spec.resync_after = Some(other).filter(|other| *other != spec.name);
                Ok(())
            }
        }
    }
}

/// Options that are no settings of the resource's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Own {
    /// The peer's name.
    name: Option<String>,
    /// How much of the disk is used, if that is said: all of it, or so much.
    size_bytes: Option<Option<u64>>,
    /// The minor whose resync comes first, or none, if that is said.
    resync_after: Option<Option<u32>>,
}

impl Own {
    /// And the others.
    fn split(options: &[String]) -> Result<(Own, Vec<String>), Failure> {
        let (mut own, mut others) = (Own::default(), Vec::new());
        for option in options {
            match option.split_once('=') {
                Some(("--_name", name)) => own.name = Some(name.to_owned()),
                Some(("--size", size)) => {
                    let bytes = cli::position(size).map_err(|why| usage(format!("{option}: {why}")))?;
                    own.size_bytes = Some(Some(bytes).filter(|bytes| *bytes > 0));
                }
                Some(("--resync-after", "-1")) => own.resync_after = Some(None),
                Some(("--resync-after", minor)) => {
                    own.resync_after = Some(Some(number(drbdsetup::minor_number(minor), "minor")?));
                }
                _ => others.push(option.clone()),
            }
        }
        Ok((own, others))
    }
}

/// The drbdadm that calls us, which knows the handlers of its configuration: it is called for each of them, as the kernel module
/// calls it. Whoever calls us by hand has none.
fn caller() -> Option<PathBuf> {
    let program = std::fs::read_link(format!("/proc/{}/exe", std::os::unix::process::parent_id())).ok()?;
    (program.file_name()? == "drbdadm").then_some(program)
}

fn is_alone(status: &ResourceStatus) -> bool {
    status.engine.peers.iter().all(|peer| peer.connection == ConnectionState::StandAlone)
}

fn place_of_metadata(disk: &str, meta_disk: &str, place: &str) -> Result<Option<PathBuf>, Failure> {
    match place {
        "internal" | "flex-internal" if disk == meta_disk => Ok(None),
        "flexible" | "flex-external" if disk != meta_disk => Ok(Some(PathBuf::from(meta_disk))),
        _ if place.parse::<u32>().is_ok() => Err(usage(format!(
            "{meta_disk}[{place}]: meta-data that shares its device is not supported: give each resource a meta-disk of its own"
        ))),
        _ => Err(usage(format!(
            "{meta_disk} {place}: internal meta-data lies on {disk}, and flexible meta-data elsewhere"
        ))),
    }
}

fn end(text: &str) -> Result<SocketAddr, Failure> {
    address::socket(text).map_err(|why| usage(format!("{text}: {why}")))
}

fn node_id(text: &str) -> Result<NodeId, Failure> {
    let id: u8 = number(text, "node id")?;
    if id > 31 { Err(usage(format!("{text}: a node id is a number from 0 to 31"))) } else { Ok(NodeId(id)) }
}

fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| usage(format!("{text}: not the number of a {what}")))
}

fn usage(text: String) -> Failure {
    Failure::Usage(text)
}

#[cfg(test)]
mod tests;
