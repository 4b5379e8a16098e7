//! What is mounted, as the kernel says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::plan::{Trouble, trouble};

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mounted {
    /// Its number.
    pub id: u64,
    /// That of the mount that it lies on.
    pub parent: u64,
    /// Where.
    pub point: PathBuf,
    /// The device's number, or one that stands for none.
    pub device: (u64, u64),
    /// The device's name, or a word.
    pub source: PathBuf,
    /// It takes no writes, as asked for or by itself.
    pub is_read_only: bool,
}

/// The first number of those that stand for no device.
const OF_NO_DEVICE: u64 = 0;
/// What says so, of a mount or of its filesystem, which newer kernels have say what became of it.
const READ_ONLY: &[&str] = &["ro", "emergency_ro", "shutdown"];

/// What this process sees at a folder: the last one mounted there covers the others.
pub fn at(point: &Path) -> Result<Option<Mounted>, Trouble> {
    Ok(all()?.into_iter().rfind(|one| one.point == point))
}

/// What is mounted of a device, wherever.
pub fn of(device: (u64, u64)) -> Result<Vec<Mounted>, Trouble> {
    Ok(all()?.into_iter().filter(|one| one.device == device).collect())
}

/// Of a filesystem's mounts, and of whatever is mounted on them, the latest that nothing is mounted on.
pub fn outermost(all: &[Mounted], device: (u64, u64)) -> Option<&Mounted> {
    let parent = |one: &Mounted| all.iter().find(|other| other.id == one.parent && other.id != one.id);
    let is_on_it = |one: &Mounted| {
        // Each step leads towards the root; no more than there are.
        let lies_on = std::iter::successors(Some(one), |one| parent(one)).take(all.len());
        lies_on.map(|one| one.device).any(|number| number == device)
    };
    let is_free = |one: &Mounted| all.iter().all(|other| other.parent != one.id || other.id == one.id);
    all.iter().rfind(|one| is_free(one) && is_on_it(one))
}

/// Everything.
pub fn all() -> Result<Vec<Mounted>, Trouble> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(trouble("looking for what is mounted"))?;
    Ok(text.lines().filter_map(parse).collect())
}

impl Mounted {
    /// Whether it is this block device, by its number; by its name if the device is gone, or the filesystem is one over several
    /// devices, which has a number of its own.
    pub fn is_of(&self, device: &Path) -> bool {
        match number(device) {
            Some(number) if number == self.device => true,
            Some(_) if self.device.0 != OF_NO_DEVICE => false,
            _ => self.source == device || self.is_named_like(device),
        }
    }

    /// What stands for no device has any name; one that leads to a filesystem that hangs is not followed.
    fn is_named_like(&self, device: &Path) -> bool {
        let real = |path: &Path| fs::canonicalize(path).ok();
        self.source.starts_with("/dev")
            && real(&self.source).is_some_and(|source| Some(source) == real(device))
    }
}

/// The number of a block device.
pub fn number(device: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(device).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    Some((major(metadata.rdev()), minor(metadata.rdev())))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
pub(super) fn parse(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = unescaped(fields.nth(1)?);
    let options = fields.next()?;
    let mut after = after.split(' ').skip(1);
    let source = unescaped(after.next()?);
    let mut options = options.split(',').chain(after.next().unwrap_or_default().split(','));
    Some(Mounted {
        id,
        parent,
        point: point.into(),
        device: (major.parse().ok()?, minor.parse().ok()?),
        source: source.into(),
        is_read_only: options.any(|option| READ_ONLY.contains(&option)),
    })
}

/// Blanks and the like stand as a backslash and three octal digits.
pub(super) fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[3..]);
            }
            None => bytes.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let line =
            r"36 35 98:7 / /srv/my\040nfs rw,noatime master:1 - ext4 /dev/drbd\0400 rw,errors=remount-ro";
        let expected = Mounted {
            id: 36,
            parent: 35,
            point: "/srv/my nfs".into(),
            device: (98, 7),
            source: "/dev/drbd 0".into(),
            is_read_only: false,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescaped(r"a\b\134"), r"a\b\");
    }

    #[test]
    fn a_filesystem_that_takes_no_writes_says_so() {
        let is_read_only = |mount: &str, filesystem: &str| {
            let line = format!("36 35 98:7 / /srv {mount} - ext4 /dev/drbd0 {filesystem}");
            parse(&line).unwrap().is_read_only
        };
        assert!(!is_read_only("rw,noatime", "rw,errors=remount-ro"));
        assert!(is_read_only("rw,noatime", "rw,emergency_ro,errors=remount-ro"));
        assert!(is_read_only("rw,noatime", "ro,errors=remount-ro"));
        assert!(is_read_only("ro,noatime", "rw"));
    }

    type Line = (u64, u64, &'static str, (u64, u64), &'static str);

    /// Mounts by number, what they lie on, place, device and source.
    fn table(lines: &[Line]) -> Vec<Mounted> {
        let mounted = |(id, parent, point, device, source): &Line| Mounted {
            id: *id,
            parent: *parent,
            point: point.into(),
            device: *device,
            source: source.into(),
            is_read_only: false,
        };
        lines.iter().map(mounted).collect()
    }

    #[test]
    fn every_mount_of_a_filesystem_comes_off_and_what_lies_on_it_before() {
        let mut all = table(&[
            (1, 1, "/", (8, 1), "/dev/sda1"),
            (30, 1, "/srv/nfs", (7, 3), "/dev/drbd0"),
            (31, 1, "/export/data", (7, 3), "/dev/drbd0"),
            (32, 30, "/srv/nfs/inner", (0, 50), "tmpfs"),
            (33, 1, "/srv", (0, 51), "tmpfs"),
            (34, 32, "/srv/nfs/inner/bind", (7, 3), "/dev/drbd0"),
            // Mounted over it, and moved there from elsewhere.
            (20, 31, "/export/data", (0, 52), "tmpfs"),
        ]);
        let mut order = Vec::new();
        while let Some(id) = outermost(&all, (7, 3)).map(|one| one.id) {
            order.push(id);
            all.retain(|one| one.id != id);
        }
        assert_eq!(order, [20, 34, 32, 31, 30]);
        assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 33]);
    }

    #[test]
    fn what_is_no_block_device_is_not_taken_for_one_that_is_gone() {
        let device = Path::new("/dev/no-such-drbd0");
        let all = table(&[
            (1, 0, "/srv/nfs", (0, 50), "tmpfs"),
            (2, 0, "/srv/nfs", (0, 51), "server:/x"),
            (3, 0, "/srv/nfs", (0, 52), "zpool/x"),
            (4, 0, "/srv/nfs", (7, 250), "/dev/loop250"),
        ]);
        assert!(all.iter().all(|one| !one.is_of(device)), "{all:?}");
        let [volume, cluster] =
            [(7, 3), (0, 53)].map(|number| table(&[(5, 0, "/srv/nfs", number, "/dev/no-such-drbd0")]));
        assert!(volume[0].is_of(device) && cluster[0].is_of(device), "the device was unplugged under it");
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert!(at(Path::new("/no/such")).unwrap().is_none());
    }
}
