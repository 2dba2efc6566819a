//! Clock of all facts: `CLOCK_MONOTONIC` in nanoseconds. `bpf_ktime_get_ns` uses the same clock, so
//! facts of the relay and of the kernel can be ordered.

use rustix::time::{ClockId, clock_gettime};
use t3_record::evidence::Nanos;

/// Returns the current time.
#[must_use]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
