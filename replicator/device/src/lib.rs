//! The Primary's block device: a process per volume, its keeper, that hands the kernel's requests to tandemd over NBD.
//!
//! The keeper outlives the daemon. While that is away requests wait, and are sent again to the one that comes next: what
//! tandemd has not acknowledged is not acknowledged. [`serve`] is the process, [`control`] what it can be asked,
//! [`links`] the names of the device, [`openers`] who uses it, [`files`] what processes have open. Rooms besides: `kernel` (the device by the kernel's
//! NBD driver), `fuse` with `loop_device` (where it has none), `line` (the NBD client), `sys` (system calls without a safe interface).
//!
//! **Invariant:** once [`control::Request::Fail`] is answered, nothing more is sent to tandemd.

mod backend;
pub mod control;
pub mod files;
mod fuse;
mod kernel;
mod line;
pub mod links;
pub mod log;
mod loop_device;
pub mod memory;
pub mod openers;
pub mod serve;
mod sys;
