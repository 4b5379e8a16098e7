//! Who reads what is printed.

use std::ffi::OsString;
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

use crate::cli::When;
use crate::colours::Colours;

/// The width for readers that have none.
const USUAL_COLUMNS: usize = 80;

/// The reader is a terminal.
pub(crate) fn is_reader() -> bool {
    stdout().is_terminal()
}

/// Its width.
pub(crate) fn columns() -> usize {
    width(stdout()).unwrap_or(USUAL_COLUMNS)
}

/// As much of a line as this reader shows without breaking it.
pub(crate) fn clipped(line: &str, reader: impl AsFd) -> String {
    line.chars().take(width(reader).unwrap_or(usize::MAX)).collect()
}

fn width(reader: impl AsFd) -> Option<usize> {
    let known = tcgetwinsize(reader).ok().map(|size| usize::from(size.ws_col));
    known.filter(|columns| *columns > 0)
}

/// Whether it is to see colours.
pub(crate) fn colours(when: When) -> Colours {
    Colours(match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let said = std::env::var_os;
            is_reader() && !is_dumb(said("TERM")) && !has_said_no(said("NO_COLOR"))
        }
    })
}

/// Such a terminal shows what should be a colour as letters.
fn is_dumb(term: Option<OsString>) -> bool {
    term.is_some_and(|term| term == "dumb")
}

/// <https://no-color.org>: set to anything but nothing.
fn has_said_no(no_color: Option<OsString>) -> bool {
    no_color.is_some_and(|said| !said.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_no_colours_has_none() {
        assert!(has_said_no(Some("1".into())));
        assert!(!has_said_no(Some("".into())) && !has_said_no(None));
        assert!(is_dumb(Some("dumb".into())) && !is_dumb(Some("xterm".into())) && !is_dumb(None));
    }
}
