//! The resources that a command is about: those of the configuration. drbdsetup asks the kernel module; under its name it is
//! those that are up, and no file need be there.

use tandem_config::StartupOptions;
use tandem_control::{ClientError, ResourceSpec, ResourceStatus};

use crate::address::Address;
use crate::config::Config;
use crate::drbdsetup;
use crate::failure::Failure;
use crate::session::{CalledAs, Session};

/// Where resources are looked up.
pub(crate) enum Known {
    Configured(Box<Config>),
    Up {
        /// What drbdsetup was asked to do.
        command: String,
        specs: Vec<ResourceSpec>,
    },
}

impl Known {
    pub(crate) fn of(session: &Session) -> Result<Known, Failure> {
        match &session.called {
            CalledAs::Drbdsetup(command) => Known::up(session, command),
            CalledAs::Tandemadm | CalledAs::Drbdadm => {
                Ok(Known::Configured(Box::new(super::config(session)?)))
            }
        }
    }

    /// What is up, for a command of drbdsetup's.
    pub(crate) fn up(session: &Session, command: &str) -> Result<Known, Failure> {
        let statuses = match session.ask_status(None) {
            Ok(reply) => reply.status,
            // As without the kernel module.
            Err(ClientError::NotRunning(_)) if drbdsetup::needs_no_daemon(command) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let specs = statuses.into_iter().map(|status| status.spec).collect();
        Ok(Known::Up { command: command.to_owned(), specs })
    }

    /// Whole resources.
    pub(crate) fn specs(&self, names: &[String]) -> Result<Vec<ResourceSpec>, Failure> {
        match self {
            Known::Configured(config) => config.specs(names),
            Known::Up { .. } => {
                let whole = |(spec, number): (ResourceSpec, Option<u16>)| match number {
                    Some(_) => Err(Failure::AllVolumes(spec.name)),
                    None => Ok(spec),
                };
                self.specs_with_volume(names)?.into_iter().map(whole).collect()
            }
        }
    }

    /// Resources about something that their volumes have in common, with DRBD as well: one may be named for all.
    pub(crate) fn specs_of_any_part(&self, names: &[String]) -> Result<Vec<ResourceSpec>, Failure> {
        Ok(self.specs_with_volume(names)?.into_iter().map(|(spec, _)| spec).collect())
    }

    /// Each with its volume's number where one of several is named.
    pub(crate) fn specs_with_volume(
        &self,
        names: &[String],
    ) -> Result<Vec<(ResourceSpec, Option<u16>)>, Failure> {
        let (command, specs) = match self {
            Known::Configured(config) => return config.specs_with_volume(names),
            Known::Up { command, specs } => (command, specs),
        };
        let mut found = Vec::new();
        for name in names {
            let before = found.len();
            found.extend(specs.iter().filter_map(|spec| Some((spec.clone(), meant(spec, name)?))));
            if found.len() == before {
                drbdsetup::missing(command, name, specs.is_empty())?;
            }
        }
        Ok(found)
    }

    /// How long its peers are waited for.
    pub(crate) fn startup(&self, name: &str) -> Option<StartupOptions> {
        match self {
            Known::Configured(config) => config.startup(name),
            Known::Up { .. } => Some(StartupOptions::default()),
        }
    }
}

/// A volume that is configured may not be one of those that the resource was brought up with.
pub(super) fn require_volume(status: &ResourceStatus, number: Option<u16>) -> Result<(), Failure> {
    let is_up = |number: u16| status.spec.volumes().any(|volume| volume.number == number);
    match number.filter(|number| !is_up(*number)) {
        Some(number) => Err(Failure::VolumeNotUp(status.spec.name.clone(), number)),
        None => Ok(()),
    }
}

/// The resource is meant by this name: all of it, or the volume of this number.
fn meant(spec: &ResourceSpec, name: &str) -> Option<Option<u16>> {
    let one_of_several = |number: u16| Some(number).filter(|_| !spec.more_volumes.is_empty());
    if let Some(minor) = name.strip_prefix(drbdsetup::MINOR) {
        let volume = spec.volumes().find(|volume| volume.minor.to_string() == minor)?;
        return Some(one_of_several(volume.number));
    }
    let address = Address::parse(name);
    let peer = |peer: &str| spec.peers.iter().any(|known| known.id.to_string() == peer || known.name == peer);
    if name != "all" && address.resource != spec.name || !address.peer.is_none_or(peer) {
        return None;
    }
    let Some(number) = address.volume else { return Some(None) };
    let volume = spec.volumes().find(|volume| volume.number.to_string() == number)?;
    Some(one_of_several(volume.number))
}
