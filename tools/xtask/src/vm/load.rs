//! What runs inside a machine: appends numbered records to a file, each made durable before the next, and tells
//! afterwards whether all that were acknowledged are there and how long the longest wait was.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::process::Result;

/// Between two records, so that the file stays small.
const PACE: Duration = Duration::from_millis(10);

/// A job inside a machine.
#[derive(Subcommand)]
pub(crate) enum Job {
    /// Appends until the file LOG.stop is there
    Append {
        /// The file, open from beginning to end
        file: PathBuf,
        /// Number and time of each record that is durable
        log: PathBuf,
        /// Hold an exclusive lock on the file
        #[arg(long)]
        lock: bool,
    },
    /// Compares the file with the log
    Check {
        /// The file
        file: PathBuf,
        /// Its log
        log: PathBuf,
    },
}

/// Does the job.
pub(crate) fn run(job: &Job) -> Result<()> {
    match job {
        Job::Append { file, log, lock } => append(file, log, *lock),
        Job::Check { file, log } => {
            let found = check(&std::fs::read_to_string(file)?, &std::fs::read_to_string(log)?)?;
            println!("{found}");
            Ok(())
        }
    }
}

fn append(path: &Path, log: &Path, lock: bool) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let stop = log.with_extension("stop");
    let mut log = File::create(log)?;
    match lock {
        true => {
            let mut held = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
            write_records(&mut held, &mut log, &stop)
        }
        false => write_records(&mut { file }, &mut log, &stop),
    }
}

fn write_records(file: &mut File, log: &mut File, stop: &Path) -> Result<()> {
    for number in 0u64.. {
        if stop.exists() {
            break;
        }
        file.write_all(record(number).as_bytes()).map_err(|e| format!("write of record {number}: {e}"))?;
        file.sync_all().map_err(|e| format!("fsync of record {number}: {e}"))?;
        writeln!(log, "{number} {}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        thread::sleep(PACE);
    }
    Ok(())
}

fn record(number: u64) -> String {
    format!("{number:>15}\n")
}

/// Every record of the log must be in the file, in order and nothing between; the file may end with records that were
/// not acknowledged.
fn check(file: &str, log: &str) -> Result<Value> {
    for (number, line) in file.lines().enumerate() {
        if record(number as u64).trim_end() != line {
            return Err(format!("record {number} of the file is {line:?}").into());
        }
    }
    let times: Vec<u64> = log.lines().filter_map(|line| line.split_once(' ')?.1.parse().ok()).collect();
    let written = file.lines().count();
    if written < times.len() {
        return Err(format!("{} records were acknowledged, the file holds {written}", times.len()).into());
    }
    let waits = times.windows(2).enumerate().map(|(before, pair)| (pair[1] - pair[0], before + 1));
    let (stall_ms, record) = waits.max().unwrap_or_default();
    let began_ms = times.get(record.saturating_sub(1));
    Ok(
        json!({ "acknowledged": times.len(), "stall_ms": stall_ms, "stall_began_ms": began_ms, "before_record": record }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(numbers: &[u64]) -> String {
        numbers.iter().map(|number| record(*number)).collect()
    }

    #[test]
    fn the_longest_wait_is_found() {
        let found = check(&file(&[0, 1, 2, 3]), "0 1000\n1 1010\n2 4510\n").unwrap();
        assert_eq!(
            found,
            json!({ "acknowledged": 3, "stall_ms": 3500, "stall_began_ms": 1010, "before_record": 2 })
        );
    }

    #[test]
    fn what_is_missing_or_out_of_place_is_an_error() {
        let complaint = |numbers: &[u64], log: &str| check(&file(numbers), log).unwrap_err().to_string();
        assert!(complaint(&[0], "0 1\n1 2\n").contains("2 records were acknowledged, the file holds 1"));
        assert!(complaint(&[0, 2], "0 1\n").contains("record 1 of the file"));
        assert!(complaint(&[0, 1, 1], "0 1\n").contains("record 2 of the file"));
    }

    #[test]
    fn a_writer_stops_when_told() {
        let folder = nix::unistd::mkdtemp(&std::env::temp_dir().join("tandem-load-XXXXXX")).unwrap();
        let (data, log) = (folder.join("data"), folder.join("log"));
        let stopper = thread::spawn({
            let log = log.clone();
            move || {
                while std::fs::read_to_string(&log).unwrap_or_default().lines().count() < 3 {
                    thread::yield_now();
                }
                File::create(log.with_extension("stop")).unwrap();
            }
        });
        append(&data, &log, true).unwrap();
        stopper.join().unwrap();
        let found =
            check(&std::fs::read_to_string(data).unwrap(), &std::fs::read_to_string(log).unwrap()).unwrap();
        assert!(found["acknowledged"].as_u64().unwrap() >= 3);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
