//! `nfs-failover`: the command line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use nfs_failover::cli::{self, Cli};
use tandem_control::output;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let code = cli::wish_quickly(&arguments).unwrap_or_else(|| cli::run(Cli::parse()));
    ExitCode::from(output::verdict(code))
}
