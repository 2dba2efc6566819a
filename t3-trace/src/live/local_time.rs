//! The time of day where the operator sits.
#![expect(unsafe_code, reason = "localtime_r is a libc call; the standard library knows no time zones")]

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
    // SAFETY: both pointers are valid for the call; localtime_r writes the second and keeps neither.
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
}
