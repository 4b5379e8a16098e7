//! Printing that does not mind a reader who is gone: `tandemadm status | head -1` is no reason to panic. What cannot be written
//! for another reason is a failure.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Write};
use std::sync::OnceLock;

/// What the program ends with at least, if something was not written.
const INCOMPLETE_CODE: u8 = 1;

/// Why something was not written; the first time counts.
static INCOMPLETE: OnceLock<Error> = OnceLock::new();

/// Prints to stdout.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::output::stdout(format_args!($($text)*)) };
}

/// Prints a line to stdout.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::stdout(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line to stderr.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::stderr(format_args!("{}\n", format_args!($($text)*))) };
}

pub use crate::{errln, out, outln};

/// Writes at once: what a script waits for must not stay in a buffer.
pub fn stdout(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).unwrap_or_else(note);
}

/// As [`stdout`]; there is nowhere to complain.
pub fn stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}

/// Something was not written. What there is to do goes on nevertheless.
pub fn note(error: Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        let _ = INCOMPLETE.set(error);
    }
}

/// The exit code of a program that would end with this one, if everything was written.
pub fn verdict(code: u8) -> u8 {
    let Some(error) = INCOMPLETE.get() else { return code };
    errln!("what was printed is not complete: writing to stdout: {error}");
    code.max(INCOMPLETE_CODE)
}
