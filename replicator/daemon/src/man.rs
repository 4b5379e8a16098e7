//! The manual page, from the definition of the command line.

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use tandem_man::{Page, Term};

use crate::Options;

/// Writes it where `man` looks for it below `folder`.
pub(crate) fn write(folder: &Path) -> ExitCode {
    match page().write_below(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandemd: writing below {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn page() -> Page {
    let mut page = Page::of_command(&Options::command(), 8);
    page.section("signals");
    page.entry(
        &Term::default().literal("SIGTERM").plain(", ").literal("SIGINT"),
        "Ends it. Block devices stay: their requests wait for the next daemon.",
    );
    page.section("environment");
    for (name, text) in [
        ("TANDEM_RUN_DIR", "The folder for its files, instead of `/run/tandem`."),
        ("TANDEM_LOG", "What is logged: `error`, `warn`, `info`, `debug` or `trace`."),
    ] {
        page.entry(&Term::default().literal(name), text);
    }
    page.section("files");
    for (name, text) in [
        ("/run/tandem/control.sock", "Where tandemadm talks to it."),
        ("/run/tandem/nbd.sock", "Where NBD clients connect; each resource that is Primary is an export."),
        ("/run/tandem/proc/drbd", "The state of everything, in the format of `/proc/drbd` of DRBD 8.4."),
    ] {
        page.entry(&Term::default().literal(name), text);
    }
    page.see_also(&[("tandemadm", 8), ("tandem.conf", 5)]);
    page
}
