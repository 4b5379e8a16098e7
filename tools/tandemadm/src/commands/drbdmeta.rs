//! tandemadm under the name `drbdmeta`: what drbdadm has done to a minor's meta-data, done to ours.

use std::path::PathBuf;

use tandem_control::{NodeSpec, ResourceSpec, VolumeSpec};
use tandem_core::metadata::{self, LoadError, Placement, Superblock};
use tandem_core::units::NodeId;

use super::follow::Following;
use super::md_image::{self, Forgotten};
use super::{metadata as verbs, show};
use crate::device::{Access, Device};
use crate::failure::Failure;
use crate::output::{self, errln, outln};
use crate::session::{CalledAs, Session};
use crate::settings;

/// What drbdmeta ends with if it is called wrongly.
const USAGE_CODE: u8 = 20;
const USAGE: &str = "USAGE: drbdmeta DEVICE FORMAT DISK internal|flex-external COMMAND [ARGUMENTS]";

/// A command line of drbdmeta's.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    minor: u32,
    /// The device that has the meta-data.
    device: PathBuf,
    placement: Placement,
    command: String,
    arguments: Vec<String>,
    force: bool,
    /// The peer that is meant.
    peer: Option<NodeId>,
}

/// Does what the command line asks. Returns the exit code.
pub fn run(words: &[String]) -> u8 {
    // What is up has no part in it.
    let session = Session::without_config(CalledAs::Drbdadm);
    let result = Line::parse(words).and_then(|line| match line.placement {
        Placement::Internal => line.carry_out(&session),
        Placement::External => line.look(),
    });
    output::verdict(result.unwrap_or_else(|failure| {
        errln!("{failure}");
        failure.exit_code()
    }))
}

impl Line {
    fn parse(words: &[String]) -> Result<Line, Failure> {
        let usage = |text: String| Failure::Config(text, USAGE_CODE);
        let (options, words): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| word.starts_with("--"));
        let [minor, format, device, place, command, arguments @ ..] = words.as_slice() else {
            return Err(usage(USAGE.into()));
        };
        if !["v07", "v08", "v09"].contains(&format.as_str()) {
            return Err(usage(format!("Unknown format '{format}'.")));
        }
        let number = crate::drbdsetup::minor_number(minor);
        let peer = options.iter().find_map(|option| option.strip_prefix("--node-id="));
        let bad = |word: &str| usage(format!("'{word}' is no number\n{USAGE}"));
        Ok(Line {
            minor: number.parse().map_err(|_| bad(minor))?,
            device: PathBuf::from(device),
            placement: match place.as_str() {
                "internal" | "flex-internal" => Placement::Internal,
                "flex-external" => Placement::External,
                _ => {
                    let why = "meta-data that shares its device is not supported: give each resource a meta-disk of its own";
                    return Err(usage(format!("{device} {place}: {why}")));
                }
            },
            command: command.to_string(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            force: options.iter().any(|option| *option == "--force"),
            peer: peer.map(|id| id.parse().map(NodeId).map_err(|_| bad(id))).transpose()?,
        })
    }

    fn carry_out(&self, session: &Session) -> Result<u8, Failure> {
        if self.belongs_to_another_volume()? {
            match self.command.as_str() {
                // It is done to the first volume's.
                "apply-al" | "outdate" | "invalidate" | "forget-peer" => return Ok(0),
                "get-gi" | "show-gi" | "dstate" | "dump-md" | "restore-md" => {
                    let device = self.device.display();
                    let text = format!(
                        "{device}: the meta-data of this volume lies with that of its resource's first one"
                    );
                    return Err(Failure::Config(text, 1));
                }
                _ => (),
            }
        }
        let specs = [self.spec(session)?];
        match (self.command.as_str(), self.arguments.as_slice()) {
            ("create-md", []) => Ok(verbs::create_md(session, &specs, None, self.force)),
            ("create-md", [max_peers]) => match max_peers.parse() {
                Ok(max_peers @ 1..=31) => Ok(verbs::create_md(session, &specs, Some(max_peers), self.force)),
                _ => Err(Failure::Config(
                    format!("{max_peers}: meta-data has room for 1 to 31 peers"),
                    USAGE_CODE,
                )),
            },
            ("wipe-md", []) => Ok(verbs::wipe_md(session, &specs, self.force)),
            ("dump-md", []) => Ok(md_image::dump_md(session, &specs)),
            ("restore-md", [file]) => Ok(md_image::restore_md(session, &specs, file.as_ref(), self.force)),
            ("apply-al", []) => {
                self.superblock()?;
                Ok(md_image::apply_al(session, &specs))
            }
            ("outdate", []) => Ok(verbs::outdate(session, &specs)),
            ("invalidate", []) => {
                Ok(verbs::invalidate(session, &specs, true, None, Following { progress: false }))
            }
            ("dstate", []) => Ok(show::dstate(session, specs.into_iter().map(|spec| (spec, None)).collect())),
            ("forget-peer", []) => {
                let [spec] = specs;
                let peer = spec.peers.first().map(|peer| peer.id.to_string());
                Ok(md_image::forget_peer(session, &Forgotten::new(spec, peer.as_deref())?))
            }
            (command @ ("get-gi" | "show-gi"), []) if self.peer.is_none() => {
                Err(Failure::Config(format!("The {command} command requires the --node-id option"), 10))
            }
            ("get-gi", []) => Ok(verbs::get_gi(session, &specs)),
            ("show-gi", []) => Ok(verbs::show_gi(session, &specs)),
            _ => self.look(),
        }
    }

    /// What can be answered without the disk of the data.
    fn look(&self) -> Result<u8, Failure> {
        match (self.command.as_str(), self.arguments.as_slice()) {
            // Attaching does the same.
            ("apply-al", []) => self.superblock().map(|_| 0),
            // Found where it is, however large the disk has become.
            ("check-resize", []) => Ok(0),
            ("read-dev-uuid", []) => {
                outln!("{:016X}", self.superblock()?.device_id);
                Ok(0)
            }
            // It has got its own when it was created.
            ("write-dev-uuid", [_]) => self.superblock().map(|_| 0),
            (command, _) if self.placement == Placement::External && KNOWN.contains(&command) => {
                let text = format!(
                    "{}: {command} of external meta-data needs the disk of the data, too, which drbdmeta is not told: use \
                     'tandemadm {command}'",
                    self.device.display()
                );
                Err(Failure::Config(text, USAGE_CODE))
            }
            (command, _) => Err(Failure::Config(format!("Unknown command '{command}'."), USAGE_CODE)),
        }
    }

    fn superblock(&self) -> Result<Superblock, Failure> {
        let mut device = Device::open(&self.device, Access::Look)?;
        metadata::probe(&mut device, self.placement).map_err(|error| match error {
            LoadError::NotFound => Failure::Config("No valid meta data found".into(), 1),
            error => error.into(),
        })
    }

    /// Then its meta-data lies with that of the resource's first volume.
    fn belongs_to_another_volume(&self) -> Result<bool, Failure> {
        Ok(metadata::is_stamped(&mut Device::open(&self.device, Access::Look)?)?)
    }

    /// The disk as a resource's only volume: whose it is, the meta-data says, or what is known of the minor.
    fn spec(&self, session: &Session) -> Result<ResourceSpec, Failure> {
        let name = format!("drbdmeta.{}", self.minor);
        let known = session.status(None)?.into_iter().map(|status| status.spec);
        let of_minor = known.into_iter().find(|spec| spec.volumes().any(|volume| volume.minor == self.minor));
        let known_node = of_minor.map(|spec| spec.node.id);
        let node = self.superblock().ok().and_then(|superblock| superblock.node).or(known_node);
        let mut spec = settings::unsaid(&name, node.unwrap_or(NodeId(0)))?;
        let disk = self.device.clone();
        spec.set_volumes(vec![VolumeSpec { disk, ..VolumeSpec::without_disk(0, self.minor) }]);
        let peer = |id| NodeSpec { id, name: format!("node-{id}") };
        spec.peers = self.peer.map(peer).into_iter().collect();
        Ok(spec)
    }
}

/// Commands that drbdmeta has.
const KNOWN: [&str; 11] = [
    "create-md",
    "wipe-md",
    "dump-md",
    "restore-md",
    "outdate",
    "invalidate",
    "dstate",
    "forget-peer",
    "get-gi",
    "show-gi",
    "set-gi",
];
