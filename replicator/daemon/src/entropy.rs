//! Randomness from the operating system.

use std::fs::File;
use std::io::{self, Read};

/// Sixty-four random bits.
pub(crate) fn draw() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
