//! One line on stderr while something takes long: what it is, how far, how fast, and when it ends.

use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use tandem_core::io::DiskError;
use tandem_core::metadata::MetaIo;

use crate::output::errln;
use crate::progress::{Work, clock};
use crate::terminal;

/// What takes less is not worth a line.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two drawings.
pub(crate) const REFRESH: Duration = Duration::from_millis(100);

/// Who sees bars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bars {
    /// Nobody.
    Never,
    /// Who has a terminal.
    OnTerminal,
    /// Whoever reads stderr.
    Always,
}

impl Bars {
    /// There is somebody who sees one.
    pub(crate) fn are_seen(self) -> bool {
        match self {
            Bars::Never => false,
            Bars::OnTerminal => stderr().is_terminal(),
            Bars::Always => true,
        }
    }

    /// Unless nobody wants any, `wish` has them drawn for every reader.
    pub(crate) fn with(self, wish: bool) -> Bars {
        if wish && self != Bars::Never { Bars::Always } else { self }
    }
}

/// Does something, and shows for how long.
pub(crate) fn waiting<T: Send>(bars: Bars, what: &str, work: impl FnOnce() -> T + Send) -> T {
    if !bars.are_seen() {
        return work();
    }
    let mut bar = Bar::new(bars);
    std::thread::scope(|scope| {
        let (working, is_done) = mpsc::channel::<()>();
        let worker = scope.spawn(move || {
            let result = work();
            drop(working);
            result
        });
        while is_done.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
            bar.draw_wait(what);
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A line that is drawn anew.
pub(crate) struct Bar {
    seen: bool,
    patience: Duration,
    begun: Instant,
    drawn_at: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(bars: Bars) -> Bar {
        let patience = if bars == Bars::Always { Duration::ZERO } else { PATIENCE };
        Bar { seen: bars.are_seen(), patience, begun: Instant::now(), drawn_at: None }
    }

    /// `line` is asked for what stands there, with the time since the beginning; neither too early nor too often.
    pub(crate) fn draw(&mut self, line: impl FnOnce(Duration) -> String) {
        let elapsed = self.begun.elapsed();
        let due = self.drawn_at.map_or(elapsed >= self.patience, |at| at.elapsed() >= REFRESH);
        if self.seen && due {
            redraw(&terminal::clipped(&line(elapsed), stderr()));
            self.drawn_at = Some(Instant::now());
        }
    }

    /// So much of it is done.
    pub(crate) fn draw_work(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        self.draw(|elapsed| {
            let work = Work {
                total_bytes,
                left_bytes: total_bytes.saturating_sub(done_bytes),
                bytes_per_s: (done_bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64,
                stalled: false,
            };
            work.line(what)
        });
    }

    /// What can only be waited for.
    pub(crate) fn draw_wait(&mut self, what: &str) {
        self.draw(|elapsed| format!("{what}, {}", clock(elapsed.as_secs())));
    }

    /// What is written next stands in its place.
    fn erase(&mut self) {
        if self.drawn_at.take().is_some() {
            redraw("");
        }
    }

    /// What is written next stands below it.
    pub(crate) fn leave(&mut self) {
        if self.drawn_at.take().is_some() {
            errln!("");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Draws the line where it stands; a stderr that is gone is no reason to stop.
pub(crate) fn redraw(line: &str) {
    let mut stderr = stderr();
    let _ = write!(stderr, "\r{line}\x1b[K");
    let _ = stderr.flush();
}

/// A disk whose metadata is read, or written, or first the one and then the other.
pub(crate) struct Shown<'a> {
    io: &'a mut dyn MetaIo,
    what: String,
    total_bytes: u64,
    reads: Pass,
    writes: Pass,
}

struct Pass {
    word: &'static str,
    bar: Bar,
    bytes: u64,
}

impl Pass {
    fn new(word: &'static str, bars: Bars) -> Pass {
        Pass { word, bar: Bar::new(bars), bytes: 0 }
    }

    fn add(&mut self, what: &str, bytes: usize, total_bytes: u64) {
        if self.bytes == 0 {
            self.bar.begun = Instant::now();
        }
        self.bytes += bytes as u64;
        self.bar.draw_work(&format!("{what}: {}", self.word), self.bytes, total_bytes);
    }
}

impl<'a> Shown<'a> {
    /// Of either so many bytes.
    pub(crate) fn new(io: &'a mut dyn MetaIo, bars: Bars, what: String, total_bytes: u64) -> Shown<'a> {
        let [reads, writes] = ["reading", "writing"].map(|word| Pass::new(word, bars));
        Shown { io, what, total_bytes, reads, writes }
    }
}

impl MetaIo for Shown<'_> {
    fn size_bytes(&self) -> u64 {
        self.io.size_bytes()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.io.read_at(offset, buffer)?;
        self.reads.add(&self.what, buffer.len(), self.total_bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.io.write_at(offset, data)?;
        self.writes.add(&self.what, data.len(), self.total_bytes);
        Ok(())
    }

    /// What was written may have got no further than memory.
    fn flush(&mut self) -> Result<(), DiskError> {
        if self.writes.bytes > 0 {
            self.writes.bar.draw_wait(&format!("{}: making it durable", self.what));
        }
        self.io.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_what_nobody_reads() {
        let mut drawn = 0;
        for bars in [Bars::Never, Bars::Never.with(true), Bars::OnTerminal.with(true)] {
            Bar::new(bars).draw(|_| {
                drawn += 1;
                String::new()
            });
        }
        assert_eq!(drawn, 1);
    }

    #[test]
    fn a_bar_waits_before_it_is_seen_and_between_two_looks() {
        let mut bar = Bar::new(Bars::Always);
        bar.patience = Duration::from_secs(3600);
        bar.draw(|_| panic!("too early"));
        bar.patience = Duration::ZERO;
        bar.draw_work("copy", 1, 2);
        bar.drawn_at = Some(Instant::now() + REFRESH);
        bar.draw(|_| panic!("too often"));
    }

    struct Zeroes(u64);

    impl MetaIo for Zeroes {
        fn size_bytes(&self) -> u64 {
            self.0
        }

        fn read_at(&mut self, _: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
            buffer.fill(0);
            Ok(())
        }

        fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
            let fits = offset + data.len() as u64 <= self.0;
            if fits { Ok(()) } else { Err(DiskError("beyond its end".into())) }
        }

        fn flush(&mut self) -> Result<(), DiskError> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_is_shown_is_the_same_disk() {
        let mut disk = Zeroes(8192);
        let mut shown = Shown::new(&mut disk, Bars::Always, "r0: create-md".into(), 8192);
        assert_eq!(shown.size_bytes(), 8192);
        let mut buffer = [7; 4096];
        shown.read_at(0, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 4096]);
        shown.write_at(4096, &buffer).unwrap();
        assert!(shown.write_at(8192, &buffer).is_err());
        shown.flush().unwrap();
        assert_eq!((shown.reads.bytes, shown.writes.bytes), (4096, 4096));
    }
}
