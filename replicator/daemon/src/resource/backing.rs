//! Opening the backing device or file: exclusively, with O_DIRECT where that works, and reading its metadata.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tandem_control::{LastSeen, ResourceSpec, VolumeSpec};
use tandem_core::io::{DiskError, Measured};
use tandem_core::metadata::{
    LastPlace, LoadError, MetaIo, Metadata, Placement, UndoLog, VolumeDisk, bring_to_end, check_stamp,
    check_volumes, load, move_stamp, read_undo_log, room_bytes, stamped_before_end,
};
use tandem_core::refusal::METADATA_IO_ERROR;
use tandem_core::units::BLOCK_BYTES;

use super::buffer::BufferPool;
use crate::failure::Failure;

/// How long a lock that another process holds is tried for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// An open device or file that nobody else uses.
pub(crate) struct Backing {
    pub(crate) path: PathBuf,
    /// For the ring.
    pub(crate) file: Arc<File>,
    /// When it was last measured.
    pub(crate) size_bytes: Cell<u64>,
    /// So much of it counts, of a disk behind the first volume's: up to where its stamp lies.
    used_bytes: Cell<u64>,
    /// Past the page cache: addresses, offsets and lengths must be aligned.
    pub(crate) direct: bool,
    /// It can deallocate ranges that read as zeroes afterwards. Assumed until it says otherwise.
    pub(crate) punches_holes: Cell<bool>,
    /// It can write zeroes by itself. Assumed until it says otherwise.
    pub(crate) zeroes_ranges: Cell<bool>,
    pub(crate) cache: Cache,
    _lock: Flock<File>,
}

/// The disks of the resource's volumes.
pub(crate) struct Disks {
    /// One per volume, by ascending number.
    pub(crate) data: Vec<Rc<Backing>>,
    /// The first volume's once more when the metadata is internal.
    pub(crate) meta: Rc<Backing>,
    /// The file for undo logs, if one is configured and can be used.
    pub(crate) undo: Option<Rc<Backing>>,
    /// Of the metadata: what the stamps say, and for how many peers room stays free.
    device_id: u64,
    max_peers: u8,
}

/// Which of DRBD's texts a failure to open gets.
#[derive(Clone, Copy)]
enum Purpose {
    Data,
    Meta,
}

/// What may be in the disk's cache only.
#[derive(Default)]
pub(crate) struct Cache {
    writes_done: Cell<u64>,
    /// How many of them a flush that has succeeded covers; `None`: what was written before we came may be in there.
    writes_durable: Cell<Option<u64>>,
}

impl Cache {
    /// A write of data has ended.
    pub(crate) fn written(&self) {
        self.writes_done.set(self.writes_done.get() + 1);
    }

    /// How many writes a flush that begins now will make durable; `None` if they are.
    pub(crate) fn to_flush(&self) -> Option<u64> {
        let done = self.writes_done.get();
        (self.writes_durable.get() != Some(done)).then_some(done)
    }

    /// It has.
    pub(crate) fn flushed(&self, writes: u64) {
        self.writes_durable.set(self.writes_durable.get().max(Some(writes)));
    }
}

/// Opens the volumes' disks and reads the metadata.
pub(crate) fn attach(
    spec: &ResourceSpec,
    last_seen: &LastSeen,
    pool: &BufferPool,
) -> Result<(Disks, Metadata), Failure> {
    let resource = spec.name.as_str();
    let refused = |error| describe(error, resource);
    let first = open(&spec.volume.disk, Purpose::Data, pool)?;
    let mut others = Vec::new();
    for volume in &spec.more_volumes {
        others.push(open(&volume.disk, Purpose::Data, pool)?);
    }
    if spec.volume.meta_disk.is_none() {
        first.size_bytes.set(bring_metadata_to_end(&first, last_seen, spec, pool).map_err(refused)?);
    }
    let first = Rc::new(first);
    let (meta, placement) = match &spec.volume.meta_disk {
        None => (first.clone(), Placement::Internal),
        Some(path) => (Rc::new(open(path, Purpose::Meta, pool)?), Placement::External),
    };
    let volume_disks = volume_disks(spec, &first, &others);
    let mut reader = MetadataReader { backing: &meta, pool };
    let mut metadata = load(&mut reader, placement, first.size_bytes.get(), spec.node.id)
        .inspect(|metadata| tell_of_small_meta_disk(&meta, &first, metadata, resource))
        .and_then(|mut metadata| check_volumes(&mut metadata, &volume_disks).map(|()| metadata))
        .map_err(refused)?;
    let device_id = metadata.superblock.device_id;
    // Where the metadata would be elsewhere, the whole disk is data.
    let stamped = spec.more_volumes.iter().zip(&others).filter(|(volume, _)| volume.meta_disk.is_none());
    for (volume, backing) in stamped {
        find_stamp(backing, last_seen, device_id, volume.number, pool).map_err(refused)?;
        remember(backing, last_seen, device_id);
    }
    if placement == Placement::Internal {
        remember(&first, last_seen, device_id);
    }
    // Now that it is known how much of each disk counts.
    check_volumes(&mut metadata, &self::volume_disks(spec, &first, &others)).map_err(refused)?;
    let data: Vec<Rc<Backing>> = std::iter::once(first).chain(others.into_iter().map(Rc::new)).collect();
    for disk in data.iter().chain([&meta]) {
        let path = disk.path.display();
        tracing::debug!(resource, %path, bytes = disk.size_bytes.get(), direct = disk.direct, "opened");
    }
    let undo = spec.undo_log.as_ref().and_then(|path| match open_undo(path, &mut metadata, pool) {
        Ok(backing) => Some(Rc::new(backing)),
        Err(error) => {
            let path = path.display();
            tracing::warn!(resource, %path, "no undo log is kept of resyncs: {error}");
            None
        }
    });
    let max_peers = metadata.geometry.max_peers;
    Ok((Disks { data, meta, undo, device_id, max_peers }, metadata))
}

/// The disks as the metadata's layout sees them.
fn volume_disks(spec: &ResourceSpec, first: &Backing, others: &[Backing]) -> Vec<VolumeDisk> {
    let used = |disk: &Backing| disk.used_bytes.get().min(disk.size_bytes.get());
    let sizes = std::iter::once(first).chain(others).map(used);
    spec.volumes().zip(sizes).map(|(volume, bytes)| volume.with_disk_of(bytes)).collect()
}

/// A disk that has grown may have outgrown its meta-disk.
fn tell_of_small_meta_disk(meta: &Backing, disk: &Backing, metadata: &Metadata, resource: &str) {
    let (used_bytes, bytes) = (metadata.geometry.data_bytes, disk.size_bytes.get());
    let external = metadata.geometry.placement == Placement::External;
    if external && metadata.superblock.layout.is_single() && used_bytes < bytes / BLOCK_BYTES * BLOCK_BYTES {
        let (path, meta_disk) = (disk.path.display(), meta.path.display());
        tracing::warn!(
            resource, %path,
            "has grown to {bytes} bytes, more than {meta_disk} has room for the bitmaps of: it is used up to byte \
             {used_bytes}. Grow {meta_disk} to use all of it"
        );
    }
}

/// Moves internal metadata to the end of a disk that has grown. Returns how many bytes of the disk are used.
fn bring_metadata_to_end(
    disk: &Backing,
    last_seen: &LastSeen,
    spec: &ResourceSpec,
    pool: &BufferPool,
) -> Result<u64, LoadError> {
    let last = last_seen.read(&disk.path);
    if let Some(last) = &last {
        // Whatever comes of this attempt: the next one must look there, too.
        last_seen
            .may_move(&disk.path, last, disk.size_bytes.get())
            .map_err(|error| not_noted(disk, &error))?;
    }
    let used_bytes = bring_to_end(&mut MetadataReader { backing: disk, pool }, last.as_ref(), spec.node.id)?;
    let (resource, path, bytes) = (spec.name.as_str(), disk.path.display(), disk.size_bytes.get());
    if used_bytes < bytes {
        tracing::warn!(resource, %path, "has grown to {bytes} bytes; its meta-data stays where it ended, at {used_bytes}");
    } else if last.is_some_and(|last| !last.ends.contains(&bytes)) {
        tracing::info!(resource, %path, "has {bytes} bytes now; its meta-data is looked for at the end");
    }
    Ok(used_bytes)
}

/// Looks for the stamp where it was if it is not at the disk's end: no more of the disk is used, then. If it was on its way
/// there, it arrives.
fn find_stamp(
    disk: &Backing,
    last_seen: &LastSeen,
    device_id: u64,
    volume: u16,
    pool: &BufferPool,
) -> Result<(), LoadError> {
    let mut io = MetadataReader { backing: disk, pool };
    let last = last_seen.read(&disk.path);
    let stamped_before = stamped_before_end(&mut io, last.as_ref(), device_id, volume)?;
    let checked = check_stamp(&mut io, device_id, volume);
    match stamped_before {
        None => checked?,
        Some(end) if checked.is_ok() => move_stamp(&mut io, end, device_id, volume)?,
        Some(end) => disk.used_bytes.set(end),
    }
    Ok(())
}

/// All of the disk of a volume behind the first is used from now on: the stamp moves to its end.
fn bring_stamp_to_end(
    disk: &Backing,
    last_seen: &LastSeen,
    stamp: (u64, u16),
    pool: &BufferPool,
) -> Result<(), DiskError> {
    let (now, old_bytes, (device_id, volume)) = (size_now(disk)?, disk.used_bytes.get(), stamp);
    if now / BLOCK_BYTES <= old_bytes / BLOCK_BYTES {
        return Ok(());
    }
    let used = LastPlace { device_id, ends: vec![old_bytes] };
    last_seen.may_move(&disk.path, &used, now).map_err(|error| not_noted(disk, &error))?;
    disk.size_bytes.set(now);
    move_stamp(&mut MetadataReader { backing: disk, pool }, old_bytes, device_id, volume)?;
    disk.used_bytes.set(now);
    remember(disk, last_seen, device_id);
    Ok(())
}

/// Whoever opens the disk next finds the metadata, or the stamp, where it is now, whatever becomes of the disk's size.
fn remember(disk: &Backing, last_seen: &LastSeen, device_id: u64) {
    let counts = disk.used_bytes.get().min(disk.size_bytes.get());
    if let Err(error) = last_seen.found(&disk.path, device_id, counts) {
        let path = disk.path.display();
        tracing::warn!(%path, "if the disk grows, its meta-data will not be found: where it is cannot be noted: {error}");
    }
}

fn not_noted(disk: &Backing, error: &io::Error) -> DiskError {
    DiskError(format!("cannot note where the meta-data of {} is: {error}", disk.path.display()))
}

/// All of the disks of the volumes behind the first is used from now on.
pub(crate) fn use_other_disks(
    disks: &Disks,
    spec: &ResourceSpec,
    last_seen: &LastSeen,
    pool: &BufferPool,
) -> Result<(), DiskError> {
    let mut stamped = spec.more_volumes.iter().zip(&disks.data[1..]).filter(|(v, _)| v.meta_disk.is_none());
    let device_id = disks.device_id;
    stamped
        .try_for_each(|(volume, disk)| bring_stamp_to_end(disk, last_seen, (device_id, volume.number), pool))
}

/// How large the disks are now. Internal metadata, which is where `used` says, may move to the end of one that has grown: an
/// error if that cannot be noted.
pub(crate) fn measure(
    disks: &Disks,
    spec: &ResourceSpec,
    last_seen: &LastSeen,
    used: Option<LastPlace>,
) -> Result<Measured, DiskError> {
    let first = &disks.data[0];
    let max_peers = disks.max_peers;
    let other_room = |(volume, disk): (&VolumeSpec, &Rc<Backing>)| -> Result<u64, DiskError> {
        let VolumeDisk { placement, backing_bytes, size_bytes, .. } = volume.with_disk_of(size_now(disk)?);
        let room = room_bytes(placement, backing_bytes, max_peers).map_err(|e| DiskError(e.to_string()))?;
        Ok(room.min(size_bytes.unwrap_or(u64::MAX)))
    };
    let measured = size_now(first).and_then(|backing_bytes| {
        let blocks = backing_bytes / BLOCK_BYTES;
        if let Some(used) = used.filter(|used| used.ends.iter().all(|end| end / BLOCK_BYTES < blocks)) {
            last_seen
                .may_move(&first.path, &used, backing_bytes)
                .map_err(|error| not_noted(first, &error))?;
        }
        Ok(Measured {
            backing_bytes,
            meta_bytes: size_now(&disks.meta)?,
            limit_bytes: spec.volume.size_bytes,
            other_rooms: spec
                .more_volumes
                .iter()
                .zip(&disks.data[1..])
                .map(other_room)
                .collect::<Result<_, _>>()?,
        })
    });
    measured.inspect_err(|error| {
        let (resource, path) = (spec.name.as_str(), first.path.display());
        tracing::warn!(resource, %path, "is used as large as it was: {error}");
    })
}

fn size_now(disk: &Backing) -> Result<u64, DiskError> {
    let size = (&*disk.file).seek(SeekFrom::End(0));
    size.map_err(|error| DiskError(format!("cannot find out the size of {}: {error}", disk.path.display())))
}

/// Opens the file for undo logs, and goes on with the log of a resync that was interrupted.
fn open_undo(path: &Path, metadata: &mut Metadata, pool: &BufferPool) -> Result<Backing, DiskError> {
    let failed = |error: io::Error| DiskError(error.to_string());
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    let (file, direct) = open_file(path, pool).map_err(failed)?;
    let backing = use_file(path, file, direct).map_err(failed)?;
    let volume_bytes = metadata.volume_bytes();
    let mut reader = MetadataReader { backing: &backing, pool };
    let log = read_undo_log(&mut reader, &metadata.superblock, volume_bytes, |_, _| Ok(()));
    metadata.undo = Some(log.unwrap_or_else(|_| UndoLog::new(0, volume_bytes)));
    Ok(backing)
}

fn open(path: &Path, purpose: Purpose, pool: &BufferPool) -> Result<Backing, Failure> {
    let (cannot_open, claimed) = match purpose {
        Purpose::Data => (
            (104, "Can not open backing device."),
            (114, "Lower device is already claimed. This usually means it is mounted."),
        ),
        Purpose::Meta => (
            (105, "Can not open meta device."),
            (115, "Meta device is already claimed. This usually means it is mounted."),
        ),
    };
    let failure = |(number, text), error: io::Error| {
        Failure::numbered(number, text).because(format_args!("{}: {error}", path.display()))
    };
    let (file, direct) = open_file(path, pool).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => failure(claimed, error),
        _ => failure(cannot_open, error),
    })?;
    use_file(path, file, direct).map_err(|error| match error.raw_os_error() {
        Some(libc::EWOULDBLOCK) => failure(claimed, error),
        _ => failure(cannot_open, error),
    })
}

fn use_file(path: &Path, file: File, direct: bool) -> io::Result<Backing> {
    let shared = file.try_clone()?;
    let lock = lock(file)?;
    let size_bytes = (&*lock).seek(SeekFrom::End(0))?;
    Ok(Backing {
        path: path.to_owned(),
        file: Arc::new(shared),
        size_bytes: Cell::new(size_bytes),
        used_bytes: Cell::new(size_bytes),
        direct,
        punches_holes: Cell::new(true),
        zeroes_ranges: Cell::new(true),
        cache: Cache::default(),
        _lock: lock,
    })
}

/// A daemon that was killed with operations in flight holds its lock until the kernel has ended them.
fn lock(mut file: File) -> io::Result<Flock<File>> {
    let limit = Instant::now() + LOCK_LIMIT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if errno != Errno::EWOULDBLOCK || Instant::now() >= limit => {
                return Err(errno.into());
            }
            Err((unlocked, _)) => file = unlocked,
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// The file, and whether it is open with O_DIRECT. A block device is claimed with O_EXCL, which also keeps it from
/// being mounted.
fn open_file(path: &Path, pool: &BufferPool) -> io::Result<(File, bool)> {
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(io::Error::other("neither a block device nor a regular file"));
    }
    let claim = if kind.is_block_device() { libc::O_EXCL } else { 0 };
    let open = |flags| OpenOptions::new().read(true).write(true).custom_flags(claim | flags).open(path);
    match open(libc::O_DIRECT) {
        Ok(file) if reads_sectors(&file, pool) => Ok((file, true)),
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        // The claim of the first attempt is given up before the second.
        unfit => {
            drop(unfit);
            Ok((open(0)?, false))
        }
    }
}

/// Whether O_DIRECT takes requests of one sector: not on every file system, and not on disks with 4 KiB sectors.
fn reads_sectors(file: &File, pool: &BufferPool) -> bool {
    file.read_at(&mut pool.take(512), 512).is_ok()
}

/// DRBD's number and text, and what is the matter.
fn describe(error: LoadError, resource: &str) -> Failure {
    let (number, text) = match &error {
        LoadError::NotFound => {
            let text = error.to_string().replace("create-md res'", &format!("create-md {resource}'"));
            return Failure::numbered(119, text.trim_end());
        }
        LoadError::Shrunk { .. } | LoadError::VolumeShrunk { .. } => {
            (111, "Low.dev. smaller than requested DRBD-dev. size.")
        }
        LoadError::Geometry(_) => (112, "Meta device too small."),
        LoadError::Mismatch(_) | LoadError::Newer(_) => {
            (116, "Lower device / meta device / index combination invalid.")
        }
        LoadError::Io(_) | LoadError::Damaged { .. } => METADATA_IO_ERROR,
    };
    Failure::numbered(number, text).because(error)
}

/// Reads metadata before the ring has anything to do with the disk.
struct MetadataReader<'a> {
    backing: &'a Backing,
    pool: &'a BufferPool,
}

impl MetaIo for MetadataReader<'_> {
    fn size_bytes(&self) -> u64 {
        self.backing.size_bytes.get()
    }

    fn read_at(&mut self, offset: u64, target: &mut [u8]) -> Result<(), DiskError> {
        let mut aligned = self.pool.take(target.len());
        self.backing
            .file
            .read_exact_at(&mut aligned, offset)
            .map_err(|e| self.error("reading", offset, &e))?;
        target.copy_from_slice(&aligned);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let aligned = self.pool.copy(data);
        self.backing.file.write_all_at(&aligned, offset).map_err(|e| self.error("writing", offset, &e))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.backing.file.sync_data().map_err(|e| self.error("flushing", 0, &e))
    }
}

impl MetadataReader<'_> {
    fn error(&self, doing: &str, offset: u64, error: &io::Error) -> DiskError {
        DiskError(format!("{doing} {} at byte {offset}: {error}", self.backing.path.display()))
    }
}
