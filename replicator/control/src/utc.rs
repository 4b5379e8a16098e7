//! Points in time as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-21 04:02:08.123`, in UTC.
pub fn format(time: SystemTime) -> String {
    let (date, clock, micros) = parts(time);
    format!("{date} {clock}.{:03}", micros / 1000)
}

/// `2026-11-21T05:02:08.123456+01:00`, where clocks are this many seconds ahead of UTC.
pub fn iso8601(time: SystemTime, ahead_s: i32) -> String {
    let by = Duration::from_secs(ahead_s.unsigned_abs().into());
    let local = if ahead_s < 0 { time.checked_sub(by) } else { time.checked_add(by) };
    let (date, clock, micros) = parts(local.unwrap_or(time));
    let (sign, minutes) = (if ahead_s < 0 { '-' } else { '+' }, ahead_s.unsigned_abs() / 60);
    format!("{date}T{clock}.{micros:06}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// The date, the time of the day and what is left in microseconds.
fn parts(time: SystemTime) -> (String, String, u32) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    (format!("{year}-{month:02}-{day:02}"), clock, since_epoch.subsec_micros())
}

/// The Gregorian date that lies `days` after 1970-01-01. Years are counted from March, so that the leap day is the
/// last one.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (DAYS_IN_400_YEARS - 1);
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let at = |seconds| format(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00.000");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000");
        assert_eq!(at(951_868_800), "2000-03-01 00:00:00.000");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59.000");
        let moment = UNIX_EPOCH + Duration::from_micros(1_798_761_599_012_345);
        assert_eq!(iso8601(moment, 0), "2026-12-31T23:59:59.012345+00:00");
        assert_eq!(iso8601(moment, 3600), "2027-01-01T00:59:59.012345+01:00");
        assert_eq!(iso8601(moment, -12_600), "2026-12-31T20:29:59.012345-03:30");
    }
}
