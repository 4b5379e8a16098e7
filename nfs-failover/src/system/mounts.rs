//! What is mounted, as the kernel says.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::plan::{Trouble, trouble};

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mounted {
    /// Where.
    pub point: PathBuf,
    /// The device's number, or one that stands for none.
    pub device: (u64, u64),
    /// The device's name, or a word.
    pub source: PathBuf,
    /// It takes no writes, as asked for or by itself.
    pub is_read_only: bool,
}

/// What says so, of a mount or of its filesystem, which newer kernels have say what became of it.
const READ_ONLY: &[&str] = &["ro", "emergency_ro", "shutdown"];

/// What this process sees at a folder: the last one mounted there covers the others.
pub fn at(point: &Path) -> Result<Option<Mounted>, Trouble> {
    Ok(all()?.into_iter().rfind(|one| one.point == point))
}

/// What is mounted inside a folder, the innermost first.
pub fn inside(point: &Path) -> Result<Vec<Mounted>, Trouble> {
    let mut found: Vec<Mounted> =
        all()?.into_iter().filter(|m| m.point != point && m.point.starts_with(point)).collect();
    found.reverse();
    Ok(found)
}

/// What is mounted of a device, wherever.
pub fn of(device: (u64, u64)) -> Result<Vec<Mounted>, Trouble> {
    Ok(all()?.into_iter().filter(|one| one.device == device).collect())
}

fn all() -> Result<Vec<Mounted>, Trouble> {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(trouble("looking for what is mounted"))?;
    Ok(text.lines().filter_map(parse).collect())
}

impl Mounted {
    /// Whether it is this block device. Filesystems over several devices have a number of their own, so the name counts
    /// too.
    pub fn is_of(&self, device: &Path) -> bool {
        let same_name = || fs::canonicalize(&self.source).ok() == fs::canonicalize(device).ok();
        number(device) == Some(self.device) || same_name()
    }
}

/// The number of a block device.
pub fn number(device: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(device).ok().filter(|metadata| metadata.file_type().is_block_device())?;
    Some((major(metadata.rdev()), minor(metadata.rdev())))
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn parse(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = unescaped(fields.nth(1)?);
    let options = fields.next()?;
    let mut after = after.split(' ').skip(1);
    let source = unescaped(after.next()?);
    let mut options = options.split(',').chain(after.next().unwrap_or_default().split(','));
    Some(Mounted {
        point: point.into(),
        device: (major.parse().ok()?, minor.parse().ok()?),
        source: source.into(),
        is_read_only: options.any(|option| READ_ONLY.contains(&option)),
    })
}

/// Blanks and the like stand as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
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

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert!(at(Path::new("/no/such")).unwrap().is_none());
    }
}
