//! What the clock on the wall shows.

use std::time::{SystemTime, UNIX_EPOCH};

use tandem_control::utc;
use tz::TimeZone;

/// A time zone; UTC if there is none.
pub(crate) struct Clock(Option<TimeZone>);

impl Clock {
    /// The zone that the environment or the machine has, as for the C library.
    pub(crate) fn here() -> Clock {
        Clock(match std::env::var("TZ") {
            Ok(zone) => TimeZone::from_posix_tz(&zone).ok(),
            Err(_) => TimeZone::local().ok(),
        })
    }

    /// `2026-11-21T05:02:08.123456+01:00`.
    pub(crate) fn iso8601(&self, time: SystemTime) -> String {
        utc::iso8601(time, self.ahead_s(time).unwrap_or(0))
    }

    fn ahead_s(&self, time: SystemTime) -> Option<i32> {
        let seconds = i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
        Some(self.0.as_ref()?.find_local_time_type(seconds).ok()?.ut_offset())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn summer_is_ahead_of_winter() {
        let berlin = Clock(TimeZone::from_posix_tz("CET-1CEST,M3.5.0,M10.5.0/3").ok());
        let at = |clock: &Clock, seconds| clock.iso8601(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(&berlin, 1_782_000_000), "2026-06-21T02:00:00.000000+02:00");
        assert_eq!(at(&berlin, 1_798_761_599), "2027-01-01T00:59:59.000000+01:00");
        assert_eq!(at(&Clock(None), 0), "1970-01-01T00:00:00.000000+00:00");
    }
}
