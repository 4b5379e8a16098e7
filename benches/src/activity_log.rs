//! The price of the activity log: small writes all over a disk, with few hot extents and with many.

use std::fs::{self, File};
use std::path::Path;

use crate::prices::Prices;
use crate::servers::Pair;
use crate::{Result, fio};

/// Sizes that are written to: with 1237 extents of 4 MiB the first fits into the log, the second never does.
const SIZES_GIB: [u64; 2] = [1, 100];
/// Settings that are compared.
const SETTINGS: [(&str, &str); 4] = [
    ("no log", "al-updates no;"),
    ("67", "al-extents 67;"),
    ("1237", "al-extents 1237;"),
    ("6433", "al-extents 6433;"),
];
/// The workloads, by name.
const NAMES: [&str; 2] = ["4k randwrite QD32", "4k randwrite QD1"];

/// Measures and prints a table. The peer is away: a first sync of 100 GiB is not what is measured.
pub(crate) fn report(folder: &Path, rounds: usize, seconds: u32) -> Result<()> {
    let names =
        || SIZES_GIB.iter().flat_map(|gib| NAMES.iter().map(move |name| format!("{name}, {gib} GiB")));
    let settings = SETTINGS.map(|(name, _)| name);
    let mut rates = Prices::new("kIOPS", &settings, names());
    let mut per_1000 = Prices::new("transactions per 1000 writes", &settings, names());
    for round in 0..rounds {
        for step in 0..SETTINGS.len() {
            let setting = (round + step) % SETTINGS.len();
            for (size, gib) in SIZES_GIB.into_iter().enumerate() {
                let pair = primary(folder, gib << 30, SETTINGS[setting].1)?;
                for (number, name) in NAMES.iter().enumerate() {
                    let before = transactions(&pair)?;
                    let bytes = (gib * 1000) << 20;
                    let rate = fio::run(fio::workload(name)?, &pair.uri("alpha"), bytes, seconds, folder)?;
                    let row = size * NAMES.len() + number;
                    rates.add(row, setting, rate);
                    let writes = rate * f64::from(seconds);
                    per_1000.add(row, setting, (transactions(&pair)? - before) / writes);
                }
            }
        }
    }
    println!("price of the activity log, by its extents: sparse disks, no peer, medians of {rounds} rounds");
    println!("{rates}\n{per_1000}");
    Ok(())
}

/// Transactions that the primary has written.
fn transactions(pair: &Pair) -> Result<f64> {
    let status: serde_json::Value = serde_json::from_str(&pair.alpha(&["status", "--json", "r0"])?)?;
    status[0]["devices"][0]["al-writes"].as_f64().ok_or_else(|| "the status has no al-writes".into())
}

/// A primary without its peer, on a sparse file.
fn primary(folder: &Path, bytes: u64, statements: &str) -> Result<Pair> {
    let pair = Pair::new(folder, &format!("disk {{ {statements} }}"), |disk| {
        let _ = fs::remove_file(disk);
        Ok(File::create(disk)?.set_len(bytes)?)
    })?;
    pair.alpha(&["up", "r0"])?;
    pair.alpha(&["primary", "--force", "r0"])?;
    Ok(pair)
}
