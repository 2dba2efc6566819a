//! Dates as numbers, and what a time zone must know. Pure.

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// 1970 or later.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// A day and a time of it, as a clock on the wall shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    /// The day.
    pub date: Date,
    /// Seconds of the day that the clock shows, 0 to 86,399.
    pub of_day: u32,
}

impl Civil {
    /// The first second of a day.
    #[must_use]
    pub const fn midnight(date: Date) -> Self {
        Self { date, of_day: 0 }
    }
}

/// What the clocks of a place show.
pub trait Zone {
    /// What they show at a moment in seconds since the epoch; `None` when that is beyond what the
    /// zone knows.
    fn shows(&self, secs: u64) -> Option<Civil>;
    /// When they show it, in seconds since the epoch; one of the two moments when a clock is put
    /// back.
    fn when(&self, civil: Civil) -> Option<u64>;
}

impl Date {
    /// The day, if there is such a one since 1970.
    #[must_use]
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1970..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self { year, month, day })
    }

    /// Days since 1970-01-01 (as in Howard Hinnant's `days_from_civil`: years begin in March, so
    /// that the leap day is their last).
    #[must_use]
    pub fn days(self) -> i64 {
        let (year, month, day) = (i64::from(self.year), i64::from(self.month), i64::from(self.day));
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    /// The day that is so many days after 1970-01-01: the other way round.
    #[must_use]
    pub fn from_days(days: u64) -> Option<Self> {
        let days = i64::try_from(days).ok()?.checked_add(719_468)?;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = i32::try_from(era * 400 + year + next).ok()?;
        Self::new(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
    }

    /// The day before; `None` before 1970.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        if self.day > 1 {
            return Some(Self { day: self.day - 1, ..self });
        }
        let (year, month) = if self.month > 1 { (self.year, self.month - 1) } else { (self.year - 1, 12) };
        (28..=31).rev().find_map(|day| Self::new(year, month, day))
    }
}

/// When clocks in Greenwich show it, in seconds since the epoch.
#[must_use]
pub fn utc(civil: Civil) -> Option<u64> {
    u64::try_from(civil.date.days() * 86_400 + i64::from(civil.of_day)).ok()
}

/// A moment in microseconds since the epoch as RFC 3339 has it, in UTC; `None` after the year 9999.
#[must_use]
pub fn rfc3339(micros: u64) -> Option<String> {
    let secs = micros / 1_000_000;
    let date = Date::from_days(secs / 86_400)?;
    let (hour, minute, second) = (secs % 86_400 / 3600, secs % 3600 / 60, secs % 60);
    let Date { year, month, day } = date;
    let fraction = micros % 1_000_000;
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_3339_of_known_moments() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_700_000_042_123_456, "2023-11-14T22:14:02.123456Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (253_402_300_799_000_000, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(micros).as_deref(), Some(text));
        }
        assert_eq!(rfc3339(253_402_300_800_000_000), None);
        assert_eq!(rfc3339(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn days_and_dates_are_one_to_one(days in 0..2_932_896_u64) {
            let date = Date::from_days(days).unwrap();
            prop_assert_eq!(u64::try_from(date.days()), Ok(days));
            prop_assert_eq!(Date::from_days(days + 1).unwrap().before(), Some(date));
        }
    }
}
