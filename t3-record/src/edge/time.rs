//! The two ways in which the layers write a moment: RFC 3339, and the common log format's.
//! Milliseconds since the epoch come out. Takes any text, and refuses what names no real moment.

/// `2026-08-22T10:00:01.100200300Z`, with any offset and any fraction.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let mut fields = date.split('-');
    let (year, month, day) =
        (digits(fields.next()?, 4)?, digits(fields.next()?, 2)?, digits(fields.next()?, 2)?);
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let (of_day, rest) = (clock(time.get(..8)?)?, time.get(8..)?);
    let (ms, offset) = match rest.strip_prefix('.') {
        Some(fraction) => {
            let end = fraction.find(|c: char| !c.is_ascii_digit())?;
            (thousandths(fraction.get(..end)?)?, fraction.get(end..)?)
        }
        None => (0, rest),
    };
    let offset = match offset {
        "Z" | "z" => 0,
        offset => minutes(offset.get(..3)?, offset.get(3..)?.strip_prefix(':')?)?,
    };
    Some((days(year, month, day)? * 86_400 + of_day - offset * 60) * 1000 + ms)
}

/// `22/Aug/2026:10:00:01 +0000`.
pub(super) fn common(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut fields = text.splitn(3, '/');
    let (day, name) = (digits(fields.next()?, 2)?, fields.next()?);
    let rest = fields.next()?;
    let month = MONTHS.iter().zip(1..).find(|(known, _)| **known == name)?.1;
    let year = digits(rest.get(..4)?, 4)?;
    let of_day = clock(rest.get(4..)?.strip_prefix(':')?.get(..8)?)?;
    let offset = rest.get(13..)?.strip_prefix(' ')?;
    let offset = minutes(offset.get(..3)?, offset.get(3..)?)?;
    Some((days(year, month, day)? * 86_400 + of_day - offset * 60) * 1000)
}

/// `10:00:01`, in seconds of the day; a leap second is the one before it.
fn clock(text: &str) -> Option<i64> {
    let mut fields = text.split(':');
    let (hour, minute, second) =
        (digits(fields.next()?, 2)?, digits(fields.next()?, 2)?, digits(fields.next()?, 2)?);
    let real = fields.next().is_none() && hour < 24 && minute < 60 && second <= 60;
    real.then(|| hour * 3600 + minute * 60 + second.min(59))
}

/// `+02` and `00`, in minutes east of Greenwich.
fn minutes(hours: &str, minutes: &str) -> Option<i64> {
    let (sign, hours) = match hours.strip_prefix('-') {
        Some(hours) => (-1, hours),
        None => (1, hours.strip_prefix('+')?),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn thousandths(fraction: &str) -> Option<i64> {
    let written = fraction.get(..fraction.len().min(3))?;
    let number: i64 = written.parse().ok()?;
    Some(match written.len() {
        1 => number * 100,
        2 => number * 10,
        _ => number,
    })
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days since 1970-01-01 (as in Howard Hinnant's `days_from_civil`: years begin in March, so that
/// the leap day is their last).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let most = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=most).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_in_both_ways() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-08-22T10:00:01Z", 1_787_392_801_000),
            ("2026-08-22T10:00:01.100200300Z", 1_787_392_801_100),
            ("2026-08-22T12:00:01.1+02:00", 1_787_392_801_100),
            ("2026-08-22T10:00:01.12Z", 1_787_392_801_120),
            ("2026-08-22T04:30:01-05:30", 1_787_392_801_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ] {
            assert_eq!(rfc3339(text), Some(ms), "{text}");
        }
        for (text, ms) in [
            ("22/Aug/2026:10:00:01 +0000", 1_787_392_801_000),
            ("22/Aug/2026:12:00:01 +0200", 1_787_392_801_000),
            ("29/Feb/2024:00:00:00 +0000", 1_709_164_800_000),
        ] {
            assert_eq!(common(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2026-08-22",
            "2026-08-22T10:00:01",
            "2026-08-22T10:00:01.Z",
            "2026-08-22T10:00:01.5",
            "2026-02-30T10:00:01Z",
            "2026-13-01T10:00:01Z",
            "2026-08-22T24:00:00Z",
            "2026-08-22T10:00:01+2:00",
            "２026-08-22T10:00:01Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
        for text in ["", "22/Aug/2026", "22/Aug/2026:10:00:01", "31/Jun/2026:10:00:01 +0000", "a/b/c:d e"] {
            assert_eq!(common(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_moment_or_none(text in "\\PC{0,40}") {
            let _ = (rfc3339(&text), common(&text));
        }

        #[test]
        fn any_text_like_a_moment_is_one_or_none(text in "[0-9T:./ Za-eA-F+-]{10,40}") {
            let _ = (rfc3339(&text), common(&text));
        }
    }
}
