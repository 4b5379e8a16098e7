//! Tandem beside other NBD servers, on the same kind of file, in one run: medians and ratios. Never a gate.

mod activity_log;
mod fio;
mod flushes;
mod memory;
mod prices;
mod resync;
mod servers;
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

use fio::WORKLOADS;
use servers::{Kind, Server};
use table::Table;

/// The result of everything here; the error is a sentence for the terminal.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Size of the file behind each export.
const FILE_BYTES: u64 = 512 << 20;
/// Bytes of it that are loaded.
const LOADED_BYTES: u64 = 256 << 20;

#[derive(Parser)]
#[command(about = "Measures Tandem beside nbdkit and qemu-nbd")]
struct Cli {
    /// Times that every server is started and measured, in alternating order
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of one measurement
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Where the files are: a folder on tmpfs measures the servers, one on a disk measures the disk too
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Measure the price of the activity log, and nothing else
    #[arg(long)]
    activity_log: bool,
    /// Measure the price of flushes, and nothing else
    #[arg(long)]
    flushes: bool,
    /// Measure a first sync beside nbdcopy, with and without checksums, and nothing else
    #[arg(long)]
    resync: bool,
    /// Measure what daemons with large disks need, and nothing else
    #[arg(long)]
    memory: bool,
}

fn main() -> ExitCode {
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<()> {
    let folder = Folder::new(&cli.folder)?;
    if cli.activity_log {
        return activity_log::report(&folder.0, cli.rounds, cli.seconds);
    }
    if cli.flushes {
        return flushes::report(&folder.0, cli.rounds, cli.seconds);
    }
    if cli.resync {
        return resync::report(&folder.0, cli.rounds);
    }
    if cli.memory {
        return memory::report(&folder.0);
    }
    let workloads: Vec<_> = WORKLOADS.iter().filter(|w| w.name.contains(&cli.only)).collect();
    let mut table = Table::default();
    for round in 0..cli.rounds {
        let mut order = Kind::ALL;
        order.rotate_left(round % Kind::ALL.len());
        for kind in order {
            let server = Server::start(kind, &folder.0, FILE_BYTES)?;
            for workload in &workloads {
                let value = fio::run(workload, &server.uri, LOADED_BYTES, cli.seconds, &folder.0)?;
                eprintln!("round {} of {}: {kind}: {}: {value:.0}", round + 1, cli.rounds, workload.name);
                table.add(workload, kind, value);
            }
        }
    }
    println!(
        "medians of {} rounds of {} s, files of {} MiB in {}",
        cli.rounds,
        cli.seconds,
        FILE_BYTES >> 20,
        cli.folder.display()
    );
    println!("{table}");
    Ok(())
}

/// A folder of this run, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> Result<Folder> {
        let path = parent.join(format!("tandem-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("bench: cannot remove {}: {error}", self.0.display());
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a program that must succeed; returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{said}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
