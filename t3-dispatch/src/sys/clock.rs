//! The one clock of all facts: `CLOCK_MONOTONIC` in nanoseconds, which is also the clock of
//! `bpf_ktime_get_ns`, so that what the relay saw and what the kernel saw can be put in order.

use rustix::time::{ClockId, clock_gettime};
use t3_record::evidence::Nanos;

/// Now.
#[must_use]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
