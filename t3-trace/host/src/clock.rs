//! The one clock that kernel, relay and daemon share: `CLOCK_MONOTONIC`, and the way to it from
//! `CLOCK_BOOTTIME`, in which the kernel tells when a process was started.

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

/// How far the wall clock is ahead of `CLOCK_BOOTTIME`, in nanoseconds: constant, unless somebody
/// sets the wall clock.
#[must_use]
pub fn wall_ahead() -> i128 {
    i128::from(read(ClockId::Realtime)) - i128::from(read(ClockId::Boottime))
}

/// The monotonic time of a boot-time stamp. The two differ by the time the machine was suspended; a
/// time before the monotonic zero counts as zero.
#[must_use]
pub fn from_boottime(boot: Nanos) -> Nanos {
    let suspended = read(ClockId::Boottime).saturating_sub(monotonic());
    boot.saturating_sub(suspended)
}

fn read(clock: ClockId) -> Nanos {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * SECOND + nanos
}
