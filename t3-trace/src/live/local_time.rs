//! The time of day where the operator sits.
#![expect(unsafe_code, reason = "localtime_r is a libc call; the standard library knows no time zones")]

/// `HH:MM:SS` of a moment in seconds since the epoch, in the local time zone.
#[must_use]
pub fn clock(epoch_secs: u64) -> String {
    let Ok(time) = libc::time_t::try_from(epoch_secs) else { return "--:--:--".to_owned() };
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r writes the second and keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const time, parts.as_mut_ptr()) };
    if filled.is_null() {
        return "--:--:--".to_owned();
    }
    // SAFETY: localtime_r has filled it in, and all zeros would be valid too.
    let parts = unsafe { parts.assume_init() };
    format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec)
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
