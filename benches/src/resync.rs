//! A first sync beside nbdcopy of the same bytes: from one file over TCP on loopback into another, durable at the end.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::servers::{self, Pair};
use crate::{FILE_BYTES, Result, median, run};

/// Prints the medians, in MiB per second, and their ratio.
pub(crate) fn report(folder: &Path, rounds: usize) -> Result<()> {
    let (mut tandem, mut nbdcopy) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // In alternating order.
        for part in [round % 2, 1 - round % 2] {
            match part {
                0 => tandem.push(first_sync(folder)?),
                _ => nbdcopy.push(copy(folder)?),
            }
        }
        eprintln!("round {} of {rounds}: {:.0?} {:.0?}", round + 1, tandem.last(), nbdcopy.last());
    }
    let (tandem, nbdcopy) = (median(tandem), median(nbdcopy));
    println!("resync of {} MiB, medians of {rounds} rounds", FILE_BYTES >> 20);
    println!("  nbdcopy from nbdkit, TCP {nbdcopy:>6.0} MiB/s");
    println!("  tandem                   {tandem:>6.0} MiB/s, {:.2} of it", tandem / nbdcopy);
    Ok(())
}

fn first_sync(folder: &Path) -> Result<f64> {
    let pair = Pair::new(folder, "", |disk| servers::fill(disk, FILE_BYTES))?;
    pair.alpha(&["up", "r0"])?;
    pair.bravo(&["up", "r0"])?;
    pair.alpha(&["wait-connect", "r0"])?;
    let began = Instant::now();
    pair.alpha(&["primary", "--force", "r0"])?;
    servers::until("the pair is in sync", || {
        pair.alpha(&["dstate", "r0"]).is_ok_and(|s| s.trim() == "UpToDate/UpToDate")
    })?;
    Ok(speed(began))
}

fn copy(folder: &Path) -> Result<f64> {
    let (source, target) = (folder.join("source.img"), folder.join("target.img"));
    servers::fill(&source, FILE_BYTES)?;
    servers::fill(&target, FILE_BYTES)?;
    let (_server, uri) = servers::nbdkit_on_tcp(&source)?;
    let began = Instant::now();
    run(Command::new("nbdcopy").arg("--flush").arg(uri).arg(&target))?;
    Ok(speed(began))
}

fn speed(began: Instant) -> f64 {
    (FILE_BYTES >> 20) as f64 / began.elapsed().as_secs_f64()
}
