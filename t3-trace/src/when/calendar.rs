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
    /// What they show at a moment in seconds since the epoch; `None` when that is beyond what the zone knows.
    fn shows(&self, secs: u64) -> Option<Civil>;
    /// When they show it, in seconds since the epoch; one of the two moments when a clock is put back.
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

    /// Days since 1970-01-01 (as in Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is their last).
    #[must_use]
    pub fn days(self) -> i64 {
        let (year, month, day) = (i64::from(self.year), i64::from(self.month), i64::from(self.day));
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
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
