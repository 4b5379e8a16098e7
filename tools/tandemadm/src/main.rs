//! `tandemadm`: administers Tandem's replicated resources.

use std::process::ExitCode;

use clap::Parser;
use tandemadm::cli::Cli;
use tandemadm::commands;

/// What drbdadm ends with if it is called wrongly.
const USAGE_CODE: u8 = 1;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(commands::run(cli)),
        Err(error) => {
            let code = if error.use_stderr() { USAGE_CODE } else { 0 };
            match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(USAGE_CODE),
            }
        }
    }
}
