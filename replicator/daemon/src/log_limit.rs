//! Keeps those who may knock at will from filling the log: a few lines at once, then one for many.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one kind within [`INTERVAL`].
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);

/// For one kind of line.
pub(crate) struct LogLimit(Mutex<State>);

struct State {
    /// The end of the current interval.
    until: Option<Instant>,
    written: u32,
    dropped: u64,
}

/// Says that a line may be written; shown, it tells how many of its kind were not.
pub(crate) struct Permit {
    dropped: u64,
}

impl LogLimit {
    pub(crate) const fn new() -> LogLimit {
        LogLimit(Mutex::new(State { until: None, written: 0, dropped: 0 }))
    }

    /// Whether a line may be written now. To be shown at its end.
    pub(crate) fn permit(&self) -> Option<Permit> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<Permit> {
        let mut state = self.lock();
        if state.until.is_none_or(|until| now >= until) {
            state.until = Some(now + INTERVAL);
            state.written = 0;
        }
        if state.written == BURST {
            state.dropped += 1;
            return None;
        }
        state.written += 1;
        Some(Permit { dropped: std::mem::take(&mut state.dropped) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dropped {
            0 => Ok(()),
            dropped => write!(f, " ({dropped} more of the kind before)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_costs_a_few_lines_and_is_counted() {
        let limit = LogLimit::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let written = (0..1000).filter(|_| limit.permit_at(at(0)).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert!(limit.permit_at(at(9)).is_none());
        let permit = limit.permit_at(at(11)).unwrap();
        assert_eq!(permit.to_string(), " (996 more of the kind before)");
        assert_eq!(limit.permit_at(at(12)).unwrap().to_string(), "");
    }
}
