//! Takes a filesystem out of service under its users: every access fails from then on, and it can be unmounted.
//!
//! The only unsafe code of this crate. Invariant: the request's number says that the kernel reads one 32-bit word from the
//! pointer, and the pointer is of a `u32` that lives until the call returns.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::within;
use crate::plan::{Trouble, trouble};

/// Nothing is written any more, not even the journal: it is replayed at the next mount.
const NO_LOG_FLUSH: u32 = 2;

mod request {
    // Declared by the kernel as one that reads, although it takes an argument.
    nix::ioctl_read!(fs_shutdown, b'X', 125, u32);
}

/// Takes the filesystem of this device that is mounted here out of service. A filesystem that is just being unmounted is
/// not seen here any more, but the one under it: that is left alone.
pub fn shut_down(point: &Path, device: (u64, u64), limit: Duration) -> Result<(), Trouble> {
    let folder = point.to_owned();
    let shut_down = move || {
        let folder = File::open(folder)?;
        let seen = folder.metadata()?.dev();
        if (major(seen), minor(seen)) != device {
            return Err(std::io::Error::new(ErrorKind::NotFound, "it is not mounted there any more"));
        }
        let mut how = NO_LOG_FLUSH;
        // SAFETY: `how` is the word that the kernel reads; it outlives the call.
        unsafe { request::fs_shutdown(folder.as_raw_fd(), &raw mut how) }?;
        Ok(())
    };
    match within(limit, shut_down) {
        Some(result) => result.map_err(trouble("shutting the filesystem down")),
        None => Err(Trouble::new("shutting the filesystem down hangs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_filesystem_is_left_alone() {
        let trouble = shut_down(Path::new("/proc"), (7, 250), Duration::from_secs(10)).unwrap_err();
        assert!(trouble.message.contains("not mounted there any more"), "{trouble}");
    }
}
