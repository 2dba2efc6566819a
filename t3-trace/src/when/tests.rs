//! Which words are which moment.

use proptest::prelude::*;

use super::{
    calendar::{Civil, Date, Zone, utc},
    *,
};

/// Clocks two hours before Greenwich, all the year.
#[derive(Debug, Clone, Copy)]
struct East;

const AHEAD: u64 = 7200;

impl Zone for East {
    fn shows(&self, secs: u64) -> Option<Civil> {
        let shown = secs + AHEAD;
        let mut days = i64::try_from(shown / 86_400).unwrap();
        // Year by year is slow and surely right.
        let mut year = 1970;
        while Date::new(year + 1, 1, 1)
            .is_some_and(|next| next.days() * 86_400 <= i64::try_from(shown).unwrap())
        {
            year += 1;
        }
        days -= Date::new(year, 1, 1).unwrap().days();
        let month = (1..=12).rev().find(|month| {
            Date::new(year, *month, 1).unwrap().days() - Date::new(year, 1, 1).unwrap().days() <= days
        })?;
        let first = Date::new(year, month, 1)?;
        let day = u32::try_from(days - (first.days() - Date::new(year, 1, 1)?.days())).ok()? + 1;
        Some(Civil { date: Date::new(year, month, day)?, of_day: u32::try_from(shown % 86_400).ok()? })
    }

    fn when(&self, civil: Civil) -> Option<u64> {
        utc(civil)?.checked_sub(AHEAD)
    }
}

/// 2026-11-24 16:30:05 there, 14:30:05 in Greenwich.
const NOW: Now<East> = Now { secs: 1_795_530_605, zone: East };

fn shown(secs: u64) -> String {
    let Civil { date, of_day } = East.shows(secs).unwrap();
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", date.year, date.month, date.day)
}

#[test]
fn what_people_write_is_the_moment_they_mean() {
    assert_eq!(shown(NOW.secs), "2026-11-24 16:30:05");
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
        let moment = parse(written, &NOW).unwrap();
        assert_eq!((shown(moment.secs).as_str(), moment.span, moment.micros), (meant, span, 0), "{written}");
        assert_eq!(
            moment.daily,
            written.len() < 9 && written.starts_with(char::is_numeric) && written.contains(':')
        );
    }
}

#[test]
fn fractions_of_a_second_are_kept_to_the_microsecond() {
    for written in ["@1795530605.25", "2026-11-24T14:30:05.250000999Z", "16:30:05.25"] {
        let moment = parse(written, &NOW).unwrap();
        assert_eq!((moment.secs, moment.micros), (NOW.secs, 250_000), "{written}");
        assert_eq!(moment.at_epoch(), "@1795530605.250000");
        assert_eq!(moment.epoch_micros(), 1_795_530_605_250_000);
    }
}

#[test]
fn what_is_no_time_is_refused_with_what_was_written_and_three_examples() {
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
        let error = parse(written, &NOW).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(&format!("{written:?} is not a time")), "{said}");
        for example in ["14:10", "2 hours ago", "2026-11-24 14:10"] {
            assert!(said.contains(example), "{said}");
            assert!(parse(example, &NOW).is_ok());
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", secs in 0..300_000_000_000_u64) {
        let _ = parse(&text, &Now { secs: secs.min(250_000_000_000), zone: East });
    }

    #[test]
    fn words_of_times_in_any_order_do_not_make_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "-", "@", "ago", "now", "today", "yesterday", "14:10", ":", "2", "h", "9999999999", "2026-11-24", "9999-12-31", "T", "t",
                "Z", "+", "+23:59", "Nov", "31", ".", ".5", "é", "weeks", "0000-00-00", "1970-01-01",
            ]), 0..6,
        ),
        joint in prop::sample::select(vec!["", " "]), secs in 0..3_000_000_u64,
    ) {
        let _ = parse(&words.join(joint), &Now { secs, zone: East });
    }

    #[test]
    fn a_moment_that_is_shown_is_read_as_itself(secs in 0..250_000_000_000_u64, micros in 0..1_000_000_u32) {
        prop_assert_eq!(parse(&shown(secs), &NOW).map(|m| m.secs), Ok(secs));
        let rfc = format!("{}.{micros:06}+02:00", shown(secs).replace(' ', "T"));
        prop_assert_eq!(parse(&rfc, &NOW).map(|m| (m.secs, m.micros)), Ok((secs, micros)));
        let epoch = Moment { micros, ..Moment::whole(secs, 1) };
        prop_assert_eq!(parse(&epoch.at_epoch(), &NOW), Ok(epoch));
    }

    #[test]
    fn a_time_of_day_is_the_last_such_one(of_day in 0..86_400_u32, secs in 86_400..4_000_000_000_u64) {
        let written = format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
        let moment = parse(&written, &Now { secs, zone: East }).unwrap();
        prop_assert!(moment.secs <= secs && secs - moment.secs < 86_400);
        prop_assert!(shown(moment.secs).ends_with(&written));
    }
}
