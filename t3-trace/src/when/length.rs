//! How long, as people write it: `120s`, `2m`, `500ms`, `2 minutes`, `1h 30m`, `1h30min`; a number
//! alone is seconds. Pure.

use std::time::Duration;

use super::{ago::unit, words::number};

/// Reads it; `None` for what is no length.
#[must_use]
pub fn length(text: &str) -> Option<Duration> {
    let words = text.to_ascii_lowercase().split_ascii_whitespace().collect::<String>();
    if let Some(secs) = number(&words, 1..=12) {
        return Some(Duration::from_secs(secs));
    }
    let mut rest = words.as_str();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count = number(&rest[..digits], 1..=12)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let part = match &rest[..letters] {
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Duration::from_millis(count),
            name => Duration::from_secs(count.checked_mul(unit(name)?)?),
        };
        sum = sum.checked_add(part)?;
        rest = &rest[letters..];
    }
    if words.is_empty() { None } else { Some(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_as_people_write_them() {
        for (text, ms) in [
            ("120s", 120_000),
            ("2m", 120_000),
            ("500ms", 500),
            ("7", 7000),
            ("0", 0),
            ("1h", 3_600_000),
            ("2 m", 120_000),
            ("2 Minutes", 120_000),
            ("1h30m", 5_400_000),
            ("1 hour 30 min", 5_400_000),
            ("1s 500ms", 1500),
            ("2d", 172_800_000),
        ] {
            assert_eq!(length(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            " ",
            "s",
            "-1s",
            "1.5s",
            "ms",
            "2 fortnights",
            "m2",
            "2m3",
            "9999999999999",
            "999999999999w9",
        ] {
            assert_eq!(length(text), None, "{text:?}");
        }
    }
}
