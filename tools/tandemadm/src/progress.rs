//! How far something is, in words and as a bar.

use tandem_core::status::{PeerStatus, ResyncProgress};

use crate::view::percent_done;

const WIDTH: usize = 20;

/// Work that is under way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// All of it.
    pub total_bytes: u64,
    /// What is still to be done.
    pub left_bytes: u64,
    /// How fast it is.
    pub bytes_per_s: u64,
    /// It does not move.
    pub stalled: bool,
}

impl From<&ResyncProgress> for Work {
    fn from(resync: &ResyncProgress) -> Work {
        Work {
            total_bytes: resync.total_bytes,
            left_bytes: resync.left_bytes,
            bytes_per_s: resync.recent_bytes_per_s,
            stalled: resync.stalled,
        }
    }
}

impl Work {
    /// One line: `r0 [=======>............]  37.5%  123,456 KiB/s  finish: 0:00:25`.
    pub fn line(&self, what: &str) -> String {
        let percent = self.percent();
        format!("{what} [{}] {percent:5.1}%  {} KiB/s  {}", bar(percent), self.speed(), self.finish())
    }

    /// To one digit, not rounded: 100.0 is for what is done.
    fn percent(&self) -> f64 {
        (percent_done(self.total_bytes, self.left_bytes) * 10.0).floor() / 10.0
    }

    fn speed(&self) -> String {
        thousands(self.bytes_per_s / 1024)
    }

    fn finish(&self) -> String {
        match self.left_bytes.checked_div(self.bytes_per_s) {
            _ if self.stalled => "(stalled)".to_owned(),
            None => "finish: ?".to_owned(),
            Some(seconds) => format!("finish: {}", clock(seconds)),
        }
    }
}

/// Of the peer that has most to do.
pub fn line(resource: &str, peers: &[PeerStatus]) -> Option<String> {
    let slowest =
        peers.iter().filter_map(|peer| peer.resync.as_ref()).max_by_key(|resync| resync.left_bytes)?;
    Some(Work::from(slowest).line(resource))
}

/// The same of one peer, for a sentence: `37.5%, 123,456 KiB/s, finish: 0:00:25`.
pub fn of_peer(peer: &PeerStatus) -> Option<String> {
    let work = Work::from(peer.resync.as_ref()?);
    Some(format!("{:.1}%, {} KiB/s, {}", work.percent(), work.speed(), work.finish()))
}

/// Hours, minutes and seconds.
pub fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn bar(percent: f64) -> String {
    let filled = ((percent / 100.0 * WIDTH as f64) as usize).min(WIDTH);
    let head = if filled < WIDTH { ">" } else { "" };
    format!("{}{head}{}", "=".repeat(filled), ".".repeat(WIDTH - filled - head.len()))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_line_shows_how_far_how_fast_and_how_long() {
        let mut status = fixture::connected();
        assert_eq!(line("r0", &status.engine.peers), None);
        let mut resync = fixture::resync(8 << 30, 5 << 30);
        resync.recent_bytes_per_s = 123_456 << 10;
        status.engine.peers[0].resync = Some(resync);
        assert_eq!(
            line("r0", &status.engine.peers).as_deref(),
            Some("r0 [=======>............]  37.5%  123,456 KiB/s  finish: 0:00:42")
        );
    }

    #[test]
    fn the_bar_keeps_its_width() {
        for permille in 0..=1000 {
            assert_eq!(bar(f64::from(permille) / 10.0).len(), WIDTH);
        }
    }

    #[test]
    fn no_speed_means_no_promise() {
        let mut work = Work { total_bytes: 100, left_bytes: 50, bytes_per_s: 0, stalled: false };
        assert_eq!(work.finish(), "finish: ?");
        work.stalled = true;
        assert_eq!(work.finish(), "(stalled)");
    }

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
