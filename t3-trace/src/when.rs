//! A moment as people write it: `14:10`, `2 hours ago`, `-2h`, `yesterday 14:10`,
//! `2026-11-24 14:10`, RFC 3339, `@epoch`, and `Nov 24 14:10:05` as journalctl shows it. Pure: what
//! time it is and which zone holds are given. Never guesses: what it does not know it refuses.

mod ago;
pub mod calendar;
mod length;
mod words;

use calendar::Zone;
pub use length::length;

/// The first second of the year 10000, in seconds since the epoch: no moment any more.
const END: u64 = 253_402_300_800;

/// What the words are relative to.
#[derive(Debug, Clone, Copy)]
pub struct Now<Z> {
    /// Seconds since the epoch.
    pub secs: u64,
    /// The zone of times without one.
    pub zone: Z,
}

/// The beginning of what was meant, and how wide that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the epoch.
    pub secs: u64,
    /// Microseconds beyond the second, 0 to 999,999.
    pub micros: u32,
    /// How long the words last, in seconds: 60 for `14:10`, a day for `yesterday`, else 1.
    pub span: u64,
    /// A time of day without a day: the last such time was taken.
    pub daily: bool,
}

impl Moment {
    /// Microseconds since the epoch, as journald counts.
    #[must_use]
    pub const fn epoch_micros(self) -> u64 {
        self.secs * 1_000_000 + self.micros as u64
    }

    /// As journalctl and date take it: `@1700000000` or `@1700000000.250000`.
    #[must_use]
    pub fn at_epoch(self) -> String {
        if self.micros == 0 {
            format!("@{}", self.secs)
        } else {
            format!("@{}.{:06}", self.secs, self.micros)
        }
    }

    const fn whole(secs: u64, span: u64) -> Self {
        Self { secs, micros: 0, span, daily: false }
    }
}

/// What was written is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{written:?} is not a time; write for example 14:10, \"2 hours ago\" or \"2026-11-24 14:10\"")]
pub struct BadTime {
    /// What was written.
    pub written: String,
}

/// Reads a moment. Words may be in any case, with any number of blanks between them.
///
/// `14:10` without a day is the last time that it was 14:10: today's, or yesterday's while today's
/// lies ahead. A time that the zone leaves out (a clock put forward) is taken as the zone's rules
/// move it.
///
/// # Errors
/// [`BadTime`] when it is none of the known forms, names no real day or time, or lies before 1970
/// or after the year 9999.
pub fn parse<Z: Zone>(text: &str, now: &Now<Z>) -> Result<Moment, BadTime> {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_ascii_whitespace().collect();
    by_form(&words, now)
        .filter(|moment| moment.secs < END)
        .ok_or_else(|| BadTime { written: text.to_owned() })
}

fn by_form<Z: Zone>(words: &[&str], now: &Now<Z>) -> Option<Moment> {
    match words {
        ["now"] => Some(Moment::whole(now.secs, 1)),
        [one] if one.starts_with('@') => epoch(&one[1..]),
        [first, ..] if first.starts_with('-') => ago::before(now.secs, &words.concat()[1..]),
        [length @ .., "ago"] => ago::before(now.secs, &length.concat()),
        _ => words::on_a_day(words, now),
    }
}

/// `1700000000` or `1700000000.25`.
fn epoch(text: &str) -> Option<Moment> {
    let (secs, micros) = words::with_fraction(text)?;
    Some(Moment { micros, ..Moment::whole(words::number(secs, 1..=12)?, 1) })
}

#[cfg(test)]
mod tests;
