//! What holds a filesystem without being a process that uses it, with what lets it go: nobody but the operator knows whether
//! it may be taken away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::mounts::{self, Mounted};
use super::{process::Process, users};

/// Everything found that holds the filesystem of these mounts.
pub fn of(mounted: &[Mounted]) -> Vec<String> {
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(|device| {
        let name = device.file_name().into_string().ok()?;
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        loop_holder(&name, file.trim_end(), mounted)
    });
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swaps = swaps.lines().filter_map(|line| swap_holder(line, mounted));
    loops.chain(swaps).chain(elsewhere(mounted)).collect()
}

fn is_on(file: &str, mounted: &[Mounted]) -> bool {
    mounted.iter().any(|one| Path::new(file).starts_with(&one.point))
}

fn loop_holder(name: &str, file: &str, mounted: &[Mounted]) -> Option<String> {
    is_on(file, mounted).then(|| format!("the loop device of {file} (losetup -d /dev/{name})"))
}

/// `/srv/nfs/swap file 1048572 0 -2`.
fn swap_holder(line: &str, mounted: &[Mounted]) -> Option<String> {
    let file = mounts::unescaped(line.split_whitespace().next()?);
    is_on(&file, mounted).then(|| format!("the swap file {file} (swapoff {file})"))
}

/// Other mount namespaces, such as a container's, each by a process that lives there.
fn elsewhere(mounted: &[Mounted]) -> Vec<String> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen = BTreeSet::from_iter(namespace(std::process::id() as i32));
    let mut found = Vec::new();
    for pid in users::all().filter(|pid| namespace(*pid).is_some_and(|one| seen.insert(one))) {
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let mut there = text.lines().filter_map(mounts::parse);
        let is_ours = |one: &Mounted| mounted.iter().any(|own| own.device == one.device);
        if let (Some(one), Some(process)) = (there.rfind(is_ours), Process::of(pid)) {
            let (who, point) = (users::shown(process), one.point.display());
            found.push(format!("what {who} sees mounted on {point} (nsenter -t {pid} -m umount {point})"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_devices_and_swap_on_a_volume_are_named_with_what_lets_it_go() {
        let mounted = [Mounted {
            id: 2,
            parent: 1,
            point: "/srv/nfs".into(),
            device: (7, 1003),
            source: "/dev/drbd0".into(),
            is_read_only: false,
        }];
        let held = loop_holder("loop7", "/srv/nfs/image", &mounted).unwrap();
        assert_eq!(held, "the loop device of /srv/nfs/image (losetup -d /dev/loop7)");
        assert_eq!(loop_holder("loop7", "/srv/nfs2/image", &mounted), None);
        let held = swap_holder(r"/srv/nfs/a\040b                    file  1048572 0 -2", &mounted).unwrap();
        assert_eq!(held, "the swap file /srv/nfs/a b (swapoff /srv/nfs/a b)");
        assert_eq!(swap_holder("Filename Type Size Used Priority", &mounted), None);
        assert_eq!(elsewhere(&mounted), [""; 0]);
    }
}
