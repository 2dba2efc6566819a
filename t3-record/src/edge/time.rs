//! Timestamps of edge logs: RFC 3339 and the common log format, in milliseconds since the epoch.
//! Pure; any other text, or a date that does not exist, is `None`.

use jiff::Timestamp;

/// `2026-08-22T10:00:01.100200300Z`, with any offset and up to nine digits of a fraction.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// `22/Aug/2026:10:00:01 +0000`.
pub(super) fn common(text: &str) -> Option<i64> {
    Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", text).ok().map(Timestamp::as_millisecond)
}

/// `22/Aug/2026:10:00:01.100`, in UTC, or with whole seconds and an offset.
pub(super) fn common_local(text: &str) -> Option<i64> {
    let in_utc = || Timestamp::strptime("%d/%b/%Y:%H:%M:%S%.f %z", format!("{text} +0000")).ok();
    common(text).or_else(|| in_utc().map(Timestamp::as_millisecond))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_are_read_in_both_formats() {
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
    fn text_that_is_not_a_timestamp_is_refused() {
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
        fn any_text_is_a_timestamp_or_none(text in "\\PC{0,40}") {
            let _ = (rfc3339(&text), common(&text), common_local(&text));
        }

        #[test]
        fn any_text_like_a_timestamp_is_one_or_none(text in "[0-9T:./ Za-eA-F+-]{10,40}") {
            let _ = (rfc3339(&text), common(&text), common_local(&text));
        }
    }
}
