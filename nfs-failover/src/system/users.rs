//! Who uses a filesystem: found by the device of everything that a process has open, whatever path it came by; or who uses
//! a folder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::process::Process;

/// Every process that uses the filesystem of this device number, except this one.
pub fn of(device: (u64, u64)) -> Vec<Process> {
    let own = std::process::id() as i32;
    all().filter(|pid| *pid != own && uses(*pid, device)).filter_map(Process::of).collect()
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Every process that uses something below this folder, of whatever filesystem, except this one. Nothing is followed, only
/// read: a filesystem that hangs holds nobody up.
pub fn below(folder: &Path) -> Vec<Process> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = std::process::id() as i32;
    // Whoever sees other mounts means other folders by the same names.
    let sees_them = |pid: i32| pid != own && namespace(pid).is_some_and(|one| Some(one) == namespace(own));
    all().filter(|pid| sees_them(*pid) && is_below(*pid, folder)).filter_map(Process::of).collect()
}

/// The process with its name, for the operator.
pub fn shown(process: Process) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap_or_default();
    format!("{} ({})", name.trim(), process.pid())
}

fn uses(pid: i32, device: (u64, u64)) -> bool {
    let is_there =
        |path: PathBuf| fs::metadata(path).is_ok_and(|file| (major(file.dev()), minor(file.dev())) == device);
    links(pid).any(is_there) || mapped(pid).lines().any(|line| maps(line, device))
}

fn is_below(pid: i32, folder: &Path) -> bool {
    links(pid).any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(folder)))
        || mapped(pid)
            .lines()
            .filter_map(|line| line.get(line.find('/')?..))
            .any(|path| Path::new(path).starts_with(folder))
}

/// What leads to everything that a process has open, and to where it stands.
fn links(pid: i32) -> impl Iterator<Item = PathBuf> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let open_files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
    ["cwd", "root", "exe"]
        .map(|name| folder.join(name))
        .into_iter()
        .chain(open_files.map(|entry| entry.path()))
}

fn mapped(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

/// `7f.. r-xp 00000000 07:03 12 /srv/x`, the numbers in hexadecimal.
fn maps(line: &str, device: (u64, u64)) -> bool {
    line.split(' ').nth(3) == Some(&format!("{:02x}:{:02x}", device.0, device.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_use() {
        let line = "7f00-7f01 r--p 00000000 07:0a 12 /srv/nfs/x\n";
        assert!(maps(line.trim(), (7, 10)));
        assert!(!maps(line, (7, 11)));
    }

    #[test]
    fn a_process_that_stands_in_a_folder_uses_it() {
        let folder = fs::metadata("/dev/shm").unwrap();
        let device = (major(folder.dev()), minor(folder.dev()));
        let mut child =
            std::process::Command::new("sleep").arg("600").current_dir("/dev/shm").spawn().unwrap();
        assert!(of(device).iter().any(|process| process.pid() == child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_folder_is_used_by_who_stands_below_it_and_by_nobody_else_of_its_filesystem() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        fs::create_dir(folder.join("below")).unwrap();
        let sleep =
            |place: &Path| std::process::Command::new("sleep").arg("600").current_dir(place).spawn().unwrap();
        let mut children = [sleep(&folder.join("below")), sleep(&std::env::temp_dir())];
        let found: Vec<i32> = below(&folder).into_iter().map(Process::pid).collect();
        assert_eq!(found, [children[0].id() as i32]);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
