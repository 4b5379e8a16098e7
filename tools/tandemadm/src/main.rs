//! `tandemadm`: administers Tandem's replicated resources.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tandemadm::cli::Cli;
use tandemadm::{commands, completion, legacy};

/// What drbdadm ends with if it is called wrongly.
const USAGE_CODE: u8 = 1;

fn main() -> ExitCode {
    completion::answer(Cli::command);
    let line = legacy::without_separator(std::env::args_os().collect());
    let parsed = Cli::command().try_get_matches_from(line).and_then(|matches| {
        Ok((Cli::from_arg_matches(&matches)?, matches.subcommand_name().unwrap_or_default().to_owned()))
    });
    match parsed {
        Ok((cli, verb)) => ExitCode::from(commands::run(cli, &verb)),
        Err(error) => {
            let code = if error.use_stderr() { USAGE_CODE } else { 0 };
            match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(USAGE_CODE),
            }
        }
    }
}
