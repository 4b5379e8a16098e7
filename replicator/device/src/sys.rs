//! System calls without a safe interface: `prctl`, `close_range` and the controls of loop devices.
//!
//! Invariant: every pointer handed to the kernel is derived from a reference to a live value of exactly the type that the
//! call's definition names, and the kernel keeps none of them beyond the call.
#![allow(unsafe_code)] // Each function below makes one system call and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::control::MAX_LABEL_BYTES;

/// `prctl` option (linux/prctl.h).
const PR_SET_IO_FLUSHER: i32 = 57;

/// Requests of linux/loop.h.
const LOOP_CLR_FD: u64 = 0x4C01;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LOOP_SET_CAPACITY: u64 = 0x4C07;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_CTL_GET_FREE: u64 = 0x4C82;

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
pub(crate) struct LoopConfig {
    fd: u32,
    block_bytes: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_bytes: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopConfig {
    /// A loop device over the whole of `file`.
    pub(crate) fn new(file: BorrowedFd<'_>, block_bytes: u32, flags: u32, name: &str) -> LoopConfig {
        let mut file_name = [0; 64];
        file_name[..MAX_LABEL_BYTES].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        LoopConfig {
            fd: file.as_raw_fd() as u32,
            block_bytes,
            info: LoopInfo {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_bytes: 0,
                flags,
                file_name,
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        }
    }
}

/// Closes everything but the standard streams. To be called before this process has opened anything.
pub(crate) fn close_all_but_standard_streams() -> io::Result<()> {
    // SAFETY: the call takes three numbers; nothing that is closed belongs to a value of this process yet.
    result(unsafe { libc::close_range(3, u32::MAX, 0) }).map(drop)
}

/// This process never writes back to get memory.
pub(crate) fn set_io_flusher() -> io::Result<()> {
    // SAFETY: this option takes four numbers.
    result(unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) }).map(drop)
}

/// The number of a loop device that nobody uses.
pub(crate) fn free_loop(control: &File) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })
}

/// Takes a loop device into use.
pub(crate) fn configure_loop(device: &File, config: &LoopConfig) -> io::Result<()> {
    // SAFETY: the argument is a `struct loop_config` that lives until the call returns; the kernel only reads it.
    result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const *config) }).map(drop)
}

/// What a loop device was called when it was taken into use.
pub(crate) fn loop_name(device: &File) -> io::Result<String> {
    // SAFETY: a `struct loop_info64` is numbers throughout, and all zeroes are numbers.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the argument is a `struct loop_info64` that lives until the call returns; the kernel only writes it.
    result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) })?;
    let name = info.file_name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Gives a loop device up: at once, or when its last user closes it.
pub(crate) fn clear_loop(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _) }).map(drop)
}

/// A loop device looks how large its file is.
pub(crate) fn resize_loop(device: &File) -> io::Result<()> {
    // SAFETY: this request takes no argument.
    result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY as _) }).map(drop)
}

fn result(returned: i32) -> io::Result<u32> {
    u32::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
