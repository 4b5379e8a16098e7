//! Who reads what is printed to stdout.

use std::io::{IsTerminal, stdout};

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
    let known = tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col));
    known.filter(|columns| *columns > 0).unwrap_or(USUAL_COLUMNS)
}

/// Whether it is to see colours.
pub(crate) fn colours(when: When) -> Colours {
    Colours(match when {
        When::Always => true,
        When::Never => false,
        When::Auto => is_reader(),
    })
}
