//! Who uses a block device: processes, mounts of every mount namespace, other devices, swap.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::files;

/// Each user of the block device `node`, for the operator; not this process. What is held by the kernel alone is not found: who
/// must know for certain opens the device exclusively.
pub fn find(node: &Path) -> Vec<String> {
    let Ok(number) = fs::metadata(node).map(|m| m.rdev()) else { return Vec::new() };
    let device =
        Device { number, majmin: format!("{}:{}", major(number), minor(number)), node: node.to_owned() };
    let mut found = Vec::new();
    let mut namespaces = HashSet::new();
    for pid in processes() {
        // Who has just ended has nothing open.
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace.is_some_and(|namespace| namespaces.insert(namespace)) {
            found.extend(device.mounts(pid));
        }
        if pid != std::process::id() && device.is_open_in(pid) {
            found.push(named(pid));
        }
    }
    found.extend(device.holders());
    found.extend(device.swap());
    if found.is_empty() {
        found.extend(device.users_of_detached());
    }
    found
}

struct Device {
    number: u64,
    majmin: String,
    node: PathBuf,
}

impl Device {
    fn is_open_in(&self, pid: u32) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().map(|entry| entry.path()).any(|link| {
            // Only what looks like a device is looked at: a file on a dead network file system would not answer.
            fs::read_link(&link).is_ok_and(|target| target.starts_with("/dev"))
                && fs::metadata(&link)
                    .is_ok_and(|file| file.file_type().is_block_device() && file.rdev() == self.number)
        })
    }

    /// The mounts that this process sees.
    fn mounts(&self, pid: u32) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let points = table.lines().filter_map(|line| mount_point(line, &self.majmin, &self.node));
        let first = processes().into_iter().next() == Some(pid);
        let seen_by = if first { String::new() } else { format!(" (as {} sees it)", named(pid)) };
        points.map(|point| format!("the file system mounted on {point}{seen_by}")).collect()
    }

    /// Who keeps a file system alive that was unmounted lazily: no table has it any more.
    fn users_of_detached(&self) -> Vec<String> {
        let device = (major(self.number), minor(self.number));
        let uses = |pid: &u32| *pid != std::process::id() && files::uses(*pid as i32, device);
        let users = processes().into_iter().filter(uses);
        users.map(|pid| format!("{}, on a file system that was unmounted lazily", named(pid))).collect()
    }

    fn holders(&self) -> Vec<String> {
        let holders = fs::read_dir(format!("/sys/dev/block/{}/holders", self.majmin));
        let names = holders.into_iter().flatten().flatten();
        names.map(|entry| format!("the block device {}", entry.file_name().to_string_lossy())).collect()
    }

    fn swap(&self) -> Option<String> {
        let swaps = fs::read_to_string("/proc/swaps").ok()?;
        let is_ours = |line: &str| line.split(' ').next().is_some_and(|path| Path::new(path) == self.node);
        swaps.lines().any(is_ours).then(|| "the kernel's swap".into())
    }
}

/// The mount point in a line of mountinfo, if it is a mount of this device.
fn mount_point(line: &str, majmin: &str, node: &Path) -> Option<String> {
    let (mount, source) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let number = fields.nth(2)?;
    let point = fields.nth(1)?;
    // File systems of many devices have a number of their own.
    let is_ours =
        number == majmin || source.split(' ').nth(1).is_some_and(|source| Path::new(source) == node);
    is_ours.then(|| point.replace("\\040", " "))
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn named(pid: u32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (pid {pid})", command.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_known_by_number_and_by_source() {
        let node = Path::new("/dev/loop3");
        let line = "36 35 7:3 / /srv/my\\040data rw,noatime shared:1 - ext4 /dev/loop3 rw,errors=remount-ro";
        assert_eq!(mount_point(line, "7:3", Path::new("/dev/x")).as_deref(), Some("/srv/my data"));
        let btrfs = "36 35 0:30 /sub /b rw - btrfs /dev/loop3 rw";
        assert_eq!(mount_point(btrfs, "7:3", node).as_deref(), Some("/b"));
        assert_eq!(mount_point(btrfs, "7:3", Path::new("/dev/loop31")), None);
        assert_eq!(mount_point(line, "7:31", Path::new("/dev/loop31")), None);
        assert_eq!(mount_point("nonsense", "7:3", node), None);
    }
}
