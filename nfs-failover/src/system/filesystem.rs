//! Filesystems: which one it is, whether it can be written, and how it is brought to its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::syncfs;

use super::{mounts, within};
use crate::plan::{Trouble, trouble};

/// Where filesystems say what they are: the magic's place and bytes, and the place of the UUID.
const KNOWN: &[(&str, usize, &[u8], usize)] = &[
    ("ext", 1024 + 0x38, &[0x53, 0xef], 1024 + 0x68),
    ("xfs", 0, b"XFSB", 32),
    ("btrfs", 0x1_0000 + 0x40, b"_BHRfS_M", 0x1_0000 + 0x20),
];
const UUID_BYTES: usize = 16;
/// Covers every place above.
const HEAD_BYTES: u64 = 0x1_1000;

/// The size of a block device in bytes, as the kernel lists it: nothing is opened, and nothing read of it.
pub fn size(device: &Path) -> io::Result<u64> {
    /// Whatever the device's blocks are.
    const SECTOR_BYTES: u64 = 512;
    let (major, minor) = mounts::number(device).ok_or(ErrorKind::NotFound)?;
    let sectors = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
    Ok(sectors * SECTOR_BYTES)
}

/// The UUID of the filesystem on a device; `None` if there is none that is known here.
pub fn uuid(device: &Path) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    File::open(device)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(uuid_in(&head))
}

fn uuid_in(head: &[u8]) -> Option<String> {
    let (_, _, _, at) =
        KNOWN.iter().find(|(_, at, magic, _)| head.get(*at..*at + magic.len()) == Some(*magic))?;
    let hex: String = head.get(*at..*at + UUID_BYTES)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Writes a file to its end on the disk.
pub fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes a file in place of another.
pub fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)?;
    fs::rename(&fresh, path)
}

/// The same, durable before it is seen.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    write_through(&fresh, bytes)?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes everything back; an error says that this hangs or failed.
pub fn sync(point: &Path, limit: Duration) -> Result<(), Trouble> {
    let folder = point.to_owned();
    match within(limit, move || syncfs(File::open(folder)?).map_err(io::Error::from)) {
        Some(result) => result.map_err(trouble("writing everything back")),
        None => Err(Trouble::new(format!(
            "writing everything back takes longer than {:.0} s",
            limit.as_secs_f64()
        ))),
    }
}

/// Options that stand for a flag, with the words that say no to them.
const FLAGS: &[(MsFlags, &str, &str)] = &[
    (MsFlags::MS_RDONLY, "ro", "rw"),
    (MsFlags::MS_NOSUID, "nosuid", "suid"),
    (MsFlags::MS_NODEV, "nodev", "dev"),
    (MsFlags::MS_NOEXEC, "noexec", "exec"),
    (MsFlags::MS_SYNCHRONOUS, "sync", "async"),
    (MsFlags::MS_DIRSYNC, "dirsync", "nodirsync"),
    (MsFlags::MS_NOATIME, "noatime", "atime"),
    (MsFlags::MS_NODIRATIME, "nodiratime", "diratime"),
    (MsFlags::MS_RELATIME, "relatime", "norelatime"),
    (MsFlags::MS_STRICTATIME, "strictatime", "nostrictatime"),
    (MsFlags::MS_LAZYTIME, "lazytime", "nolazytime"),
];
/// Options that are for whoever reads `/etc/fstab`.
const FOR_FSTAB: &[&str] = &["", "defaults", "auto", "noauto", "nofail", "_netdev"];

/// Mounts a device, with options as `mount -o` takes them.
pub fn mount(device: &Path, point: &Path, kind: &str, options: &str) -> io::Result<()> {
    let (flags, data) = flags_in(options);
    Ok(nix::mount::mount(Some(device), point, Some(kind), flags, Some(data.as_str()))?)
}

/// The flags among mount options, and the words that are left for the filesystem.
fn flags_in(options: &str) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut words = Vec::new();
    for word in options.split(',').filter(|word| !FOR_FSTAB.contains(word) && !word.starts_with("x-")) {
        match FLAGS.iter().find(|(_, yes, no)| [yes, no].contains(&&word)) {
            Some((flag, yes, _)) => flags.set(*flag, *yes == word),
            None => words.push(word),
        }
    }
    (flags, words.join(","))
}

/// How an attempt to unmount ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unmount {
    /// It is not mounted any more.
    Done,
    /// Somebody uses it.
    Busy,
    /// It hangs.
    Hangs,
    /// Anything else.
    Failed(String),
}

/// Unmounts, never lazily.
pub fn unmount(point: &Path, limit: Duration) -> Unmount {
    let folder = point.to_owned();
    match within(limit, move || umount2(&folder, MntFlags::UMOUNT_NOFOLLOW)) {
        // EINVAL: nothing is mounted there.
        Some(Ok(()) | Err(Errno::EINVAL)) => Unmount::Done,
        Some(Err(Errno::EBUSY)) => Unmount::Busy,
        Some(Err(error)) => Unmount::Failed(error.to_string()),
        None => Unmount::Hangs,
    }
}

/// Whether the kernel has no filesystem on a block device any more, not even one that is still being brought to its end.
pub fn is_let_go(device: &Path, limit: Duration) -> bool {
    let mut alone = OpenOptions::new();
    alone.read(true).custom_flags(OFlag::O_EXCL.bits());
    let device = device.to_owned();
    match within(limit, move || alone.open(device)) {
        Some(Err(error)) => error.raw_os_error() != Some(Errno::EBUSY as i32),
        Some(Ok(_)) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_known_by_its_uuid() {
        let mut head = vec![0; HEAD_BYTES as usize];
        assert_eq!(uuid_in(&head), None);
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        head[1024 + 0x68] = 0xab;
        assert_eq!(uuid_in(&head).unwrap(), "ab000000-0000-0000-0000-000000000000");
        head[..4].copy_from_slice(b"XFSB");
        head[1024 + 0x38] = 0;
        head[47] = 1;
        assert_eq!(uuid_in(&head).unwrap(), "00000000-0000-0000-0000-000000000001");
        assert_eq!(uuid_in(&head[..40]), None);
    }

    #[test]
    fn mount_options_become_flags_and_words() {
        let options = "defaults,ro,noatime,errors=remount-ro,x-systemd.makefs,nofail,rw,data=ordered";
        assert_eq!(flags_in(options), (MsFlags::MS_NOATIME, "errors=remount-ro,data=ordered".into()));
        assert_eq!(flags_in(""), (MsFlags::empty(), String::new()));
    }

    #[test]
    fn what_is_not_mounted_is_unmounted() {
        assert_eq!(unmount(Path::new("/proc/self/fdinfo"), Duration::from_secs(10)), Unmount::Done);
    }
}
