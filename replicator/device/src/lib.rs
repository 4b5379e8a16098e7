//! The Primary's block device: a process per volume, its keeper, that hands the kernel's requests to tandemd over NBD.
//!
//! The keeper outlives the daemon. While that is away requests wait, and are sent again to the one that comes next: what
//! tandemd has not acknowledged is not acknowledged. [`serve`] is the process, [`control`] what it can be asked,
//! [`links`] the names of the device, [`openers`] who uses it. Rooms besides: `line` (the NBD client), `fuse` with
//! `loop_device` (the device where the kernel has no NBD driver), `sys` (system calls without a safe interface).
//!
//! **Invariant:** once [`control::Request::Fail`] is answered, nothing more is sent to tandemd.

pub mod control;
mod fuse;
mod line;
pub mod links;
mod loop_device;
pub mod memory;
pub mod openers;
pub mod serve;
mod sys;
