//! Printing that does not mind a reader who is gone: `tandemadm status | head -1` is no reason to panic.

use std::fmt::Arguments;
use std::io::Write;

/// Prints to stdout.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::stdout(format_args!($($text)*)) };
}

/// Prints a line to stdout.
macro_rules! outln {
    ($($text:tt)*) => { $crate::output::stdout(format_args!("{}\n", format_args!($($text)*))) };
}

/// Prints a line to stderr.
macro_rules! errln {
    ($($text:tt)*) => { $crate::output::stderr(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {errln, out, outln};

/// Writes at once: what a script waits for must not stay in a buffer.
pub(crate) fn stdout(text: Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_fmt(text).and_then(|()| stdout.flush());
}

/// As [`stdout`].
pub(crate) fn stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(text);
}
