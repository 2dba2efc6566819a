//! Local time zone: times of the command line, clock and date of a moment.

use jiff::{Timestamp, ZonedDateTime, tz::TimeZone};

use crate::time::{self, BadTime, Moment};

/// Reads a time against the clock and the time zone of this process (`TZ`, else `/etc/localtime`).
///
/// # Errors
/// As [`time::parse`].
pub fn moment(text: &str) -> Result<Moment, BadTime> {
    time::parse(text, &ZonedDateTime::now())
}

/// `HH:MM:SS` of a moment in seconds since the epoch.
#[must_use]
pub fn clock(epoch_secs: u64) -> String {
    local(epoch_secs).map_or_else(|| "--:--:--".to_owned(), |at| format!("{}", at.time()))
}

/// `YYYY-MM-DD` of a moment in seconds since the epoch.
#[must_use]
pub fn day(epoch_secs: u64) -> String {
    local(epoch_secs).map_or_else(|| "----------".to_owned(), |at| at.date().to_string())
}

fn local(epoch_secs: u64) -> Option<ZonedDateTime> {
    let at = Timestamp::from_second(i64::try_from(epoch_secs).ok()?).ok()?;
    Some(at.to_zoned_datetime(TimeZone::system()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_has_hours_minutes_and_seconds() {
        let text = clock(1_700_000_042);
        assert_eq!((text.len(), text.matches(':').count()), (8, 2));
        assert!(text.ends_with(":02"), "{text}");
    }

    #[test]
    fn local_clock_and_date_round_trip() {
        for secs in (0..4_000_000_000).step_by(7_777_777) {
            let shown = format!("{} {}", day(secs), clock(secs));
            let read = moment(&shown).unwrap().secs;
            // When the clock is put back, two times have the same text.
            assert_eq!(format!("{} {}", day(read), clock(read)), shown);
        }
        let now = moment("now").unwrap().secs;
        assert!(moment("2 hours ago").unwrap().secs.abs_diff(now - 7200) <= 1);
    }
}
