//! `--watch`: the same again and again, on a terminal's second screen, which is left as it was found.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::failure::Failure;
use crate::interruptions::Interruptions;
use crate::output;

const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Shows what `look` finds every `pause`, until a signal ends it or nobody reads any more. Returns what the last look would have
/// ended with.
pub(crate) fn repeat(
    pause: Duration,
    mut look: impl FnMut() -> Result<(String, u8), Failure>,
) -> Result<u8, Failure> {
    // From here on nothing but the end of this function ends the program.
    let interruptions = Interruptions::hold_back()?;
    let screen = Screen::enter();
    loop {
        let (text, code) = look().unwrap_or_else(|failure| (format!("{failure}\n"), failure.exit_code()));
        if let Err(error) = screen.show(&text, pause) {
            output::note(error);
            return Ok(code);
        }
        if interruptions.within(pause)? {
            return Ok(code);
        }
    }
}

/// Stdout; a terminal's second screen while this lives.
struct Screen {
    is_terminal: bool,
}

impl Screen {
    fn enter() -> Screen {
        let screen = Screen { is_terminal: std::io::stdout().is_terminal() };
        if screen.is_terminal {
            let _ = write(ENTER);
        }
        screen
    }

    fn show(&self, text: &str, pause: Duration) -> std::io::Result<()> {
        match self.is_terminal {
            true => write(&frame(text, pause)),
            false => write(text),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write(LEAVE);
        }
    }
}

/// The whole screen anew, without a moment in which it is empty.
fn frame(text: &str, pause: Duration) -> String {
    let mut frame =
        format!("{HOME}Every {} s; Ctrl-C ends.{CLEAR_LINE}\r\n{CLEAR_LINE}\r\n", pause.as_secs());
    for line in text.lines() {
        let _ = write!(frame, "{line}{CLEAR_LINE}\r\n");
    }
    frame.push_str(CLEAR_REST);
    frame
}

fn write(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_covers_what_was_there_before() {
        let text = frame("a\nb\n", Duration::from_secs(2));
        assert_eq!(text, "\x1b[HEvery 2 s; Ctrl-C ends.\x1b[K\r\n\x1b[K\r\na\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
