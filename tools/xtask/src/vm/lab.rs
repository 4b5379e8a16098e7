//! What every scenario begins with: the packages, the image, the programs under test, a folder and a network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use super::image::Image;
use super::machine::Machine;
use super::network::Network;
use crate::packages;
use crate::process::{Result, run};
use crate::repo;

/// Moves everything that the lab keeps.
const FOLDER_VARIABLE: &str = "TANDEM_VM_DIR";
/// Names a folder of programs that are there already, as for the end-to-end tests; then nothing is built.
const PROGRAMS_VARIABLE: &str = "TANDEM_BIN_DIR";
/// Our programs, as the guests have them in `/host/bin`.
const PROGRAMS: &[&str] = &["tandemd", "tandemadm", "tandem-device", "nfs-failover"];

/// A lab without machines yet. It lies in the cache, fresh for each run, and is kept after it to be looked at.
pub(super) struct Lab {
    image: Image,
    pub(super) network: Network,
    folder: PathBuf,
    share: PathBuf,
}

impl Lab {
    /// Prepares everything for the scenario of this name.
    pub(super) fn prepare(scenario: &str) -> Result<Lab> {
        let cache = ready_cache()?;
        let image = Image::ensure(&cache)?;
        let folder = cache.join("run").join(scenario);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let share = folder.join("share");
        fs::create_dir_all(share.join("calls"))?;
        install_programs(&share.join("bin"))?;
        println!("The machines' files, kept until the next run: {}", folder.display());
        // What needs the host's network is done.
        Ok(Lab { image, network: Network::enter()?, folder, share })
    }

    /// A machine that is off, plugged into the network.
    pub(super) fn machine(&self, number: u8, disk_bytes: u64) -> Result<Machine> {
        let machine = Machine::new(number, &self.folder, &self.share, disk_bytes)?;
        self.network.plug(&machine.cable())?;
        Ok(machine)
    }

    /// Boots machines side by side.
    pub(super) fn boot(&self, machines: &mut [&mut Machine]) -> Result<()> {
        Machine::boot(&self.image, machines)
    }

    /// Puts a file into `/host/etc` for the guests.
    pub(super) fn offer(&self, name: &str, text: &str) -> Result<()> {
        let path = self.share.join("etc").join(name);
        fs::create_dir_all(path.parent().unwrap_or(&self.share))?;
        Ok(fs::write(path, text)?)
    }
}

/// Installs what the lab runs on and returns its folder.
fn ready_cache() -> Result<PathBuf> {
    if !Uid::effective().is_root() {
        return Err("virtual machines on a network of their own need root".into());
    }
    packages::ensure(packages::VM)?;
    Ok(match (std::env::var_os(FOLDER_VARIABLE), std::env::var_os("HOME")) {
        (Some(folder), _) => folder.into(),
        (None, Some(home)) => Path::new(&home).join(".cache/tandem-vm"),
        (None, None) => return Err(format!("neither {FOLDER_VARIABLE} nor HOME is set").into()),
    })
}

fn install_programs(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let built = built_programs()?;
    for program in PROGRAMS {
        let path = built.join(program);
        fs::copy(&path, folder.join(program)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    // The load is a part of this program.
    fs::copy(std::env::current_exe()?, folder.join("xtask"))?;
    // Debugging information is most of it, and the guests read it over and over.
    run(Command::new("strip").args(["--strip-debug"]).args(fs_list(folder)?))
}

fn built_programs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(PROGRAMS_VARIABLE) {
        return Ok(folder.into());
    }
    repo::build_release()?;
    repo::release_dir()
}

fn fs_list(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?)
}
