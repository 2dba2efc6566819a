//! How times are written as values of options. Pure; each function's error is a sentence that
//! stands behind the option's name.

use std::time::Duration;

/// A time above zero.
///
/// # Errors
/// A sentence that says what it should look like.
pub fn time(text: &str) -> Result<Duration, String> {
    let time = time_or_none(text)?;
    if time.is_zero() { Err("must be above zero".to_owned()) } else { Ok(time) }
}

/// Whole numbers with `ms`, `s`, `m` or `h`; zero as well.
///
/// # Errors
/// A sentence that says what it should look like.
pub fn time_or_none(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time like 500ms, 5s, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(time_or_none(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "5", "s", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(time_or_none(text).is_err(), "{text:?}");
        }
        assert!(time("0s").is_err());
    }
}
