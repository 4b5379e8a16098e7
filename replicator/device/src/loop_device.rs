//! A loop device over a file that is served by this process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::{self, LoopConfig};

const CONTROL: &str = "/dev/loop-control";
/// linux/loop.h.
const DIRECT_IO: u32 = 16;
/// The smallest request that tandemd takes.
const BLOCK_BYTES: u32 = 512;
/// For a device that others take at the same moment, or that is not in /dev yet.
const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// A loop device. It is not held open: what is written to it is written back when its last user closes it, and a keeper that
/// is killed does not wait for itself.
pub(crate) struct LoopDevice {
    node: PathBuf,
}

impl LoopDevice {
    /// A device of the file's size, called `name` where loop devices are listed.
    pub(crate) fn new(file: &File, name: &str) -> io::Result<LoopDevice> {
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        let end = Instant::now() + LIMIT;
        loop {
            match take(&control, file, name) {
                Err(e) if is_passing(&e) && Instant::now() < end => thread::sleep(PAUSE),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(no_node()),
                taken => return taken,
            }
        }
    }

    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// The file has grown.
    pub(crate) fn resize(&self) -> io::Result<()> {
        sys::resize_loop(&File::open(&self.node)?)
    }

    /// Whether the kernel passes requests on without a page cache between.
    pub(crate) fn is_direct(&self) -> bool {
        let name = self.node.file_name().unwrap_or_default().to_string_lossy();
        fs::read_to_string(format!("/sys/block/{name}/loop/dio")).is_ok_and(|dio| dio.trim() == "1")
    }

    /// Gives the device up. `claim` keeps others from mounting it until then.
    pub(crate) fn remove(&self, claim: File) -> io::Result<()> {
        sys::clear_loop(&claim)
    }
}

/// Gives up the loop devices of this name that keepers which were killed have left; those in use go with their last user.
pub(crate) fn remove_left_over(name: &str) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if !entry.path().join("loop").exists() {
            continue;
        }
        // Who has just been given up cannot be asked.
        let Ok(device) = File::open(Path::new("/dev").join(entry.file_name())) else { continue };
        if sys::loop_name(&device).is_ok_and(|found| found == name)
            && let Err(error) = sys::clear_loop(&device)
        {
            tracing::warn!("{} cannot be given up: {error}", entry.file_name().display());
        }
    }
}

/// Opens a block device so that nobody can mount it; `EBUSY` if somebody has.
pub(crate) fn claim(node: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_EXCL.bits()).open(node)
}

fn take(control: &File, file: &File, name: &str) -> io::Result<LoopDevice> {
    let node = PathBuf::from(format!("/dev/loop{}", sys::free_loop(control)?));
    let device = OpenOptions::new().read(true).write(true).open(&node)?;
    let config = LoopConfig::new(file.as_fd(), BLOCK_BYTES, DIRECT_IO, name);
    sys::configure_loop(&device, &config)?;
    Ok(LoopDevice { node })
}

/// As in a container whose /dev has but so many.
fn no_node() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the kernel's next one has no name in /dev: give back those that nothing uses (losetup --list; losetup --detach)",
    )
}

/// Somebody else was faster, or udev has not made the node yet.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBUSY | Errno::ENOENT | Errno::ENXIO))
}
