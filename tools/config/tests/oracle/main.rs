//! Debian's drbd-utils, which need no kernel module for this, say what is right. They are run as programs; `cargo xtask
//! test` installs them.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod dumps;
mod effective;
mod options;
