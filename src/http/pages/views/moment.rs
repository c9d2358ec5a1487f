//! Times in words. Pages say UTC, because they work without scripts and do not know the reader's zone.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Millis;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A point in time as a page shows it, for `<time datetime title>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// RFC 3339 in UTC, for machines.
    pub exact: String,
    /// Date and time in words: `8 August 2026, 14:05 UTC`.
    pub full: String,
    /// What is read: `3 minutes ago`, `in 48 minutes`, `14:05`, `Yesterday`.
    pub words: String,
    /// True when [`Moment::relative`] found it before its `now`.
    pub past: bool,
}

impl Moment {
    /// `at` as seen from `now`: `just now`, `3 minutes ago`, `in 2 hours`, and the date beyond a week.
    #[must_use]
    pub fn relative(at: Millis, now: Millis) -> Self {
        Self { past: at < now, ..Self::seen(at, now) }
    }

    fn seen(at: Millis, now: Millis) -> Self {
        let seconds = (at.0 - now.0).div_euclid(1000);
        let (number, unit) = match seconds.abs() {
            0..45 => return Self::with(at, if seconds > 0 { "in a moment" } else { "just now" }),
            45..HOUR => ((seconds.abs() + 30) / MINUTE, "minute"),
            HOUR..DAY => (seconds.abs() / HOUR, "hour"),
            far if far < 7 * DAY => (far / DAY, "day"),
            _ => return Self::with(at, &format("%-d %B %Y", at)),
        };
        let number = number.max(1);
        let plural = if number == 1 { "" } else { "s" };
        let words =
            if seconds > 0 { format!("in {number} {unit}{plural}") } else { format!("{number} {unit}{plural} ago") };
        Self::with(at, &words)
    }

    /// The time of day: `14:05`.
    #[must_use]
    pub fn time_of_day(at: Millis) -> Self {
        Self::with(at, &format("%H:%M", at))
    }

    /// Date and time: `8 August 2026, 14:05 UTC`.
    #[must_use]
    pub fn date_and_time(at: Millis) -> Self {
        Self::with(at, &format("%-d %B %Y, %H:%M UTC", at))
    }

    /// The day (in UTC) as seen from `now`: `Today`, `Yesterday`, `Saturday, 8 August 2026`.
    #[must_use]
    pub fn day(at: Millis, now: Millis) -> Self {
        let yesterday = now.before(Duration::from_secs(DAY.unsigned_abs()));
        let date = |time| format("%Y-%m-%d", time);
        if date(at) == date(now) {
            Self::with(at, "Today")
        } else if date(at) == date(yesterday) {
            Self::with(at, "Yesterday")
        } else {
            Self::with(at, &format("%A, %-d %B %Y", at))
        }
    }

    fn with(at: Millis, words: &str) -> Self {
        Self { exact: at.rfc3339(), full: format("%-d %B %Y, %H:%M UTC", at), words: words.to_owned(), past: false }
    }
}

fn format(pattern: &str, at: Millis) -> String {
    let at = Timestamp::from_millisecond(at.0).unwrap_or(Timestamp::MAX);
    at.to_zoned(TimeZone::UTC).strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        Millis::parse_rfc3339(text).expect("time")
    }

    #[test]
    fn near_times_are_counted_and_far_times_are_dated() {
        let now = at("2026-08-08T14:05:00Z");
        let words = |text| Moment::relative(at(text), now).words;
        assert_eq!(words("2026-08-08T14:04:30Z"), "just now");
        assert_eq!(words("2026-08-08T14:05:20Z"), "in a moment");
        assert_eq!(words("2026-08-08T14:04:10Z"), "1 minute ago");
        assert_eq!(words("2026-08-08T14:02:00Z"), "3 minutes ago");
        assert_eq!(words("2026-08-08T14:53:00Z"), "in 48 minutes");
        assert_eq!(words("2026-08-08T12:05:00Z"), "2 hours ago");
        assert_eq!(words("2026-08-07T13:05:00Z"), "1 day ago");
        assert_eq!(words("2026-07-01T13:05:00Z"), "1 July 2026");
    }

    #[test]
    fn days_are_named_from_today_backwards() {
        let now = at("2026-08-08T00:05:00Z");
        let words = |text| Moment::day(at(text), now).words;
        assert_eq!(words("2026-08-08T00:01:00Z"), "Today");
        assert_eq!(words("2026-08-07T23:59:00Z"), "Yesterday");
        assert_eq!(words("2026-08-06T12:00:00Z"), "Thursday, 6 August 2026");
    }

    #[test]
    fn a_time_beyond_the_calendar_does_not_panic() {
        assert!(!Moment::date_and_time(Millis(i64::MAX)).words.is_empty());
        assert!(!Moment::relative(Millis(i64::MAX), Millis(0)).words.is_empty());
    }
}
