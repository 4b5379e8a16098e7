//! Randomness from the operating system.

use std::fs::File;
use std::io::{self, Read};

/// Sixty-four random bits.
pub(crate) fn draw() -> io::Result<u64> {
    draw_bytes().map(u64::from_ne_bytes)
}

/// So many random bytes.
pub(crate) fn draw_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
