//! What a daemon with a disk of 100 GiB needs.

use std::fs::{self, File};
use std::path::Path;

use crate::servers::Pair;
use crate::{Result, fio};

const DISK_BYTES: u64 = 100 << 30;
/// Enough to touch every page of the bitmap.
const WRITES: u32 = 50_000;

/// Prints the resident memory of both daemons, idle and after writes all over the disk.
pub(crate) fn report(folder: &Path) -> Result<()> {
    let pair = Pair::new(folder, "", |disk| {
        let _ = fs::remove_file(disk);
        Ok(File::create(disk)?.set_len(DISK_BYTES)?)
    })?;
    pair.alpha(&["up", "r0"])?;
    pair.bravo(&["up", "r0"])?;
    pair.alpha(&["wait-connect", "r0"])?;
    println!("memory of a daemon with a sparse disk of 100 GiB");
    println!(
        "  idle, connected:              alpha {:>4} MiB, bravo {:>4} MiB",
        resident(&pair, "alpha")?,
        resident(&pair, "bravo")?
    );
    // Without the peer: a first sync of 100 GiB is not what is measured.
    pair.alpha(&["disconnect", "r0"])?;
    pair.alpha(&["primary", "--force", "r0"])?;
    fio::scatter(&pair.uri("alpha"), WRITES, 96 << 30, folder)?;
    println!("  most, {WRITES} scattered writes: alpha {:>4} MiB", peak(&pair, "alpha")?);
    Ok(())
}

fn resident(pair: &Pair, node: &str) -> Result<u64> {
    field(pair, node, "VmRSS:")
}

fn peak(pair: &Pair, node: &str) -> Result<u64> {
    field(pair, node, "VmHWM:")
}

/// A line of the process's status, in MiB.
fn field(pair: &Pair, node: &str, name: &str) -> Result<u64> {
    let pid = pair.pid(node).ok_or_else(|| format!("{node}: no daemon"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find(|line| line.starts_with(name)).ok_or_else(|| format!("{name} is missing"))?;
    let kib: u64 = line.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(kib.div_ceil(1024))
}
