//! Time zone of this process: times of the command line, clock and date of a moment.
//!
//! `--time-zone` sets it once, before the first time is read; else it is that of the system (`TZ`,
//! else `/etc/localtime`).

use std::{ffi::OsStr, str::FromStr, sync::OnceLock};

pub use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use crate::time::{self, BadTime, Moment};

/// Zone of `--time-zone`, if it names one.
static CHOSEN: OnceLock<TimeZone> = OnceLock::new();

/// Value of `--time-zone`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ZoneOption {
    /// That of the system.
    #[default]
    System,
    /// A zone of the time zone database.
    Named(TimeZone),
}

/// A name that the time zone database does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected system, UTC or a name of /usr/share/zoneinfo such as Europe/Berlin")]
pub struct UnknownZone;

impl FromStr for ZoneOption {
    type Err = UnknownZone;

    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        if text == "system" {
            return Ok(Self::System);
        }
        TimeZone::get(text).map(Self::Named).map_err(|_| UnknownZone)
    }
}

impl ZoneOption {
    /// The zone to use. `TZ` in the environment is more specific than the file, and less than the
    /// option.
    #[must_use]
    pub fn chosen(self, is_of_file: bool, tz: Option<&OsStr>) -> Option<TimeZone> {
        match self {
            Self::Named(zone) if !(is_of_file && tz.is_some_and(|tz| !tz.is_empty())) => Some(zone),
            _ => None,
        }
    }
}

/// Sets the zone of this process; the first call counts.
pub fn choose(zone: TimeZone) {
    let _ = CHOSEN.set(zone);
}

/// Whether the zone is not that of the system.
#[must_use]
pub fn is_chosen() -> bool {
    CHOSEN.get().is_some()
}

fn zone() -> TimeZone {
    CHOSEN.get().cloned().unwrap_or_else(TimeZone::system)
}

/// Reads a time against the clock and the time zone of this process.
///
/// # Errors
/// As [`time::parse`].
pub fn moment(text: &str) -> Result<Moment, BadTime> {
    time::parse(text, &ZonedDateTime::now().with_time_zone(zone()))
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
    Some(at.to_zoned_datetime(zone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_system_or_a_name_of_the_database() {
        assert_eq!("system".parse(), Ok(ZoneOption::System));
        let utc: ZoneOption = "UTC".parse().unwrap();
        assert!(matches!(&utc, ZoneOption::Named(zone) if zone.iana_name() == Some("UTC")), "{utc:?}");
        for text in ["", "Europe", "Atlantis/Centre", "../etc/passwd", "UTC "] {
            assert_eq!(text.parse::<ZoneOption>(), Err(UnknownZone), "{text:?}");
        }
    }

    #[test]
    fn the_environment_is_more_specific_than_the_file_and_less_than_the_option() {
        let utc = || ZoneOption::Named(TimeZone::UTC);
        let (tz, empty) = (Some(OsStr::new("Asia/Tokyo")), Some(OsStr::new("")));
        for (option, is_of_file, tz, is_chosen) in [
            (utc(), true, None, true),
            (utc(), true, empty, true),
            (utc(), true, tz, false),
            (utc(), false, tz, true),
            (ZoneOption::System, true, None, false),
            (ZoneOption::System, false, tz, false),
        ] {
            let shown = format!("{option:?}, {is_of_file}, {tz:?}");
            assert_eq!(option.chosen(is_of_file, tz).is_some(), is_chosen, "{shown}");
        }
    }

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
