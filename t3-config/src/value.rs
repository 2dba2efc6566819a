//! Durations as values of options: one grammar for all programs.
//!
//! The grammar is jiff's "friendly" format: `500ms`, `5s`, `1m30s`, `2 hours`, `1 hour 30 min`,
//! `1.5s`, in any case, the largest unit first. A day has 24 hours, a week seven days; months and
//! years have no fixed length and are rejected. Errors are clauses that follow the option's name.

use std::time::Duration;

use jiff::{SpanRelativeTo, fmt::friendly::SpanParser};

static PARSER: SpanParser = SpanParser::new();

/// A duration above zero.
///
/// # Errors
/// A clause that describes the expected value.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() { Err("expected a duration above zero".to_owned()) } else { Ok(duration) }
}

/// A duration; zero is allowed.
///
/// # Errors
/// A clause that describes the expected value.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| {
        "expected a duration such as 500ms, 5s, 2m or 1h30m, the largest unit first".to_owned()
    })
}

fn parse(text: &str) -> Option<Duration> {
    let span = PARSER.parse_span(text.trim().to_ascii_lowercase()).ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    // A negative span ("2 hours ago") does not convert.
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_has_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("5 s", 5_000),
            ("120s", 120_000),
            ("1m30s", 90_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1h30min", 5_400_000),
            ("2 Minutes", 120_000),
            ("1 hour 30 min", 5_400_000),
            ("1s 500ms", 1_500),
            ("1.5s", 1_500),
            ("3 secs", 3_000),
            ("2hrs", 7_200_000),
            ("40 milliseconds", 40),
            ("2d", 172_800_000),
            ("1 week", 604_800_000),
        ] {
            assert_eq!(duration_or_zero(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for text in [
            "",
            " ",
            "5",
            "s",
            "-1s",
            "m2",
            "2m3",
            "30m 1h",
            "1 month",
            "1y",
            "2 fortnights",
            "2 hours ago",
            "99999999999999999999s",
            "18446744073709551615h",
            "999999999999w",
        ] {
            let error = duration_or_zero(text).unwrap_err();
            assert!(error.starts_with("expected a duration such as 500ms"), "{text:?}: {error}");
        }
        assert_eq!(duration("0s"), Err("expected a duration above zero".to_owned()));
    }

    proptest! {
        #[test]
        fn a_duration_keeps_its_milliseconds(hours in 0_u64..10_000, minutes in 0_u64..60, millis in 0_u64..60_000) {
            let text = format!("{hours}h{minutes}m {}s {}ms", millis / 1000, millis % 1000);
            let expected = Duration::from_millis((hours * 60 + minutes) * 60_000 + millis);
            prop_assert_eq!(duration_or_zero(&text), Ok(expected));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error(text in any::<String>()) {
            let _ = duration_or_zero(&text);
        }
    }
}
