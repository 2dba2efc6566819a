//! The time of day where the operator sits.
#![expect(
    unsafe_code,
    reason = "localtime_r and mktime are libc calls; the standard library knows no time zones"
)]

use crate::{
    clock::realtime_secs,
    when::{
        self, BadTime, Moment, Now,
        calendar::{Civil, Date, Zone},
    },
};

/// The time zone of this process (`TZ`, else `/etc/localtime`).
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl Zone for Local {
    fn shows(&self, secs: u64) -> Option<Civil> {
        let parts = local(secs)?;
        let small = |part: i32| u32::try_from(part).ok();
        let date =
            Date::new(parts.tm_year.checked_add(1900)?, small(parts.tm_mon + 1)?, small(parts.tm_mday)?)?;
        // A leap second is shown by few zones; the moment after it is as good.
        Some(Civil { date, of_day: small(parts.tm_hour * 3600 + parts.tm_min * 60 + parts.tm_sec.min(59))? })
    }

    fn when(&self, civil: Civil) -> Option<u64> {
        let part = |part: u32| i32::try_from(part).ok();
        // SAFETY: all zeros are valid for this struct of integers and a pointer that may be null.
        let mut parts = unsafe { std::mem::zeroed::<libc::tm>() };
        parts.tm_year = civil.date.year - 1900;
        parts.tm_mon = part(civil.date.month)? - 1;
        parts.tm_mday = part(civil.date.day)?;
        parts.tm_hour = part(civil.of_day / 3600)?;
        parts.tm_min = part(civil.of_day / 60 % 60)?;
        parts.tm_sec = part(civil.of_day % 60)?;
        parts.tm_isdst = -1;
        // SAFETY: the pointer is valid for the call, and mktime keeps none.
        let secs = unsafe { libc::mktime(&raw mut parts) };
        u64::try_from(secs).ok()
    }
}

/// A moment as the operator writes it, against the clock and zone of this machine.
///
/// # Errors
/// As [`parse`](when::parse).
pub fn moment(text: &str) -> Result<Moment, BadTime> {
    when::parse(text, &Now { secs: realtime_secs(), zone: Local })
}

/// `HH:MM:SS` of a moment in seconds since the epoch, in the local time zone.
#[must_use]
pub fn clock(epoch_secs: u64) -> String {
    local(epoch_secs).map_or_else(
        || "--:--:--".to_owned(),
        |parts| format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec),
    )
}

/// `YYYY-MM-DD` of the same.
#[must_use]
pub fn day(epoch_secs: u64) -> String {
    local(epoch_secs).map_or_else(
        || "----------".to_owned(),
        |parts| {
            format!("{:04}-{:02}-{:02}", i64::from(parts.tm_year) + 1900, parts.tm_mon + 1, parts.tm_mday)
        },
    )
}

fn local(epoch_secs: u64) -> Option<libc::tm> {
    let time = libc::time_t::try_from(epoch_secs).ok()?;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r writes the second and keeps
    // neither.
    let filled = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: localtime_r has filled it in, and all zeros would be valid too.
    Some(unsafe { parts.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_like_a_clock_and_seconds_do_not_depend_on_the_zone() {
        let text = clock(1_700_000_042);
        assert_eq!((text.len(), text.matches(':').count()), (8, 2));
        assert!(text.ends_with(":02"), "{text}");
    }

    #[test]
    fn what_the_local_clock_shows_is_read_as_a_moment_that_it_shows_the_same() {
        for secs in (0..4_000_000_000).step_by(7_777_777) {
            let shown = format!("{} {}", day(secs), clock(secs));
            let read = moment(&shown).unwrap().secs;
            // Where a clock is put back, two moments look the same.
            assert_eq!(format!("{} {}", day(read), clock(read)), shown);
        }
        let now = moment("now").unwrap().secs;
        assert!(moment("2 hours ago").unwrap().secs.abs_diff(now - 7200) <= 1);
    }
}
