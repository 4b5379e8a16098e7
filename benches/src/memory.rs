//! What a daemon with a large disk needs.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use crate::servers::Pair;
use crate::{Result, fio};

/// Sizes of the sparse disks, in GiB.
const SIZES_GIB: [u64; 2] = [100, 16 << 10];
/// Enough to touch every page of the smaller disk's bitmap.
const WRITES: u32 = 50_000;

/// Prints the resident memory of both daemons, idle and after writes all over the disk, and how long they took to meet.
pub(crate) fn report(folder: &Path) -> Result<()> {
    for gib in SIZES_GIB {
        report_size(folder, gib)?;
    }
    Ok(())
}

fn report_size(folder: &Path, gib: u64) -> Result<()> {
    let pair = Pair::new(folder, "", |disk| {
        let _ = fs::remove_file(disk);
        Ok(File::create(disk)?.set_len(gib << 30)?)
    })?;
    let began = Instant::now();
    pair.connect()?;
    println!("memory of a daemon with a sparse disk of {gib} GiB");
    println!("  up and connected after:       {:.1} s", began.elapsed().as_secs_f64());
    println!(
        "  idle, connected:              alpha {:>4} MiB, bravo {:>4} MiB",
        resident(&pair, "alpha")?,
        resident(&pair, "bravo")?
    );
    // Without the peer: a first sync of such a disk is not what is measured.
    pair.alpha(&["disconnect", "r0"])?;
    pair.alpha(&["primary", "--force", "r0"])?;
    fio::scatter(&pair.uri("alpha"), WRITES, (gib * 1000) << 20, folder)?;
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
