//! `nfs-failover`: the command line.

use std::process::ExitCode;

use clap::Parser;
use nfs_failover::cli::{self, Cli};

fn main() -> ExitCode {
    ExitCode::from(cli::run(Cli::parse()))
}
