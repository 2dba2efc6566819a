//! Pauses of the host, found by comparing its clocks.
//!
//! `CLOCK_MONOTONIC` does not count the time of a suspended host, `CLOCK_BOOTTIME` does
//! (clock_gettime(2)). A virtual machine that was paused or migrated has both stopped; its
//! `CLOCK_REALTIME` is set forward afterwards, by the hypervisor or by NTP.

use t3_record::evidence::Nanos;

/// A smaller difference is that of reading the clocks one after another on a busy host.
const SUSPENDED: i64 = 250_000_000;
/// A smaller step of the wall clock is an ordinary correction.
const STEPPED: i64 = 1_000_000_000;

/// The clocks of the host, read together, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    monotonic: i64,
    boottime: i64,
    realtime: i64,
}

impl Clocks {
    /// Reads the clocks.
    #[must_use]
    pub fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let nanos = |id| {
            let time = clock_gettime(id);
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
        };
        Self {
            monotonic: nanos(ClockId::Monotonic),
            boottime: nanos(ClockId::Boottime),
            realtime: nanos(ClockId::Realtime),
        }
    }

    /// Time that the host did not run since `before`, if that is noticeable.
    #[must_use]
    pub fn pause_since(&self, before: &Self) -> Option<Nanos> {
        let monotonic = self.monotonic.saturating_sub(before.monotonic);
        let suspended = self.boottime.saturating_sub(before.boottime).saturating_sub(monotonic);
        let stepped = self.realtime.saturating_sub(before.realtime).saturating_sub(monotonic);
        let length = match (suspended, stepped) {
            (suspended, _) if suspended >= SUSPENDED => suspended,
            (_, stepped) if stepped >= STEPPED => stepped,
            _ => return None,
        };
        u64::try_from(length).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_difference_of_the_clocks() {
        const SECOND: i64 = 1_000_000_000;
        let before = Clocks { monotonic: 7 * SECOND, boottime: 9 * SECOND, realtime: 1_000 * SECOND };
        let after = |monotonic: i64, boottime: i64, realtime: i64| Clocks {
            monotonic: before.monotonic + monotonic,
            boottime: before.boottime + boottime,
            realtime: before.realtime + realtime,
        };
        let tenth = SECOND / 10;
        for (now, pause) in [
            (after(tenth, tenth, tenth), None),
            // The process was late, the host was not.
            (after(30 * SECOND, 30 * SECOND, 30 * SECOND), None),
            // Suspended.
            (after(tenth, 20 * SECOND, 20 * SECOND), Some(20 * SECOND - tenth)),
            // A virtual machine continued, and its wall clock was set.
            (after(tenth, tenth, 12 * SECOND), Some(12 * SECOND - tenth)),
            // Corrections by NTP, and a wall clock that is set back.
            (after(tenth, tenth, tenth + 900_000_000), None),
            (after(tenth, tenth, -3_600 * SECOND), None),
            (after(tenth, tenth + 200_000_000, tenth), None),
        ] {
            assert_eq!(now.pause_since(&before), pause.map(|pause| pause.unsigned_abs()), "{now:?}");
        }
    }
}
