//! Waiting for a condition, with a limit.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything on this machine, even under load.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits until the condition holds; panics with `what` if it does not within [`LIMIT`].
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(LIMIT, condition), "not within {} s: {what}", LIMIT.as_secs());
}

/// Waits until the condition holds; false if it does not within the limit.
pub(crate) fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}
