//! The price of the activity log: small writes all over a disk, with few hot extents and with many.

use std::fs::{self, File};
use std::path::Path;

use crate::fio::{self, WORKLOADS};
use crate::servers::Pair;
use crate::{Result, median};

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
    let mut rows: Vec<Row> = Vec::new();
    for gib in SIZES_GIB {
        let name = |name: &&str| Row { name: format!("{name}, {gib} GiB"), ..Row::default() };
        rows.extend(NAMES.iter().map(name));
    }
    for round in 0..rounds {
        for step in 0..SETTINGS.len() {
            let setting = (round + step) % SETTINGS.len();
            for (size, gib) in SIZES_GIB.into_iter().enumerate() {
                let pair = primary(folder, gib << 30, SETTINGS[setting].1)?;
                let workloads = WORKLOADS.iter().filter(|w| NAMES.contains(&w.name));
                for (number, workload) in workloads.enumerate() {
                    let before = transactions(&pair)?;
                    let rate = fio::run(workload, &pair.uri("alpha"), (gib * 1000) << 20, seconds, folder)?;
                    let row = &mut rows[size * NAMES.len() + number];
                    row.rates[setting].push(rate);
                    row.transactions[setting]
                        .push((transactions(&pair)? - before) / (rate * f64::from(seconds)));
                }
            }
        }
    }
    println!("price of the activity log, by its extents: sparse disks, no peer, medians of {rounds} rounds");
    print_table("kIOPS", &rows, |row| &row.rates);
    print_table("transactions per 1000 writes", &rows, |row| &row.transactions);
    Ok(())
}

/// A workload on a disk, with each setting.
#[derive(Default)]
struct Row {
    name: String,
    rates: [Vec<f64>; SETTINGS.len()],
    /// For 1000 writes.
    transactions: [Vec<f64>; SETTINGS.len()],
}

fn print_table(what: &str, rows: &[Row], of: impl Fn(&Row) -> &[Vec<f64>]) {
    print!("{what:<28}");
    SETTINGS.iter().for_each(|(name, _)| print!(" {name:>8}"));
    println!();
    for row in rows {
        print!("{:<28}", row.name);
        of(row).iter().for_each(|values| print!(" {:>8.1}", median(values.clone())));
        println!();
    }
    println!();
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
