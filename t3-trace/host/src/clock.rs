//! `CLOCK_MONOTONIC`, the clock of kernel, relay and daemon, with the conversion from
//! `CLOCK_BOOTTIME`, the clock of process start times.

use rustix::time::{ClockId, clock_gettime};
use t3_record::evidence::Nanos;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic() -> Nanos {
    read(ClockId::Monotonic)
}

/// Now, in seconds since the epoch.
#[must_use]
pub fn realtime_secs() -> u64 {
    read(ClockId::Realtime) / SECOND
}

/// Now, in microseconds since the epoch.
#[must_use]
pub fn realtime_us() -> u64 {
    read(ClockId::Realtime) / 1_000
}

/// Difference of wall clock and `CLOCK_BOOTTIME` in nanoseconds; constant unless the wall clock is
/// set.
#[must_use]
pub fn wall_ahead() -> i128 {
    i128::from(read(ClockId::Realtime)) - i128::from(read(ClockId::Boottime))
}

/// Converts a `CLOCK_BOOTTIME` value. The clocks differ by the time in suspend; values before the
/// monotonic zero become zero.
#[must_use]
pub fn from_boottime(boot: Nanos) -> Nanos {
    let suspended = read(ClockId::Boottime).saturating_sub(monotonic());
    boot.saturating_sub(suspended)
}

/// Whether the clocks of this process are those of the host, as in kernel events: it is in no time
/// namespace with an offset (time_namespaces(7)).
#[must_use]
pub fn is_of_host() -> bool {
    has_no_offset(&std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default())
}

/// Lines of `CLOCK SECONDS NANOSECONDS`.
fn has_no_offset(text: &str) -> bool {
    text.lines().all(|line| line.split_whitespace().skip(1).all(|number| number == "0"))
}

fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * SECOND + nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_of_any_clock_is_found() {
        assert!(has_no_offset("") && has_no_offset("monotonic  0  0\nboottime  0  0\n"));
        assert!(!has_no_offset("monotonic  0  0\nboottime  -3  0\n"));
        assert!(!has_no_offset("monotonic  86400  0\nboottime  0  0\n"));
    }
}
