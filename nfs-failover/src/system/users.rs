//! Who uses a filesystem: found by the device of everything that a process has open, whatever path it came by; or who uses
//! a folder.

use std::fs;
use std::path::Path;

use tandem_device::files::{links, mapped, uses};

use super::process::Process;

/// Every process that uses the filesystem of this device number, except this one.
pub fn of(device: (u64, u64)) -> Vec<Process> {
    let own = std::process::id() as i32;
    all().filter(|pid| *pid != own && uses(*pid, device)).filter_map(Process::of).collect()
}

pub(super) fn all() -> impl Iterator<Item = i32> {
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

fn is_below(pid: i32, folder: &Path) -> bool {
    links(pid).any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(folder)))
        || mapped(pid)
            .lines()
            .filter_map(|line| line.get(line.find('/')?..))
            .any(|path| Path::new(path).starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    use std::process::Command;
    use std::time::Duration;

    use nix::fcntl::OFlag;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{major, minor};

    use super::*;
    use crate::system::within;

    #[test]
    #[ignore = "needs root and /dev/fuse"]
    fn somebody_elses_filesystem_that_never_answers_holds_nobody_up() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        // Nobody reads what is asked here.
        let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("dead"), &folder, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let mut by_name = OpenOptions::new();
        let there = by_name.read(true).custom_flags(OFlag::O_PATH.bits()).open(&folder).unwrap();
        let mut user = Command::new("sleep").arg("600").stdin(there).spawn().unwrap();
        let shm = File::open("/dev/shm").unwrap();
        let device = shm.metadata().map(|folder| (major(folder.dev()), minor(folder.dev()))).unwrap();
        let mut other = Command::new("sleep").arg("600").stdin(shm).spawn().unwrap();
        let found = within(Duration::from_secs(30), move || of(device));
        user.kill().unwrap();
        other.kill().unwrap();
        drop(server);
        user.wait().unwrap();
        other.wait().unwrap();
        umount2(&folder, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(folder).unwrap();
        let found = found.expect("it hangs");
        assert!(found.iter().any(|process| process.pid() == other.id() as i32));
    }

    #[test]
    fn a_process_that_stands_in_a_folder_uses_it() {
        let folder = fs::metadata("/dev/shm").unwrap();
        let device = (major(folder.dev()), minor(folder.dev()));
        let mut child = Command::new("sleep").arg("600").current_dir("/dev/shm").spawn().unwrap();
        assert!(of(device).iter().any(|process| process.pid() == child.id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_folder_is_used_by_who_stands_below_it_and_by_nobody_else_of_its_filesystem() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("nfs-failover-XXXXXX")).unwrap();
        fs::create_dir(folder.join("below")).unwrap();
        let sleep = |place: &Path| Command::new("sleep").arg("600").current_dir(place).spawn().unwrap();
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
