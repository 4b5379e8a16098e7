//! Keeps the processes that the kernel writes through out of its memory pressure: whoever must free memory by writing to
//! the device must not wait for a process that waits for memory.

use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};

use crate::sys;

/// Asks the kernel never to make this process write back to get memory, and to keep what it has in memory. To be called
/// before any other thread begins. What cannot be had is logged once.
pub fn protect() {
    if let Err(error) = sys::set_io_flusher() {
        tracing::warn!("PR_SET_IO_FLUSHER: {error}: under memory pressure the device may hang; run as root");
    }
    // What is not used yet takes no memory.
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault) {
        Ok(()) => (),
        Err(error @ (Errno::ENOMEM | Errno::EPERM)) => {
            tracing::warn!(
                "mlockall: {error}: under memory pressure the device may be slow; raise LimitMEMLOCK"
            );
        }
        Err(error) => tracing::warn!("mlockall: {error}"),
    }
}
