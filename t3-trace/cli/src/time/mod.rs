//! Times of `--since`, `--until` and `explain`: `14:10`, `2 hours ago`, `-2h`, `yesterday 14:10`,
//! `2026-11-24 14:10`, RFC 3339, `@epoch`, and `Nov 24 14:10:05` as journalctl prints it.
//!
//! Pure: the current time and the time zone are arguments. Text that is not one of these forms is
//! rejected.

pub mod closed;
mod length;
pub mod local;
mod parse;

use jiff::{Timestamp, ZonedDateTime};

pub use length::duration;

/// Start and width of the time that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the epoch.
    pub secs: u64,
    /// Microseconds of the second, 0 to 999,999.
    pub micros: u32,
    /// Width in seconds: 60 for `14:10`, a day for `yesterday`, else 1.
    pub span: u64,
    /// Of a time of day without a day: today's occurrence, in seconds since the epoch, if it is
    /// still to come and [`Self::secs`] is yesterday's.
    pub upcoming: Option<u64>,
}

impl Moment {
    /// Microseconds since the epoch, as journald counts.
    #[must_use]
    pub const fn epoch_micros(self) -> u64 {
        self.secs * 1_000_000 + self.micros as u64
    }

    /// Format of journalctl and date: `@1700000000` or `@1700000000.250000`.
    #[must_use]
    pub fn at_epoch(self) -> String {
        if self.micros == 0 {
            format!("@{}", self.secs)
        } else {
            format!("@{}.{:06}", self.secs, self.micros)
        }
    }

    /// The end of a range that starts at `start`: at 14:15, `14:20` after `14:00` is today's.
    #[must_use]
    pub fn at_or_after(self, start: Self) -> Self {
        match self.upcoming {
            Some(secs) if self.epoch_micros() < start.epoch_micros() => Self { secs, upcoming: None, ..self },
            _ => self,
        }
    }

    /// `None` before 1970.
    fn of(at: Timestamp, span: u64) -> Option<Self> {
        let micros = u64::try_from(at.as_microsecond()).ok()?;
        let fraction = u32::try_from(micros % 1_000_000).ok()?;
        Some(Self { secs: micros / 1_000_000, micros: fraction, span, upcoming: None })
    }
}

/// Invalid time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a time, got {written:?}; for example 14:10, \"2 hours ago\" or \"2026-11-24 14:10\"")]
pub struct BadTime {
    pub written: String,
}

/// Reads a time relative to `now` and its time zone. Words may be in any case, with any number of
/// blanks between them.
///
/// `14:10` without a day is the last 14:10: today's, or yesterday's if today's is in the future. A
/// time that the zone skips (clock put forward) is moved by the skipped interval; of a time that
/// occurs twice, the first is taken.
///
/// # Errors
/// [`BadTime`] for any other form, for a day or time that does not exist, and for times before 1970
/// or after the year 9999.
pub fn parse(text: &str, now: &ZonedDateTime) -> Result<Moment, BadTime> {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_ascii_whitespace().collect();
    by_form(&words, now).ok_or_else(|| BadTime { written: text.to_owned() })
}

fn by_form(words: &[&str], now: &ZonedDateTime) -> Option<Moment> {
    match words {
        ["now"] => before(now, "0s"),
        [one] if one.starts_with('@') => epoch(&one[1..]),
        [first, ..] if first.starts_with('-') => before(now, &words.join(" ")[1..]),
        [length @ .., "ago"] => before(now, &length.join(" ")),
        _ => parse::on_a_day(words, now),
    }
}

/// The second that was a duration before now.
fn before(now: &ZonedDateTime, length: &str) -> Option<Moment> {
    let length = t3_config::value::duration_or_zero(length).ok()?;
    let at = now.timestamp().checked_sub(length).ok()?;
    Some(Moment { micros: 0, ..Moment::of(at, 1)? })
}

/// `1700000000` or `1700000000.25`.
fn epoch(text: &str) -> Option<Moment> {
    let (secs, micros) = parse::with_fraction(text)?;
    let at = Timestamp::from_second(i64::try_from(parse::number(secs, 1..=12)?).ok()?).ok()?;
    Some(Moment { micros, ..Moment::of(at, 1)? })
}

/// Formats microseconds since the epoch as RFC 3339 in UTC; `None` after the year 9999.
#[must_use]
pub fn rfc3339(micros: u64) -> Option<String> {
    let at = Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok()?;
    Some(format!("{at:.6}"))
}

/// Formats milliseconds since the epoch as `2026-11-24 14:10:05 UTC`, which journalctl reads.
#[must_use]
pub fn utc(ms: i64) -> String {
    Timestamp::from_second(ms.div_euclid(1000))
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests;
