//! The progress bar of `wait-sync`.

use tandem_core::status::{PeerStatus, ResyncProgress};

use crate::view::percent_done;

const WIDTH: usize = 20;

/// One line: `r0 [=======>............]  37.5%  123,456 KiB/s  finish: 0:00:25`.
pub fn line(resource: &str, peers: &[PeerStatus]) -> Option<String> {
    let slowest =
        peers.iter().filter_map(|peer| peer.resync.as_ref()).max_by_key(|resync| resync.left_bytes)?;
    let percent = (percent_done(slowest) * 10.0).floor() / 10.0;
    let speed = thousands(slowest.recent_bytes_per_s / 1024);
    Some(format!("{resource} [{}] {percent:5.1}%  {speed} KiB/s  {}", bar(percent), finish(slowest)))
}

/// The same of one peer, for a sentence: `37.5%, 123,456 KiB/s, finish: 0:00:25`.
pub fn of_peer(peer: &PeerStatus) -> Option<String> {
    let resync = peer.resync.as_ref()?;
    let percent = (percent_done(resync) * 10.0).floor() / 10.0;
    let speed = thousands(resync.recent_bytes_per_s / 1024);
    Some(format!("{percent:.1}%, {speed} KiB/s, {}", finish(resync)))
}

fn bar(percent: f64) -> String {
    let filled = ((percent / 100.0 * WIDTH as f64) as usize).min(WIDTH);
    let head = if filled < WIDTH { ">" } else { "" };
    format!("{}{head}{}", "=".repeat(filled), ".".repeat(WIDTH - filled - head.len()))
}

fn finish(resync: &ResyncProgress) -> String {
    match resync.left_bytes.checked_div(resync.recent_bytes_per_s) {
        _ if resync.stalled => "(stalled)".to_owned(),
        None => "finish: ?".to_owned(),
        Some(seconds) => format!("finish: {}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
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
        let mut resync = fixture::resync(100, 50);
        resync.recent_bytes_per_s = 0;
        assert_eq!(finish(&resync), "finish: ?");
        resync.stalled = true;
        assert_eq!(finish(&resync), "(stalled)");
    }

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
