//! `tandemadm`: administers Tandem's replicated resources. Under the names of drbdadm, drbdsetup and drbdmeta it is
//! what they are.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use tandemadm::cli::Cli;
use tandemadm::drbdsetup::Asked;
use tandemadm::session::CalledAs;
use tandemadm::{commands, completion, drbdsetup, legacy};

/// What drbdadm ends with if it is called wrongly.
const USAGE_CODE: u8 = 1;
/// And drbdsetup.
const DRBDSETUP_USAGE_CODE: u8 = 20;

fn main() -> ExitCode {
    completion::answer(Cli::command);
    let line: Vec<OsString> = std::env::args_os().collect();
    let name = line.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == "drbdmeta") {
        let words: Vec<String> =
            line.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        return ExitCode::from(commands::drbdmeta(&words));
    }
    if name.is_none_or(|name| name != "drbdsetup") {
        let adm =
            if name.is_some_and(|name| name == "drbdadm") { CalledAs::Drbdadm } else { CalledAs::Tandemadm };
        return run(legacy::without_separator(line), USAGE_CODE, adm);
    }
    match drbdsetup::as_tandemadm(line) {
        Ok(Asked::Same { command, line }) => run(line, DRBDSETUP_USAGE_CODE, CalledAs::Drbdsetup(command)),
        Ok(Asked::Piece(piece)) => ExitCode::from(commands::piece(piece)),
        Err(text) => {
            // There may be nobody to complain to.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(DRBDSETUP_USAGE_CODE)
        }
    }
}

fn run(line: Vec<OsString>, usage_code: u8, called: CalledAs) -> ExitCode {
    let parsed = Cli::command().try_get_matches_from(line).and_then(|matches| {
        Ok((Cli::from_arg_matches(&matches)?, matches.subcommand_name().unwrap_or_default().to_owned()))
    });
    match parsed {
        Ok((cli, verb)) => ExitCode::from(commands::run(cli, &verb, called)),
        Err(mut error) => {
            suggest_verb(&mut error);
            let code = if error.use_stderr() { usage_code } else { 0 };
            match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(usage_code),
            }
        }
    }
}

/// Words of other tools, which look like none of ours.
const MEANT: [(&str, &str); 5] = [
    ("promote", "primary"),
    ("demote", "secondary"),
    ("start", "up"),
    ("stop", "down"),
    ("reload", "adjust"),
];

fn suggest_verb(error: &mut clap::Error) {
    let said = error.get(ContextKind::InvalidSubcommand).map(ToString::to_string);
    if let Some((_, meant)) = MEANT.iter().find(|(word, _)| said.as_deref() == Some(*word)) {
        let tip = ContextValue::Strings(vec![(*meant).to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, tip);
    }
}
