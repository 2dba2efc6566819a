//! A day, a time of the day, or both, as they are written. Pure.

use std::ops::RangeInclusive;

use super::{
    Moment, Now,
    calendar::{self, Civil, Date, Zone},
};

const DAY: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// A time of day: seconds, microseconds, and how long the words last.
struct Time {
    of_day: u32,
    micros: u32,
    span: u64,
}

const MIDNIGHT: Time = Time { of_day: 0, micros: 0, span: DAY };

/// A clock in some distance to Greenwich, in seconds.
struct Offset(i64);

impl Offset {
    fn when(&self, civil: Civil) -> Option<u64> {
        calendar::utc(civil)?.checked_add_signed(-self.0)
    }
}

/// Any form that names a day or a time of it.
pub(super) fn on_a_day<Z: Zone>(words: &[&str], now: &Now<Z>) -> Option<Moment> {
    let today = now.zone.shows(now.secs)?.date;
    match words {
        ["today"] => local(today, &MIDNIGHT, now),
        ["yesterday"] => local(today.before()?, &MIDNIGHT, now),
        ["today", clock] => local(today, &time(clock)?, now),
        ["yesterday", clock] => local(today.before()?, &time(clock)?, now),
        [month, day, clock] if MONTHS.contains(month) => in_the_year(month, day, &time(clock)?, now),
        [day, clock, "utc" | "z"] => at(date(day)?, &time(clock)?, |civil| Offset(0).when(civil)),
        [day, clock] => dated(day, clock, now),
        [one] => match one.split_once('t') {
            Some((day, clock)) => dated(day, clock, now),
            None => date(one).map_or_else(|| last(&time(one)?, now), |day| local(day, &MIDNIGHT, now)),
        },
        _ => None,
    }
}

/// The last time that clocks showed it.
fn last<Z: Zone>(time: &Time, now: &Now<Z>) -> Option<Moment> {
    let today = now.zone.shows(now.secs)?.date;
    let moment = local(today, time, now)?;
    let moment = if moment.secs > now.secs { local(today.before()?, time, now)? } else { moment };
    Some(Moment { daily: true, ..moment })
}

/// `Nov 24 14:10:05` names no year: the last such day.
fn in_the_year<Z: Zone>(month: &str, day: &str, time: &Time, now: &Now<Z>) -> Option<Moment> {
    let month = u32::try_from(MONTHS.iter().position(|name| *name == month)?).ok()? + 1;
    let day = small(day, 1..=2)?;
    let year = now.zone.shows(now.secs)?.date.year;
    // A leap day may lie further back than the last year.
    (0..8)
        .filter_map(|back| local(Date::new(year - back, month, day)?, time, now))
        .find(|m| m.secs <= now.secs)
}

/// A date and a clock, which may have its own zone.
fn dated<Z: Zone>(day: &str, clock: &str, now: &Now<Z>) -> Option<Moment> {
    let day = date(day)?;
    match zoned(clock) {
        Some((clock, offset)) => at(day, &time(clock)?, |civil| offset.when(civil)),
        None => local(day, &time(clock)?, now),
    }
}

fn local<Z: Zone>(day: Date, time: &Time, now: &Now<Z>) -> Option<Moment> {
    at(day, time, |civil| now.zone.when(civil))
}

fn at(date: Date, time: &Time, when: impl Fn(Civil) -> Option<u64>) -> Option<Moment> {
    let secs = when(Civil { date, of_day: time.of_day })?;
    Some(Moment { secs, micros: time.micros, span: time.span, daily: false })
}

/// `2026-11-24`.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let date = Date::new(
        i32::try_from(number(parts.next()?, 4..=4)?).ok()?,
        small(parts.next()?, 2..=2)?,
        small(parts.next()?, 2..=2)?,
    );
    if parts.next().is_some() { None } else { date }
}

/// `14:10`, `9:05`, `14:10:30`, `14:10:30.25`.
fn time(text: &str) -> Option<Time> {
    let (text, micros) = with_fraction(text)?;
    let mut parts = text.split(':');
    let (hour, minute) = (small(parts.next()?, 1..=2)?, small(parts.next()?, 2..=2)?);
    let second = parts.next();
    let seconds = second.map_or(Some(0), |text| small(text, 2..=2))?;
    let real = hour < 24 && minute < 60 && seconds < 60 && parts.next().is_none();
    let fraction = micros == 0 || second.is_some();
    let span = if second.is_some() { 1 } else { 60 };
    (real && fraction).then_some(Time { of_day: hour * 3600 + minute * 60 + seconds, micros, span })
}

/// Takes the zone off the end of a clock: `Z`, `+02:00`, `-0530`.
fn zoned(clock: &str) -> Option<(&str, Offset)> {
    if let Some(clock) = clock.strip_suffix('z') {
        return Some((clock, Offset(0)));
    }
    let (clock, sign, offset) = match (clock.split_once('+'), clock.split_once('-')) {
        (Some((clock, offset)), None) => (clock, 1, offset),
        (None, Some((clock, offset))) => (clock, -1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':').or_else(|| offset.split_at_checked(2))?;
    let (hours, minutes) = (small(hours, 2..=2)?, small(minutes, 2..=2)?);
    (hours < 24 && minutes < 60).then_some((clock, Offset(sign * i64::from(hours * 3600 + minutes * 60))))
}

/// Takes a fraction of a second off the end, in microseconds; what is finer is cut off.
pub(super) fn with_fraction(text: &str) -> Option<(&str, u32)> {
    let Some((whole, fraction)) = text.split_once('.') else { return Some((text, 0)) };
    number(fraction, 1..=18)?;
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    Some((whole, six.parse().ok()?))
}

/// A number of so many digits and nothing else.
pub(super) fn number(text: &str, digits: RangeInclusive<usize>) -> Option<u64> {
    let only = text.bytes().all(|byte| byte.is_ascii_digit());
    if only && digits.contains(&text.len()) { text.parse().ok() } else { None }
}

fn small(text: &str, digits: RangeInclusive<usize>) -> Option<u32> {
    u32::try_from(number(text, digits)?).ok()
}
