//! What processes have open, known by the device that it lies on, whatever path it came by. Nothing is followed, only read: a
//! file system that hangs holds nobody up.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// A daemon keeps nothing open that whoever started it had open: a lock, or a pipe at whose other end somebody waits. To be
/// called first of all.
pub fn close_inherited() {
    // A kernel before 5.9 leaves them as they are.
    let _ = crate::sys::close_all_but_standard_streams();
}

/// Whether a process uses the file system of this device number, major and minor.
pub fn uses(pid: i32, device: (u64, u64)) -> bool {
    links(pid).any(|link| device_of(&link) == Some(device))
        || mapped(pid).lines().any(|line| maps(line, device))
}

/// What leads to everything that a process has open, and to where it stands.
pub fn links(pid: i32) -> impl Iterator<Item = PathBuf> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let open_files = fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
    ["cwd", "root", "exe"]
        .map(|name| folder.join(name))
        .into_iter()
        .chain(open_files.map(|entry| entry.path()))
}

/// The table of what a process has mapped.
pub fn mapped(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

/// Where it lies, as the kernel knows: whoever has it may never answer, as a server that is gone.
fn device_of(path: &Path) -> Option<(u64, u64)> {
    let known = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some((known.stx_dev_major.into(), known.stx_dev_minor.into()))
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
}
