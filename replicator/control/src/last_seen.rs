//! Where the metadata of a disk was when it was last in use. Internal metadata lies at the disk's end; if the disk grows while
//! nobody looks, it ends elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tandem_core::metadata::LastPlace;

use crate::RuntimeDir;

/// A folder with a small file per disk; it outlives the machine's restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastSeen(PathBuf);

impl LastSeen {
    /// Of the daemon with this runtime folder.
    pub fn of(run: &RuntimeDir) -> Self {
        LastSeen(run.kept().join("last-seen"))
    }

    /// Where the metadata of this disk may be; `None` if nothing is known that makes sense.
    pub fn read(&self, disk: &Path) -> Option<LastPlace> {
        let text = fs::read_to_string(self.0.join(name_of(disk))).ok()?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let device_id = u64::from_str_radix(words.next()?, 16).ok()?;
        let ends = words.map(|end| end.parse().ok()).collect::<Option<_>>()?;
        Some(LastPlace { device_id, ends })
    }

    /// The metadata was found, or put, where the disk ends that is so large: nowhere else is it.
    pub fn found(&self, disk: &Path, device_id: u64, disk_bytes: u64) -> io::Result<()> {
        self.write(disk, &LastPlace { device_id, ends: vec![disk_bytes] })
    }

    /// The metadata, which is where `used` says, may move to where the disk ends that has grown so large. It must not if that
    /// cannot be noted.
    pub fn may_move(&self, disk: &Path, used: &LastPlace, disk_bytes: u64) -> io::Result<()> {
        let noted = self.read(disk).filter(|last| last.device_id == used.device_id);
        let mut last = noted.unwrap_or(LastPlace { device_id: used.device_id, ends: Vec::new() });
        for end in used.ends.iter().chain([&disk_bytes]) {
            if !last.ends.contains(end) {
                last.ends.push(*end);
            }
        }
        self.write(disk, &last)
    }

    /// The metadata is destroyed, wherever it was.
    pub fn forget(&self, disk: &Path) -> io::Result<()> {
        match fs::remove_file(self.0.join(name_of(disk))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, disk: &Path, last: &LastPlace) -> io::Result<()> {
        if self.read(disk).as_ref() == Some(last) {
            return Ok(());
        }
        fs::create_dir_all(&self.0)?;
        let path = self.0.join(name_of(disk));
        let new = self.0.join(format!("new-{}", name_of(disk)));
        let ends: Vec<String> = last.ends.iter().map(u64::to_string).collect();
        fs::write(&new, format!("{:016x} {}\n", last.device_id, ends.join(" ")))?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(&self.0)?.sync_all()
    }
}

/// One name per path.
fn name_of(disk: &Path) -> String {
    disk.to_string_lossy().replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_one_disk_is_not_told_of_another() {
        let folder = std::env::temp_dir().join(format!("tandem-last-seen-{}", std::process::id()));
        let last_seen = LastSeen::of(&RuntimeDir::new(&folder));
        let (one, other) = (Path::new("/dev/a/b"), Path::new("/dev/a%2Fb"));
        assert_eq!(last_seen.read(one), None);
        last_seen.found(one, 0xfedc_ba98_7654_3210, 1 << 40).unwrap();
        let used = LastPlace { device_id: 0xfedc_ba98_7654_3210, ends: vec![1 << 40] };
        last_seen.may_move(one, &used, 1 << 41).unwrap();
        let last = LastPlace { ends: vec![1 << 40, 1 << 41], ..used };
        assert_eq!((last_seen.read(one), last_seen.read(other)), (Some(last), None));
        last_seen.found(one, 7, 1 << 41).unwrap();
        assert_eq!(last_seen.read(one), Some(LastPlace { device_id: 7, ends: vec![1 << 41] }));
        last_seen.forget(one).unwrap();
        last_seen.forget(one).unwrap();
        assert_eq!(last_seen.read(one), None);
        fs::write(last_seen.0.join(name_of(other)), "0000000000000007 1048").unwrap();
        assert_eq!(last_seen.read(other), None, "half a line says nothing");
        fs::remove_dir_all(folder).unwrap();
    }

    /// Nothing was noted when the disk was taken into use, or it was another disk's: there was no room in /var.
    #[test]
    fn a_move_is_noted_where_nothing_was_or_does_not_begin() {
        let folder = std::env::temp_dir().join(format!("tandem-no-room-{}", std::process::id()));
        let last_seen = LastSeen::of(&RuntimeDir::new(&folder));
        let disk = Path::new("/dev/disk");
        let used = LastPlace { device_id: 7, ends: vec![4096] };
        fs::create_dir_all(last_seen.0.parent().unwrap()).unwrap();
        fs::write(&last_seen.0, "in the way").unwrap();
        assert!(last_seen.may_move(disk, &used, 8192).is_err());
        fs::remove_file(&last_seen.0).unwrap();
        last_seen.may_move(disk, &used, 8192).unwrap();
        assert_eq!(last_seen.read(disk), Some(LastPlace { device_id: 7, ends: vec![4096, 8192] }));
        last_seen.may_move(disk, &LastPlace { device_id: 8, ends: vec![12288] }, 16384).unwrap();
        assert_eq!(last_seen.read(disk), Some(LastPlace { device_id: 8, ends: vec![12288, 16384] }));
        fs::remove_dir_all(folder).unwrap();
    }
}
