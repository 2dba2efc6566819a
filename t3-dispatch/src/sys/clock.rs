//! Clock of all facts: `CLOCK_MONOTONIC` of the host in nanoseconds. `bpf_ktime_get_ns` uses the
//! same clock, so facts of the relay and of the kernel can be ordered. In a time namespace the
//! process has an offset to it (time_namespaces(7)), which is subtracted.

use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};
use t3_record::evidence::Nanos;

/// Returns the current time.
#[must_use]
pub fn now() -> Nanos {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let own = seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0);
    own.saturating_add_signed(-*OFFSET.get_or_init(namespace_offset))
}

/// Offset of the own `CLOCK_MONOTONIC` to that of the host in nanoseconds; 0 without a time
/// namespace.
#[must_use]
pub fn namespace_offset() -> i64 {
    // The offsets are those of the namespace of children, which the process joined when it was
    // started, or by exec (Linux 6.1).
    let namespace = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if namespace("time") != namespace("time_for_children") {
        return 0;
    }
    let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    monotonic_offset(&text).unwrap_or(0)
}

/// The line `monotonic SECONDS NANOSECONDS`.
fn monotonic_offset(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut words = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanos) = (words.next()?.ok()?, words.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let offsets = |seconds: &str| format!("monotonic  {seconds:>10}  500000000\nboottime  7  0\n");
        assert_eq!(monotonic_offset(&offsets("86400")), Some(86_400_500_000_000));
        assert_eq!(monotonic_offset(&offsets("-3")), Some(-2_500_000_000));
        for text in ["", "boottime 7 0", "monotonic x 0", "monotonic 1", &offsets("9223372036854775807")] {
            assert_eq!(monotonic_offset(text), None, "{text:?}");
        }
    }
}
