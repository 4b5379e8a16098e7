//! A resource's disk as `create-md` and its kin see it: opened exclusively, read and written through the page cache.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tandem_control::{LastSeen, ResourceSpec, RuntimeDir, reason};
use tandem_core::io::DiskError;
use tandem_core::layout::Layout;
use tandem_core::metadata::{
    Geometry, LoadError, MetaIo, Metadata, Placement, VolumeDisk, bytes_until_metadata_ends,
    bytes_until_stamp_ends, check_stamp, check_volumes, probe, wipe,
};
use tandem_core::units::ByteRange;
use thiserror::Error;

use crate::bar::Shown;
use crate::session::Session;

/// Why a disk could not be opened; the exit code is 20, as drbdmeta's.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system call failed.
    #[error("open({path}) failed: {}", reason(source))]
    Io {
        /// What was to be opened.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Somebody else uses it.
    #[error("{0} is in use: by tandemd ('tandemadm down' gives it up), by a mount, or by another program")]
    Busy(PathBuf),
    /// Neither a regular file nor a block device.
    #[error("{0} is neither a regular file nor a block device")]
    Kind(PathBuf),
}

/// What the file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only looking: nobody is locked out, a running daemon does not matter.
    Look,
    /// Only looking, and nobody changes it meanwhile.
    LookAlone,
    /// Changing: nobody else may use it meanwhile.
    Exclusive,
}

/// An open regular file or block device.
#[derive(Debug)]
pub struct Device {
    file: OpenFile,
    path: PathBuf,
    size_bytes: u64,
}

#[derive(Debug)]
enum OpenFile {
    Shared(File),
    Locked(Flock<File>),
}

impl Device {
    /// Opens the device or file at `path`.
    pub fn open(path: &Path, access: Access) -> Result<Device, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::Exclusive);
        if access != Access::Look && kind.is_block_device() {
            options.custom_flags(OFlag::O_EXCL.bits());
        }
        let mut file = options.open(path).map_err(|e| match e.raw_os_error() {
            Some(code) if code == Errno::EBUSY as i32 => OpenError::Busy(path.to_owned()),
            _ => io(e),
        })?;
        let size_bytes = file.seek(SeekFrom::End(0)).map_err(io)?;
        let file = match access {
            Access::Look => OpenFile::Shared(file),
            Access::LookAlone | Access::Exclusive => OpenFile::Locked(lock(file, path)?),
        };
        Ok(Device { file, path: path.to_owned(), size_bytes })
    }

    /// If its metadata lies where it ended before it grew, that counts as its end.
    fn end_with_metadata(&mut self) {
        let last = LastSeen::of(&RuntimeDir::from_env()).read(&self.path);
        // What cannot be read is found by whoever wants the metadata.
        self.size_bytes = bytes_until_metadata_ends(self, last.as_ref()).unwrap_or(self.size_bytes);
    }

    /// If its stamp lies where it ended before it grew, that counts as its end.
    fn end_with_stamp(&mut self, device_id: u64, volume: u16) {
        let last = LastSeen::of(&RuntimeDir::from_env()).read(&self.path);
        // What cannot be read is found by whoever checks the stamp.
        let end = bytes_until_stamp_ends(self, last.as_ref(), device_id, volume);
        self.size_bytes = end.unwrap_or(self.size_bytes);
    }

    /// From now on all of it counts. Where it ended for its metadata, if that was elsewhere.
    pub fn use_all(&mut self) -> Result<Option<u64>, DiskError> {
        let end = self.file().seek(SeekFrom::End(0)).map_err(|e| self.failed("the size of", 0, &e))?;
        let before = std::mem::replace(&mut self.size_bytes, end);
        Ok((before < end).then_some(before))
    }

    /// Nobody looks any more for metadata where the device ended before it grew.
    pub fn forget_last_place(&self) -> Result<(), DiskError> {
        let forgotten = LastSeen::of(&RuntimeDir::from_env()).forget(&self.path);
        forgotten.map_err(|error| DiskError(format!("cannot forget where its meta-data was: {error}")))
    }

    /// Destroys the superblocks of metadata that ended there.
    pub fn wipe_metadata_before(&mut self, end: u64) -> Result<(), DiskError> {
        let all = std::mem::replace(&mut self.size_bytes, end);
        let wiped = wipe(self, Placement::Internal);
        self.size_bytes = all;
        wiped
    }

    /// Reads what there is at `offset`, at most `length` bytes: nothing beyond the end.
    pub fn read_up_to(&self, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let available = self.size_bytes.saturating_sub(offset).min(length as u64) as usize;
        let mut bytes = vec![0; available];
        self.file().read_exact_at(&mut bytes, offset).map_err(|e| self.failed("reading", offset, &e))?;
        Ok(bytes)
    }

    fn file(&self) -> &File {
        match &self.file {
            OpenFile::Shared(file) => file,
            OpenFile::Locked(file) => file,
        }
    }

    fn failed(&self, what: &str, offset: u64, error: &std::io::Error) -> DiskError {
        DiskError(format!("{what} {} at byte {offset}: {error}", self.path.display()))
    }
}

fn lock(file: File, path: &Path) -> Result<Flock<File>, OpenError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::Busy(path.to_owned()),
        _ => OpenError::Io { path: path.to_owned(), source: errno.into() },
    })
}

impl MetaIo for Device {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file().read_exact_at(buffer, offset).map_err(|e| self.failed("reading", offset, &e))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.file().write_all_at(data, offset).map_err(|e| self.failed("writing", offset, &e))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file().sync_data().map_err(|e| self.failed("flushing", 0, &e))
    }
}

/// The disk of a resource's first volume, the device of the metadata if that is another, and the other volumes' disks if
/// they are of interest.
#[derive(Debug)]
pub struct Target {
    /// The data's device.
    pub data: Device,
    /// Of the other volumes, by ascending number.
    pub more_data: Vec<Device>,
    /// The metadata's device; `None` when internal.
    pub external: Option<Device>,
}

impl Target {
    /// Opens the first volume's disk, and what holds the metadata.
    pub fn open(spec: &ResourceSpec, access: Access) -> Result<Target, OpenError> {
        let volume = &spec.volume;
        let external = volume.meta_disk.as_deref().map(|path| Device::open(path, access)).transpose()?;
        let mut data = Device::open(&volume.disk, access)?;
        if external.is_none() {
            data.end_with_metadata();
        }
        Ok(Target { data, more_data: Vec::new(), external })
    }

    /// Opens the disks of all volumes.
    pub fn open_all(spec: &ResourceSpec, access: Access) -> Result<Target, OpenError> {
        let mut target = Target::open(spec, access)?;
        let placement = target.placement();
        let device_id =
            probe(target.metadata_device(), placement).ok().map(|superblock| superblock.device_id);
        for volume in &spec.more_volumes {
            let mut device = Device::open(&volume.disk, access)?;
            if let Some(device_id) = device_id.filter(|_| volume.meta_disk.is_none()) {
                device.end_with_stamp(device_id, volume.number);
            }
            target.more_data.push(device);
        }
        Ok(target)
    }

    /// The disks that were opened, as the metadata's layout sees them.
    pub fn volume_disks(&self, spec: &ResourceSpec) -> Vec<VolumeDisk> {
        let devices = std::iter::once(&self.data).chain(&self.more_data);
        spec.volumes().zip(devices).map(|(volume, device)| volume.with_disk_of(device.size_bytes())).collect()
    }

    /// Compares what the metadata was made for with the configuration, the disks' sizes, and what the other volumes' disks
    /// say of themselves.
    pub fn check(&mut self, spec: &ResourceSpec, metadata: &mut Metadata) -> Result<(), LoadError> {
        check_volumes(metadata, &self.volume_disks(spec))?;
        let device_id = metadata.superblock.device_id;
        self.stamped(spec).try_for_each(|(disk, number)| check_stamp(disk, device_id, number))
    }

    /// The other volumes' disks that have room for a stamp, with the volumes' numbers.
    pub fn stamped<'a>(
        &'a mut self,
        spec: &'a ResourceSpec,
    ) -> impl Iterator<Item = (&'a mut Device, u16)> + 'a {
        let others = self.more_data.iter_mut().zip(&spec.more_volumes);
        others.filter(|(_, volume)| volume.meta_disk.is_none()).map(|(disk, volume)| (disk, volume.number))
    }

    /// Reads of the resource's space of blocks; pads between volumes are zeroes.
    pub fn read_space(&self, layout: &Layout, range: ByteRange) -> Result<Vec<u8>, DiskError> {
        let devices: Vec<&Device> = std::iter::once(&self.data).chain(&self.more_data).collect();
        let mut bytes = vec![0; range.length as usize];
        for part in layout.parts(range) {
            let read = match devices.get(part.index) {
                Some(device) => device.read_up_to(part.range.offset, part.range.length as usize)?,
                None => return Err(DiskError(format!("{range}: volume {} is not open", part.index))),
            };
            let from = (part.offset - range.offset) as usize;
            bytes[from..from + read.len()].copy_from_slice(&read);
        }
        Ok(bytes)
    }

    /// Writes to the resource's space of blocks; pads between volumes are passed over.
    pub fn write_space(&mut self, layout: &Layout, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let range = ByteRange::new(offset, data.len() as u64);
        for part in layout.parts(range) {
            let from = (part.offset - offset) as usize;
            let part_of_data = &data[from..from + part.range.length as usize];
            match part.index {
                0 => self.data.write_at(part.range.offset, part_of_data)?,
                other => match self.more_data.get_mut(other - 1) {
                    Some(device) => device.write_at(part.range.offset, part_of_data)?,
                    None => return Err(DiskError(format!("{range}: volume {other} is not open"))),
                },
            }
        }
        Ok(())
    }

    /// Makes the data of all volumes durable.
    pub fn flush_data(&mut self) -> Result<(), DiskError> {
        std::iter::once(&mut self.data).chain(&mut self.more_data).try_for_each(Device::flush)
    }

    /// Internal or external.
    pub fn placement(&self) -> Placement {
        if self.external.is_some() { Placement::External } else { Placement::Internal }
    }

    /// The same, with a bar for who has a terminal.
    pub(crate) fn shown(&mut self, session: &Session, what: &str) -> Shown<'_> {
        let (placement, backing_bytes) = (self.placement(), self.data.size_bytes());
        let device = self.metadata_device();
        let bytes = probe(device, placement).ok().and_then(|superblock| {
            let others = superblock.covered_behind_first();
            let max_peers = superblock.peers.len() as u8;
            Geometry::with_more_volumes(placement, backing_bytes, device.size_bytes(), max_peers, others).ok()
        });
        Shown::new(device, session.bars, what.to_owned(), bytes.map_or(0, |geometry| geometry.bitmap_bytes))
    }

    /// The device that holds the metadata.
    pub fn metadata_device(&mut self) -> &mut Device {
        self.external.as_mut().unwrap_or(&mut self.data)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `dump-md` of a disk that lies on a read-only file system, and that nobody else may change meanwhile.
    #[test]
    fn who_looks_alone_writes_nothing_and_lets_nobody_write() {
        let path = std::env::temp_dir().join(format!("tandemadm-look-{}", std::process::id()));
        std::fs::write(&path, [7; 8192]).unwrap();
        let mut device = Device::open(&path, Access::LookAlone).unwrap();
        assert_eq!(device.read_up_to(0, 4096).unwrap(), [7; 4096]);
        assert!(device.write_at(0, &[0; 4096]).is_err());
        assert!(matches!(Device::open(&path, Access::Exclusive), Err(OpenError::Busy(_))));
        drop(device);
        Device::open(&path, Access::Exclusive).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
