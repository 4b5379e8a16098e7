//! The price of flushes: what the peer's durability adds to ours, for one that waits for each and for many that do not.

use std::path::Path;

use crate::prices::Prices;
use crate::servers::{self, Pair};
use crate::{FILE_BYTES, LOADED_BYTES, Result, fio};

/// Settings that are compared: without a peer, with one that is told to flush, with one that is not.
const SETTINGS: [(&str, bool, &str); 3] = [
    ("alone", false, ""),
    ("flush", true, "disk-flushes yes;"),
    ("drain", true, "disk-flushes no; md-flushes no;"),
];
/// The workloads, by name.
const NAMES: [&str; 2] = ["4k write + flush QD1", "4k randwrite QD32"];

/// Measures and prints a table.
pub(crate) fn report(folder: &Path, rounds: usize, seconds: u32) -> Result<()> {
    let mut rates = Prices::new("kIOPS", &SETTINGS.map(|(name, ..)| name), NAMES.map(String::from));
    for round in 0..rounds {
        for step in 0..SETTINGS.len() {
            let setting = (round + step) % SETTINGS.len();
            let (_, with_peer, statements) = SETTINGS[setting];
            let statements = format!("disk {{ {statements} }}");
            let pair = Pair::new(folder, &statements, |disk| servers::fill(disk, FILE_BYTES))?;
            pair.start(with_peer)?;
            for (row, name) in NAMES.iter().enumerate() {
                let uri = pair.uri("alpha");
                rates.add(row, setting, fio::run(fio::workload(name)?, &uri, LOADED_BYTES, seconds, folder)?);
            }
        }
    }
    println!(
        "price of flushes: protocol C, both disks in {}, medians of {rounds} rounds",
        folder.parent().unwrap_or(folder).display()
    );
    println!("{rates}");
    Ok(())
}
