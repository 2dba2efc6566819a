//! Tests of the time formats.

use jiff::tz::{TimeZone, offset};
use proptest::prelude::*;

use super::*;

/// Two hours ahead of UTC, all year.
fn east(secs: u64) -> ZonedDateTime {
    let at = Timestamp::from_second(i64::try_from(secs).unwrap()).unwrap();
    at.to_zoned_datetime(TimeZone::fixed(offset(2)))
}

/// 2026-11-24 16:30:05 in that zone, 14:30:05 UTC.
const NOW: u64 = 1_795_530_605;

fn shown(secs: u64) -> String {
    east(secs).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[test]
fn every_format_is_parsed() {
    assert_eq!(shown(NOW), "2026-11-24 16:30:05");
    for (written, meant, span) in [
        ("now", "2026-11-24 16:30:05", 1),
        ("14:10", "2026-11-24 14:10:00", 60),
        ("9:05", "2026-11-24 09:05:00", 60),
        ("14:10:30", "2026-11-24 14:10:30", 1),
        ("16:30:05", "2026-11-24 16:30:05", 1),
        ("16:31", "2026-11-23 16:31:00", 60),
        ("23:59:59", "2026-11-23 23:59:59", 1),
        ("today", "2026-11-24 00:00:00", 86_400),
        ("today 18:00", "2026-11-24 18:00:00", 60),
        ("yesterday", "2026-11-23 00:00:00", 86_400),
        ("Yesterday  14:10", "2026-11-23 14:10:00", 60),
        ("2 hours ago", "2026-11-24 14:30:05", 1),
        ("-2h", "2026-11-24 14:30:05", 1),
        ("- 2 h", "2026-11-24 14:30:05", 1),
        ("10m ago", "2026-11-24 16:20:05", 1),
        ("1h 30m ago", "2026-11-24 15:00:05", 1),
        ("-1h30m", "2026-11-24 15:00:05", 1),
        ("90 seconds ago", "2026-11-24 16:28:35", 1),
        ("1 day ago", "2026-11-23 16:30:05", 1),
        ("2 weeks ago", "2026-11-10 16:30:05", 1),
        ("2026-11-24", "2026-11-24 00:00:00", 86_400),
        ("2026-11-24 14:10", "2026-11-24 14:10:00", 60),
        ("2026-11-24 14:10:30", "2026-11-24 14:10:30", 1),
        ("2026-11-24T14:10:30", "2026-11-24 14:10:30", 1),
        ("2026-11-24T14:10:30Z", "2026-11-24 16:10:30", 1),
        ("2026-11-24 14:10:30Z", "2026-11-24 16:10:30", 1),
        ("2026-11-24 14:10:30 UTC", "2026-11-24 16:10:30", 1),
        ("2026-11-24T14:10:30+02:00", "2026-11-24 14:10:30", 1),
        ("2026-11-24T14:10:30+0200", "2026-11-24 14:10:30", 1),
        ("2026-11-24T14:10:30-05:30", "2026-11-24 21:40:30", 1),
        ("2024-02-29 12:00", "2024-02-29 12:00:00", 60),
        ("Nov 24 14:10:05", "2026-11-24 14:10:05", 1),
        ("nov 25 14:10", "2025-11-25 14:10:00", 60),
        ("Feb 29 12:00", "2024-02-29 12:00:00", 60),
        ("@1795530605", "2026-11-24 16:30:05", 1),
    ] {
        let moment = parse(written, &east(NOW)).unwrap();
        assert_eq!((shown(moment.secs).as_str(), moment.span, moment.micros), (meant, span, 0), "{written}");
        // Times of day after 16:30:05.
        let upcoming = ["16:31", "23:59:59"].contains(&written).then_some(moment.secs + 86_400);
        assert_eq!(moment.upcoming, upcoming, "{written}");
    }
}

#[test]
fn an_end_that_is_still_to_come_is_after_its_start() {
    for (since, until, meant) in [
        ("16:00", "16:31", "2026-11-24 16:31:00"),
        ("16:00", "16:20", "2026-11-24 16:20:00"),
        ("17:00", "17:20", "2026-11-23 17:20:00"),
        ("yesterday", "17:20", "2026-11-23 17:20:00"),
        ("today", "17:20", "2026-11-24 17:20:00"),
        ("17:20", "17:20", "2026-11-23 17:20:00"),
        ("today 16:00", "yesterday 17:00", "2026-11-23 17:00:00"),
    ] {
        let [since, end] = [since, until].map(|text| parse(text, &east(NOW)).unwrap());
        assert_eq!(shown(end.at_or_after(since).secs), meant, "{until}");
    }
}

#[test]
fn fractions_of_a_second_are_kept_in_microseconds() {
    for written in ["@1795530605.25", "2026-11-24T14:30:05.250000999Z", "16:30:05.25"] {
        let moment = parse(written, &east(NOW)).unwrap();
        assert_eq!((moment.secs, moment.micros), (NOW, 250_000), "{written}");
        assert_eq!(moment.at_epoch(), "@1795530605.250000");
        assert_eq!(moment.epoch_micros(), 1_795_530_605_250_000);
    }
}

#[test]
fn invalid_text_is_an_error_with_examples() {
    for written in [
        "",
        " ",
        "-",
        "ago",
        "@",
        "@-1",
        "@1.2.3",
        "@1700000000000",
        "no such time",
        "24:00",
        "14:60",
        "14:10:60",
        "14",
        "1410",
        "1:5",
        "14:10:30:1",
        "14:10.5",
        "2 ago",
        "hours ago",
        "2 months ago",
        "2 lightyears ago",
        "99999999999 weeks ago",
        "999999999w ago",
        "tomorrow",
        "+2h",
        "in 2 hours",
        "2h",
        "2026-02-30",
        "2026-13-01",
        "1969-12-31",
        "2026-11-24 14:10 MEZ",
        "24.11.2026",
        "2026-11-24T",
        "2026-11-24T14:10:30+2",
        "2026-11-24T14:10:30+25:00",
        "Foo 24 14:10",
        "Nov 31 14:10",
        "yesterday yesterday",
        "yesterday 2 hours ago",
        "१४:१०",
        "--2h",
        "-2h ago x",
        "0x10m ago",
    ] {
        let error = parse(written, &east(NOW)).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("expected a time, got {written:?};")), "{said}");
        for example in ["14:10", "2 hours ago", "2026-11-24 14:10"] {
            assert!(said.contains(example), "{said}");
            assert!(parse(example, &east(NOW)).is_ok());
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", secs in 0..300_000_000_000_u64) {
        let _ = parse(&text, &east(secs.min(250_000_000_000)));
    }

    #[test]
    fn words_of_times_in_any_order_do_not_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "-", "@", "ago", "now", "today", "yesterday", "14:10", ":", "2", "h", "9999999999", "2026-11-24", "9999-12-31", "T", "t",
                "Z", "+", "+23:59", "Nov", "31", ".", ".5", "é", "weeks", "0000-00-00", "1970-01-01",
            ]), 0..6,
        ),
        joint in prop::sample::select(vec!["", " "]), secs in 0..3_000_000_u64,
    ) {
        let _ = parse(&words.join(joint), &east(secs));
    }

    #[test]
    fn a_printed_time_round_trips(secs in 0..250_000_000_000_u64, micros in 0..1_000_000_u32) {
        prop_assert_eq!(parse(&shown(secs), &east(NOW)).map(|m| m.secs), Ok(secs));
        let rfc = format!("{}.{micros:06}+02:00", shown(secs).replace(' ', "T"));
        prop_assert_eq!(parse(&rfc, &east(NOW)).map(|m| (m.secs, m.micros)), Ok((secs, micros)));
        let epoch = Moment { secs, micros, span: 1, upcoming: None };
        prop_assert_eq!(parse(&epoch.at_epoch(), &east(NOW)), Ok(epoch));
    }

    #[test]
    fn a_time_of_day_is_its_last_occurrence(of_day in 0..86_400_u32, secs in 86_400..4_000_000_000_u64) {
        let written = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
        let moment = parse(&written, &east(secs)).unwrap();
        prop_assert!(moment.secs <= secs && secs - moment.secs < 86_400);
        prop_assert!(shown(moment.secs).ends_with(&written));
    }

    #[test]
    fn rfc_3339_round_trips(micros in 0..253_402_207_200_000_000_u64) {
        let text = rfc3339(micros).unwrap();
        prop_assert_eq!(text.len(), 27);
        let moment = parse(&text, &east(NOW)).unwrap();
        prop_assert_eq!(moment.epoch_micros(), micros);
    }
}

#[test]
fn rfc_3339_of_known_times() {
    for (micros, text) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (1_700_000_042_123_456, "2023-11-14T22:14:02.123456Z"),
        (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
        (253_402_207_200_000_000, "9999-12-30T22:00:00.000000Z"),
    ] {
        assert_eq!(rfc3339(micros).as_deref(), Some(text));
    }
    // The last time that jiff can show in every zone.
    assert_eq!(rfc3339(253_402_207_201_000_000), None);
    assert_eq!(rfc3339(u64::MAX), None);
}
