//! What scripts ask for: it follows from the configuration alone, also of resources that this version cannot run.

use tandem_config::{Host, MetaDisk, Resource, Volume};

use crate::cli::Script;
use crate::config::Config;
use crate::failure::Failure;

/// drbdadm asks the kernel module for room for more devices than there are, and for no fewer than this.
const MIN_MINOR_COUNT: usize = 32;
const SPARE_MINORS: usize = 11;

/// The answer, a line for each item.
pub(crate) fn answer(config: &Config, script: &Script) -> Result<String, Failure> {
    let lines = match script {
        Script::ShResources => config.names(),
        Script::ShResource(names) => {
            config.locals(&names.names)?.iter().map(|local| local.resource.name.clone()).collect()
        }
        Script::ShDev(names) => of_volumes(config, &names.names, |_, v| Ok(v.device.display().to_string()))?,
        Script::ShMinor(names) => of_volumes(config, &names.names, |_, v| Ok(v.minor.to_string()))?,
        Script::ShLlDev(names) => of_volumes(config, &names.names, |_, v| {
            Ok(v.disk.as_ref().map_or("none".to_owned(), |disk| disk.display().to_string()))
        })?,
        Script::ShMdDev(names) => of_volumes(config, &names.names, |local, volume| {
            let disk = local.disk("sh-md-dev", volume)?;
            Ok(match &volume.meta_disk {
                MetaDisk::Internal => disk,
                MetaDisk::External(device) | MetaDisk::Indexed(device, _) => device.display().to_string(),
            })
        })?,
        Script::ShMdIdx(names) => of_volumes(config, &names.names, |local, volume| {
            local.disk("sh-md-idx", volume)?;
            Ok(match &volume.meta_disk {
                MetaDisk::Internal => "internal".to_owned(),
                MetaDisk::External(_) => "flexible".to_owned(),
                MetaDisk::Indexed(_, slot) => slot.to_string(),
            })
        })?,
        Script::ShIp(names) => config.locals(&names.names)?.iter().flat_map(Local::addresses).collect(),
        Script::ShUdev(names) => of_volumes(config, &names.names, |local, volume| {
            let device = volume.device.file_name().unwrap_or_default().to_string_lossy();
            let link = format!("drbd/by-res/{}/{}", local.resource.name, volume.number);
            Ok(format!("DEVICE={device}\nSYMLINK={link}\nSYMLINK_BY_RES={link}"))
        })?,
        Script::ShLrOf(_) => {
            let text = "stacked resources are not supported, so that there is no lower resource".to_owned();
            return Err(Failure::Config(text, 1));
        }
        Script::ShModParms => vec![format!("minor_count={}", minor_count(config))],
        Script::ShNop => Vec::new(),
    };
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn minor_count(config: &Config) -> u64 {
    let spare = (config.names().len() + SPARE_MINORS).max(MIN_MINOR_COUNT);
    config.minor_count().unwrap_or(spare as u64)
}

fn of_volumes(
    config: &Config,
    names: &[String],
    line: impl Fn(&Local<'_>, &Volume) -> Result<String, Failure>,
) -> Result<Vec<String>, Failure> {
    let locals = config.locals(names)?;
    let volumes = locals.iter().flat_map(|local| local.volumes.iter().map(move |volume| (local, volume)));
    volumes.map(|(local, volume)| line(local, volume)).collect()
}

/// A resource on this node, with the volumes that are asked for.
pub(crate) struct Local<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) host: &'a Host,
    pub(crate) volumes: Vec<&'a Volume>,
}

impl Local<'_> {
    fn disk(&self, command: &str, volume: &Volume) -> Result<String, Failure> {
        let none = "requires a local disk, but the configuration gives none.";
        let missing = || Failure::Config(format!("The {command} command {none}"), 10);
        volume.disk.as_ref().map(|disk| disk.display().to_string()).ok_or_else(missing)
    }

    /// This node's end of every path, once for every volume.
    fn addresses(&self) -> Vec<String> {
        let hosts = &self.resource.hosts;
        let is_local = |place: usize| hosts.get(place).is_some_and(|host| std::ptr::eq(host, self.host));
        let ends = self.resource.connections.iter().flat_map(|connection| connection.paths.iter().flatten());
        let own = ends.filter(|end| is_local(end.host)).map(|end| end.address.socket.ip().to_string());
        own.flat_map(|ip| vec![ip; self.volumes.len()]).collect()
    }
}
