//! Whether a flush of the disk does what it says, and what it costs.
//!
//! Where the disk is a file, a nameless file in the same folder is written and flushed. A block device is not written to: it is
//! told to flush what it has, and asked what it says of its cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{AccessFlags, access};
use tandem_control::ResourceSpec;

use super::Finding;

const CHECK: &str = "flush";
/// Enough for a median.
const ROUNDS: usize = 21;
const BLOCK: usize = 4096;
/// No medium that keeps what it has without power is faster than its bus.
const TOO_FAST: Duration = Duration::from_micros(20);
/// Protocol C waits for this with every flush of a client.
const SLOW: Duration = Duration::from_millis(50);

/// What was measured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Flushes {
    /// The folder or the device.
    pub(super) place: PathBuf,
    /// It is memory.
    pub(super) is_memory: bool,
    /// What the kernel believes: the medium rotates.
    pub(super) rotates: Option<bool>,
    /// What the disk says: it has a cache that a power cut empties.
    pub(super) has_volatile_cache: Option<bool>,
    /// A write of 4 KiB; none if nothing may be written.
    pub(super) write: Option<Duration>,
    /// A flush.
    pub(super) flush: Duration,
}

pub(super) fn examine(spec: &ResourceSpec) -> Vec<Finding> {
    let disks = spec.volumes().flat_map(|volume| [Some(&volume.disk), volume.meta_disk.as_ref()]).flatten();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut findings = Vec::new();
    for disk in disks {
        match measure(disk) {
            Ok(flushes) if seen.contains(&flushes.place) => (),
            Ok(flushes) => {
                findings.push(judge(&flushes));
                seen.push(flushes.place);
            }
            Err(error) => findings.push(
                Finding::bad(CHECK, format!("{}: {error}", disk.display()))
                    .todo(format!("look whether it is there and may be written: ls -lL {}", disk.display())),
            ),
        }
    }
    findings
}

pub(super) fn judge(flushes: &Flushes) -> Finding {
    let Flushes { is_memory, rotates, has_volatile_cache, write, flush, .. } = flushes;
    let place = flushes.place.display();
    let beside = write.map_or(String::new(), |write| format!(", a write of 4 KiB {}", words(write)));
    let cost = format!("{place}: a flush takes {}{beside}", words(*flush));
    if *is_memory {
        return Finding::bad(CHECK, format!("{place} is in memory: nothing of it outlives a power cut"))
            .todo("put the disk on a medium that keeps what it has");
    }
    match has_volatile_cache {
        Some(false) => {
            return Finding::ok(CHECK, format!("{cost}; the disk says that it has no volatile cache"));
        }
        _ if *flush < TOO_FAST => {
            let medium = if *rotates == Some(true) { " on a medium that rotates" } else { "" };
            return Finding::warn(CHECK, format!("{cost}{medium}: it costs nothing, so it may do nothing")).todo(
                "make sure that the cache survives a power cut (a battery, capacitors), that the file system is not mounted with \
                 nobarrier, and that a virtual machine's disk does not have cache=unsafe",
            );
        }
        _ => (),
    }
    match *flush > SLOW {
        true => Finding::warn(CHECK, format!("{cost}: slow; clients that ask for durability wait that long"))
            .todo(
                "a log device or a disk with a protected cache helps; 'meta-disk' on a faster one does too",
            ),
        false => Finding::ok(CHECK, cost),
    }
}

fn words(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} us"),
        micros => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
    }
}

fn measure(disk: &Path) -> io::Result<Flushes> {
    let metadata = std::fs::metadata(disk)?;
    access(disk, AccessFlags::R_OK | AccessFlags::W_OK)
        .map_err(|errno| io::Error::other(format!("cannot be written: {}", errno.desc())))?;
    if metadata.file_type().is_block_device() {
        let queue = queue_of(metadata.rdev());
        let file = File::open(disk)?;
        return Ok(Flushes {
            place: disk.to_owned(),
            is_memory: false,
            rotates: flag(&queue, "rotational"),
            has_volatile_cache: text(&queue, "write_cache").map(|cache| cache == "write back"),
            write: None,
            flush: median(|| file.sync_data())?,
        });
    }
    let folder = disk.parent().unwrap_or(Path::new("/"));
    // Nameless: nothing stays, however this ends.
    let options =
        OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_TMPFILE.bits()).open(folder);
    let file = options?;
    let is_memory = fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC);
    let queue = queue_of(metadata.dev());
    let (mut block, mut offset) = (vec![0x5a_u8; BLOCK], 0);
    let mut write_one = || {
        block[0] = block[0].wrapping_add(1);
        offset += BLOCK as u64;
        file.write_all_at(&block, offset)
    };
    let write = median(&mut write_one)?;
    let mut flushed = Vec::new();
    for _ in 0..ROUNDS {
        write_one()?;
        flushed.push(timed(|| file.sync_data())?);
    }
    flushed.sort();
    Ok(Flushes {
        place: folder.to_owned(),
        is_memory,
        rotates: flag(&queue, "rotational"),
        // What lies between the file and the device may have one of its own.
        has_volatile_cache: None,
        write: Some(write),
        flush: flushed[ROUNDS / 2],
    })
}

fn median(mut what: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let mut times = (0..ROUNDS).map(|_| timed(&mut what)).collect::<io::Result<Vec<Duration>>>()?;
    times.sort();
    Ok(times[ROUNDS / 2])
}

fn timed(what: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let begin = Instant::now();
    what().map(|()| begin.elapsed())
}

/// What the kernel knows of a block device, or of the disk that a partition is on.
fn queue_of(device: u64) -> PathBuf {
    let path = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    let own = path.join("queue");
    if own.exists() { own } else { path.join("../queue") }
}

fn text(queue: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(queue.join(name)).ok().map(|text| text.trim().to_owned())
}

fn flag(queue: &Path, name: &str) -> Option<bool> {
    text(queue, name).map(|text| text == "1")
}
