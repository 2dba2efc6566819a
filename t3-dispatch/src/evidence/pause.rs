//! Pauses of the host, found by comparing its clocks.
//!
//! `CLOCK_MONOTONIC` does not count the time of a suspended host, `CLOCK_BOOTTIME` does
//! (clock_gettime(2)). In a virtual machine that was stopped both stand still, and so does
//! `CLOCK_REALTIME` until the hypervisor or NTP sets it; only the hardware clock goes on. That can
//! be set, too, so what it shows is not certain.

use t3_record::evidence::{Nanos, Pause};

use crate::relay::heartbeat::{EarlyPing, SessionTiming};

const SECOND: i64 = 1_000_000_000;
/// A smaller difference is that of reading the clocks one after another on a busy host.
const SUSPENDED: i64 = 250_000_000;
/// A smaller step of the wall clock is an ordinary correction.
const STEPPED: i64 = SECOND;
/// The hardware clock counts whole seconds: two readings can differ by almost one more or less.
const HARDWARE: i64 = 2 * SECOND;
/// One in so many seconds: more than a hardware clock drifts, and NTP slews at most half of it
/// (adjtimex(2)).
const DRIFT: i64 = 1_000;
/// Offsets of time zones are multiples of this: the hardware clock may have local time.
const ZONE: i64 = 900 * SECOND;

/// The clocks of the host, read together, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    monotonic: i64,
    boottime: i64,
    realtime: i64,
}

/// A difference between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The kernel counted the host as suspended.
    Suspended(Nanos),
    /// The wall clock was set forward: perhaps after a pause.
    Stepped(Nanos),
}

impl Clocks {
    /// Reads the clocks.
    #[must_use]
    pub fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        let nanos = |id| {
            let time = clock_gettime(id);
            time.tv_sec.saturating_mul(SECOND).saturating_add(time.tv_nsec)
        };
        Self {
            monotonic: nanos(ClockId::Monotonic),
            boottime: nanos(ClockId::Boottime),
            realtime: nanos(ClockId::Realtime),
        }
    }

    /// What the clocks show since `before`, if it is noticeable.
    #[must_use]
    pub fn gap_since(&self, before: &Self) -> Option<Gap> {
        let monotonic = self.monotonic.saturating_sub(before.monotonic);
        let suspended = self.boottime.saturating_sub(before.boottime).saturating_sub(monotonic);
        let stepped = self.realtime.saturating_sub(before.realtime).saturating_sub(monotonic);
        if suspended >= SUSPENDED {
            return u64::try_from(suspended).ok().map(Gap::Suspended);
        }
        (stepped >= STEPPED).then(|| u64::try_from(stepped).ok().map(Gap::Stepped)).flatten()
    }
}

/// The hardware clock in seconds, with the other clocks at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareReading {
    pub clocks: Clocks,
    pub seconds: i64,
}

impl HardwareReading {
    /// Reads the hardware clock. `None` without one, or if reading took so long that it cannot be
    /// compared.
    #[must_use]
    pub fn now(path: &std::path::Path) -> Option<Self> {
        let before = Clocks::now();
        let seconds = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
        let clocks = Clocks::now();
        let took = clocks.boottime.saturating_sub(before.boottime);
        (took < SUSPENDED).then_some(Self { clocks, seconds })
    }

    /// Time that the other clocks did not count since `before`, unless the hardware clock was set.
    #[must_use]
    pub fn pause_since(&self, before: &Self) -> Option<Nanos> {
        let counted = self.clocks.boottime.saturating_sub(before.clocks.boottime);
        let length = self.nanos().saturating_sub(before.nanos()).saturating_sub(counted);
        if length < HARDWARE.saturating_add(counted / DRIFT) {
            return None;
        }
        let stepped = self.clocks.realtime.saturating_sub(before.clocks.realtime).saturating_sub(counted);
        // Set from the wall clock, which nobody set: both are the same now, and were not before.
        let ahead = self.nanos().saturating_sub(self.clocks.realtime).rem_euclid(ZONE);
        let is_same = !(HARDWARE..=ZONE - HARDWARE).contains(&ahead);
        let was_set = is_same && stepped.saturating_sub(length).abs() > HARDWARE;
        u64::try_from(length).ok().filter(|_| !was_set)
    }

    const fn nanos(&self) -> i64 {
        self.seconds.saturating_mul(SECOND)
    }

    /// `CLOCK_MONOTONIC` of the reading.
    #[must_use]
    pub fn at(&self) -> Nanos {
        u64::try_from(self.clocks.monotonic).unwrap_or(0)
    }
}

/// A pause that the hardware clock showed; it ended between the two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwarePause {
    pub since: Nanos,
    pub until: Nanos,
    pub length: Nanos,
}

/// Returns the pauses as one session saw them, oldest first. An early ping tells when a pause of
/// the hardware clock ended, and is a shorter pause of its own without one.
#[must_use]
pub fn of_session(
    counted: Vec<Pause>,
    hardware: impl IntoIterator<Item = HardwarePause>,
    timing: SessionTiming,
) -> Vec<Pause> {
    let mut pauses = counted;
    let SessionTiming { opened_at, mut early, is_steady } = timing;
    // A session that opened between the readings may have opened after the pause.
    for pause in hardware.into_iter().filter(|pause| !is_steady && opened_at <= pause.since) {
        let at = early.take_if(|early| (pause.since..=pause.until).contains(&early.at));
        let at = at.map_or(pause.until, |early| early.at);
        pauses.push(Pause { at, length: pause.length, is_certain: false });
    }
    if let Some(EarlyPing { at, missing }) = early
        && !pauses.iter().any(|pause| pause.at.abs_diff(at) < pause.length)
    {
        pauses.push(Pause { at, length: missing, is_certain: false });
    }
    pauses.sort_by_key(|pause| pause.at);
    pauses
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Clocks =
        Clocks { monotonic: 7 * SECOND, boottime: 9 * SECOND, realtime: 1_700_000_000 * SECOND };

    fn after(monotonic: i64, boottime: i64, realtime: i64) -> Clocks {
        Clocks {
            monotonic: START.monotonic + monotonic,
            boottime: START.boottime + boottime,
            realtime: START.realtime + realtime,
        }
    }

    #[test]
    fn a_pause_is_the_difference_of_the_clocks() {
        let tenth = SECOND / 10;
        let nanos = i64::unsigned_abs;
        for (now, gap) in [
            (after(tenth, tenth, tenth), None),
            // The process was late, the host was not.
            (after(30 * SECOND, 30 * SECOND, 30 * SECOND), None),
            (after(tenth, 20 * SECOND, 20 * SECOND), Some(Gap::Suspended(nanos(20 * SECOND - tenth)))),
            // A virtual machine continued, and its wall clock was set.
            (after(tenth, tenth, 12 * SECOND), Some(Gap::Stepped(nanos(12 * SECOND - tenth)))),
            // Corrections by NTP, and a wall clock that is set back.
            (after(tenth, tenth, tenth + 900_000_000), None),
            (after(tenth, tenth, -3_600 * SECOND), None),
            (after(tenth, tenth + 200_000_000, tenth), None),
        ] {
            assert_eq!(now.gap_since(&START), gap, "{now:?}");
        }
    }

    #[test]
    fn a_hardware_clock_that_went_on_shows_a_pause() {
        let utc = START.realtime / SECOND;
        // Seconds between the readings: other clocks, wall clock, hardware clock; offset of the
        // hardware clock; pause in seconds.
        for (counted, wall, hardware, offset, pause) in [
            (5, 5, 5, 0, None),
            (5, 5, 6, 0, None),
            (60, 60, 60, 0, None),
            (5, 5, 17, 0, Some(12)),
            (5, 5, 17, 7_200, Some(12)),
            (5, 5, 17, 40, Some(12)),
            // This process was stopped for hours, and the clocks drifted apart.
            (7_200, 7_200, 7_205, 0, None),
            // The wall clock was set as well.
            (5, 17, 17, 0, Some(12)),
            // Only the wall clock was set.
            (5, 17, 5, 0, None),
            // The hardware clock was set from the wall clock, by hwclock or by the kernel.
            (5, 5, 17, -12, None),
            (5, 5, 17, 7_188, None),
            (5, 5, 8, -3, None),
            // Set back, or read across a change of the second.
            (5, 5, -20, 0, None),
            (5, 5, 4, 0, None),
        ] {
            let reading = |clocks: Clocks, seconds| HardwareReading { clocks, seconds };
            let before = reading(START, utc + offset);
            let clocks = after(counted * SECOND, counted * SECOND, wall * SECOND);
            let now = reading(clocks, utc + offset + hardware);
            let pause = pause.map(|seconds: i64| (seconds * SECOND).unsigned_abs());
            assert_eq!(now.pause_since(&before), pause, "{counted} {wall} {hardware} {offset}");
        }
    }

    #[test]
    fn an_early_ping_tells_when_a_pause_ended() {
        let hardware = || HardwarePause { since: 100, until: 600, length: 2_000 };
        let early = |at| Some(EarlyPing { at, missing: 300 });
        let timing = |early| SessionTiming { opened_at: 20, early, is_steady: false };
        let pause = |at, length| Pause { at, length, is_certain: false };
        let suspended = Pause { at: 350, length: 900, is_certain: true };
        for (counted, found, early, expected) in [
            (vec![], None, None, vec![]),
            (vec![], Some(hardware()), None, vec![pause(600, 2_000)]),
            (vec![], Some(hardware()), early(300), vec![pause(300, 2_000)]),
            // Another one, before.
            (
                vec![],
                Some(HardwarePause { length: 20, ..hardware() }),
                early(50),
                vec![pause(50, 300), pause(600, 20)],
            ),
            (vec![], None, early(50), vec![pause(50, 300)]),
            // The same pause.
            (vec![suspended], None, early(400), vec![suspended]),
        ] {
            assert_eq!(of_session(counted, found, timing(early)), expected);
        }
        // It opened after the pause perhaps, or its pings tell that there was none.
        for timing in [
            SessionTiming { opened_at: 101, ..SessionTiming::default() },
            SessionTiming { is_steady: true, ..SessionTiming::default() },
        ] {
            assert_eq!(of_session(vec![], [hardware()], timing), []);
        }
    }

    #[test]
    fn a_missing_hardware_clock_is_no_reading() {
        assert_eq!(HardwareReading::now(std::path::Path::new("/nonexistent")), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "1700000000\n").unwrap();
        assert_eq!(HardwareReading::now(file.path()).map(|reading| reading.seconds), Some(1_700_000_000));
    }
}
