//! A first sync beside nbdcopy of the same bytes: from one file over TCP on loopback into another, durable at the end;
//! and what checksums cost it, or save.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::prices::Prices;
use crate::servers::{self, Pair};
use crate::{FILE_BYTES, Result, median, run};

/// What is compared: nbdcopy, and the resync with these options. Where the copies are equal, only digests travel.
const SETTINGS: [(&str, &str, Data); 6] = [
    ("nbdcopy", "", Data::Differs),
    ("plain", "", Data::Differs),
    ("sha1", "csums-alg sha1;", Data::Differs),
    ("sha256", "csums-alg sha256;", Data::Differs),
    ("sha1, =", "csums-alg sha1;", Data::IsEqual),
    ("sha256, =", "csums-alg sha256;", Data::IsEqual),
];

/// What is on the target before.
#[derive(Clone, Copy)]
enum Data {
    Differs,
    IsEqual,
}

/// Prints the medians, in MiB per second, and the plain resync's ratio to nbdcopy.
pub(crate) fn report(folder: &Path, rounds: usize) -> Result<()> {
    let mut speeds = Prices::new("MiB/s", &SETTINGS.map(|(name, ..)| name), ["first sync".to_owned()]);
    let (mut tandem, mut nbdcopy) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for step in 0..SETTINGS.len() {
            let setting = (round + step) % SETTINGS.len();
            let (name, options, data) = SETTINGS[setting];
            let speed = if name == "nbdcopy" { copy(folder)? } else { first_sync(folder, options, data)? };
            speeds.add(0, setting, speed);
            match name {
                "nbdcopy" => nbdcopy.push(speed),
                "plain" => tandem.push(speed),
                _ => {}
            }
        }
    }
    println!(
        "resync of {} MiB, medians of {rounds} rounds; = where the target has the data",
        FILE_BYTES >> 20
    );
    println!("{speeds}");
    println!("plain/nbdcopy: {:.2}", median(tandem) / median(nbdcopy));
    Ok(())
}

fn first_sync(folder: &Path, options: &str, data: Data) -> Result<f64> {
    let pair = Pair::new(folder, &format!("net {{ {options} }}"), |disk| {
        let differs = matches!(data, Data::Differs) && disk.ends_with("bravo.img");
        servers::fill_with(disk, FILE_BYTES, if differs { 0x80 } else { 0 })
    })?;
    pair.connect()?;
    let began = Instant::now();
    pair.alpha(&["primary", "--force", "r0"])?;
    pair.until_in_sync()?;
    Ok(speed(began))
}

fn copy(folder: &Path) -> Result<f64> {
    let (source, target) = (folder.join("source.img"), folder.join("target.img"));
    servers::fill(&source, FILE_BYTES)?;
    servers::fill_with(&target, FILE_BYTES, 0x80)?;
    let (_server, uri) = servers::nbdkit_on_tcp(&source)?;
    let began = Instant::now();
    run(Command::new("nbdcopy").arg("--flush").arg(uri).arg(&target))?;
    Ok(speed(began))
}

fn speed(began: Instant) -> f64 {
    (FILE_BYTES >> 20) as f64 / began.elapsed().as_secs_f64()
}
