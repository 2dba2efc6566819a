//! Durations of the command line and of the screen's filter.

use std::time::Duration;

use super::parse::number;

/// A duration as in [`t3_config::value`]; a number without a unit is in seconds.
///
/// # Errors
/// A clause that describes the expected value.
pub fn duration(text: &str) -> Result<Duration, String> {
    match number(text.trim(), 1..=12) {
        Some(secs) => Ok(Duration::from_secs(secs)),
        None => t3_config::value::duration_or_zero(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_or_is_in_seconds() {
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
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", " ", "s", "-1s", "ms", "2 fortnights", "m2", "2m3", "9999999999999", "999999999999w9"]
        {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}
