//! A day, a time of day, or both. Pure.

use std::ops::RangeInclusive;

use jiff::{
    ZonedDateTime,
    civil::{Date, Time},
    fmt::temporal::DateTimeParser,
    tz::TimeZone,
};

use super::Moment;

static ZONES: DateTimeParser = DateTimeParser::new();

/// A time of day and its width in seconds.
#[derive(Clone, Copy)]
struct Clock {
    time: Time,
    span: u64,
}

const WHOLE_DAY: Clock = Clock { time: Time::midnight(), span: 86_400 };

/// Any form that names a day or a time of day.
pub(super) fn on_a_day(words: &[&str], now: &ZonedDateTime) -> Option<Moment> {
    let (today, zone) = (now.date(), now.time_zone());
    match words {
        ["today"] => at(today, WHOLE_DAY, zone),
        ["yesterday"] => at(today.yesterday().ok()?, WHOLE_DAY, zone),
        ["today", time] => at(today, clock(time)?, zone),
        ["yesterday", time] => at(today.yesterday().ok()?, clock(time)?, zone),
        [day, time, "utc" | "z"] => at(date(day)?, clock(time)?, &TimeZone::UTC),
        [month, day, time] => in_the_year(month, day, clock(time)?, now),
        [day, time] => dated(day, time, zone),
        [one] => match one.split_once('t') {
            Some((day, time)) => dated(day, time, zone),
            None => date(one).map_or_else(|| last(clock(one)?, now), |day| at(day, WHOLE_DAY, zone)),
        },
        _ => None,
    }
}

/// The last occurrence of a time of day.
fn last(clock: Clock, now: &ZonedDateTime) -> Option<Moment> {
    let on = |day: Date| at(day, clock, now.time_zone());
    let today = on(now.date())?;
    if i64::try_from(today.secs).is_ok_and(|secs| secs <= now.timestamp().as_second()) {
        return Some(today);
    }
    Some(Moment { upcoming: Some(today.secs), ..on(now.date().yesterday().ok()?)? })
}

/// `Nov 24 14:10:05` has no year: the last such day is meant.
fn in_the_year(month: &str, day: &str, clock: Clock, now: &ZonedDateTime) -> Option<Moment> {
    // A leap day can be further back than a year.
    (0..8)
        .filter_map(|back| Date::strptime("%b %d %Y", format!("{month} {day} {}", now.year() - back)).ok())
        .filter_map(|date| at(date, clock, now.time_zone()))
        .find(|moment| i64::try_from(moment.secs).is_ok_and(|secs| secs <= now.timestamp().as_second()))
}

/// A date and a time, which may have a zone of its own: `Z`, `+02:00`, `-0530`.
fn dated(day: &str, time: &str, zone: &TimeZone) -> Option<Moment> {
    match time.find(['z', '+', '-']) {
        Some(end) => {
            let (time, zone) = time.split_at(end);
            at(date(day)?, clock(time)?, &offset(zone)?)
        }
        None => at(date(day)?, clock(time)?, zone),
    }
}

/// `z`, `+02:00` or `-0530`.
fn offset(text: &str) -> Option<TimeZone> {
    if text == "z" {
        return Some(TimeZone::UTC);
    }
    let zone = ZONES.parse_time_zone(text).ok()?;
    // jiff allows offsets of more than a day.
    zone.to_fixed_offset().is_ok_and(|offset| offset.seconds().abs() < 86_400).then_some(zone)
}

fn at(date: Date, clock: Clock, zone: &TimeZone) -> Option<Moment> {
    let zoned = date.to_datetime(clock.time).to_zoned_datetime(zone.clone()).ok()?;
    Moment::of(zoned.timestamp(), clock.span)
}

/// `2026-11-24`.
fn date(text: &str) -> Option<Date> {
    Date::strptime("%Y-%m-%d", text).ok()
}

/// `14:10`, `9:05`, `14:10:30`, `14:10:30.25`.
fn clock(text: &str) -> Option<Clock> {
    let (text, micros) = with_fraction(text)?;
    let mut parts = text.split(':');
    let (hour, minute) = (small(parts.next()?, 1..=2)?, small(parts.next()?, 2..=2)?);
    let second = parts.next();
    let seconds = second.map_or(Some(0), |text| small(text, 2..=2))?;
    let time = Time::new(hour, minute, seconds, i32::try_from(micros).ok()? * 1000).ok()?;
    let complete = parts.next().is_none() && (micros == 0 || second.is_some());
    complete.then_some(Clock { time, span: if second.is_some() { 1 } else { 60 } })
}

/// Takes a fraction of a second off the end, in microseconds, truncated.
pub(super) fn with_fraction(text: &str) -> Option<(&str, u32)> {
    let Some((whole, fraction)) = text.split_once('.') else { return Some((text, 0)) };
    number(fraction, 1..=18)?;
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    Some((whole, six.parse().ok()?))
}

/// A number with this count of digits and nothing else.
pub(super) fn number(text: &str, digits: RangeInclusive<usize>) -> Option<u64> {
    let only = text.bytes().all(|byte| byte.is_ascii_digit());
    if only && digits.contains(&text.len()) { text.parse().ok() } else { None }
}

fn small(text: &str, digits: RangeInclusive<usize>) -> Option<i8> {
    i8::try_from(number(text, digits)?).ok()
}
