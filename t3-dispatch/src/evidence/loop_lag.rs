//! Lag of dispatch's own event loop: the delay of a task that should run every [`TICK`].
//!
//! Each record contains the worst lag of the last 30 s, so that a stall of dispatch is not
//! attributed to a peer.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use t3_record::evidence::{MAX_SPANS, Nanos, Pause, Span};
use tokio::time::{Instant, sleep_until};

use crate::{
    evidence::pause::{self, Clocks, Gap, HardwarePause, HardwareReading},
    relay::heartbeat::SessionTiming,
    sys::clock,
};

/// Interval of the measurement.
pub const TICK: Duration = Duration::from_millis(100);
const WINDOW: Nanos = 30_000_000_000;
const BUCKET: Nanos = 1_000_000_000;
/// Shorter delays are those of a busy host, and matter to no watchdog.
const MIN_DELAY: Nanos = 100_000_000;
/// The hardware clock is read at the end of a session, and once in so many ticks: it answers in
/// microseconds to milliseconds.
const HARDWARE_TICKS: u32 = 50;
/// Sessions that end together share one reading.
const SHARED: Nanos = 10_000_000;
/// rtc(4), Documentation/ABI/testing/sysfs-class-rtc.
const HARDWARE_CLOCK: &str = "/sys/class/rtc/rtc0/since_epoch";

/// One delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// Length in nanoseconds.
    pub late: u64,
    /// Time of its end.
    pub at: Nanos,
}

/// The worst delay of each of the last seconds.
#[derive(Debug, Default)]
pub struct WorstLag {
    seconds: VecDeque<Delay>,
}

impl WorstLag {
    pub fn add(&mut self, delay: Delay) {
        match self.seconds.back_mut() {
            Some(last) if last.at / BUCKET == delay.at / BUCKET => {
                if delay.late >= last.late {
                    *last = delay;
                }
            }
            _ => self.seconds.push_back(delay),
        }
        while self.seconds.front().is_some_and(|first| first.at + WINDOW < delay.at) {
            self.seconds.pop_front();
        }
    }

    /// Returns the worst delay of the last 30 s; the latest of equal ones.
    #[must_use]
    pub fn worst(&self, now: Nanos) -> Option<Delay> {
        self.seconds.iter().filter(|delay| delay.at + WINDOW >= now).max_by_key(|delay| delay.late).copied()
    }
}

/// Loop lag of this process.
#[derive(Debug, Default)]
pub struct LoopLag {
    worst: Mutex<WorstLag>,
    /// Time at which the measurement should run next; 0 before the first.
    due: AtomicU64,
    /// The last delays and pauses, oldest first.
    delays: Mutex<VecDeque<Span>>,
    pauses: Mutex<VecDeque<Pause>>,
    hardware: Mutex<HardwareClock>,
    reading: tokio::sync::Mutex<()>,
}

/// The hardware clock, and what it showed.
#[derive(Debug, Default)]
struct HardwareClock {
    last: Option<HardwareReading>,
    /// End of the last attempt to read it; 0 before the first.
    tried_at: Nanos,
    /// The host has none: only the periodic check looks for one.
    is_missing: bool,
    /// The last pauses, oldest first.
    pauses: VecDeque<HardwarePause>,
}

fn push<T>(list: &Mutex<VecDeque<T>>, item: T) {
    keep(&mut list.lock().unwrap_or_else(PoisonError::into_inner), item);
}

/// Adds an item in place of the oldest of a full list.
fn keep<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == MAX_SPANS {
        list.pop_front();
    }
    list.push_back(item);
}

fn copy<T: Copy>(list: &Mutex<VecDeque<T>>) -> Vec<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
}

impl LoopLag {
    /// Returns the worst delay of the last 30 s.
    #[must_use]
    pub fn worst(&self) -> Option<Delay> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).worst(clock::now())
    }

    /// Returns the last delays, oldest first, and the current one: a task that ends before the
    /// measurement runs again sees how late that is.
    #[must_use]
    pub fn delays(&self) -> Vec<Span> {
        let mut delays = copy(&self.delays);
        delays.extend(current(self.due.load(Ordering::Relaxed), clock::now()));
        delays
    }

    /// Returns the last pauses of the host, oldest first, as a session saw them.
    #[must_use]
    pub fn pauses(&self, timing: SessionTiming) -> Vec<Pause> {
        let hardware: Vec<_> = self.hardware().pauses.iter().copied().collect();
        pause::of_session(copy(&self.pauses), hardware, timing)
    }

    /// Adds a time in which no dispatch ran: between the process before and this one.
    pub fn add_restart(&self, restart: Span) {
        let late = restart.until.saturating_sub(restart.from);
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).add(Delay { late, at: restart.until });
        if late >= MIN_DELAY {
            push(&self.delays, restart);
        }
    }

    fn hardware(&self) -> MutexGuard<'_, HardwareClock> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares the hardware clock with the others, unless that has just been done or the host has
    /// none.
    pub async fn check_hardware_clock(self: &Arc<Self>) {
        if !self.hardware().is_missing {
            self.read_hardware_clock().await;
        }
    }

    async fn read_hardware_clock(self: &Arc<Self>) {
        // Sessions that end together wait for one reading.
        let _one = self.reading.lock().await;
        if self.hardware().is_fresh(clock::now()) {
            return;
        }
        let lag = Arc::clone(self);
        // It may block for milliseconds.
        let read = tokio::task::spawn_blocking(move || {
            let path = Path::new(HARDWARE_CLOCK);
            let reading = HardwareReading::now(path);
            let is_missing = reading.is_none() && !path.exists();
            // Its end: a slow reading is shared, too.
            lag.hardware().tried(reading, is_missing, clock::now());
        });
        drop(read.await);
    }

    /// Measures continuously and reports each delay.
    pub async fn run(self: &Arc<Self>, report: impl Fn(Duration)) {
        let mut clocks = Clocks::now();
        let mut ticks = 0_u32;
        loop {
            if ticks.is_multiple_of(HARDWARE_TICKS) {
                self.check_soon();
            }
            ticks = ticks.wrapping_add(1);
            let due = Instant::now() + TICK;
            let tick = u64::try_from(TICK.as_nanos()).unwrap_or(0);
            self.due.store(clock::now().saturating_add(tick), Ordering::Relaxed);
            sleep_until(due).await;
            let elapsed = due.elapsed();
            report(elapsed);
            let late = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            let now = clock::now();
            self.worst.lock().unwrap_or_else(PoisonError::into_inner).add(Delay { late, at: now });
            if late >= MIN_DELAY {
                push(&self.delays, Span { from: now.saturating_sub(late), until: now });
            }
            let before = std::mem::replace(&mut clocks, Clocks::now());
            match clocks.gap_since(&before) {
                Some(Gap::Suspended(length)) => {
                    push(&self.pauses, Pause { at: now, length, is_certain: true });
                }
                // The hardware clock tells a pause from a wall clock that was set.
                Some(Gap::Stepped(_)) if self.hardware().last.is_some() => self.check_soon(),
                Some(Gap::Stepped(length)) => {
                    push(&self.pauses, Pause { at: now, length, is_certain: false });
                }
                None => {}
            }
        }
    }

    fn check_soon(self: &Arc<Self>) {
        let lag = Arc::clone(self);
        tokio::spawn(async move { lag.read_hardware_clock().await });
    }
}

/// The delay of a measurement that has not run yet.
fn current(due: Nanos, now: Nanos) -> Option<Span> {
    (due > 0 && now.saturating_sub(due) >= MIN_DELAY).then_some(Span { from: due, until: now })
}

impl HardwareClock {
    /// Whether an attempt to read it has just been made.
    fn is_fresh(&self, now: Nanos) -> bool {
        self.tried_at > 0 && self.tried_at + SHARED > now
    }

    /// Records an attempt to read it that ended at `at`.
    fn tried(&mut self, reading: Option<HardwareReading>, is_missing: bool, at: Nanos) {
        self.tried_at = at;
        self.is_missing = is_missing;
        if let Some(reading) = reading {
            self.add(reading);
        }
    }

    fn add(&mut self, reading: HardwareReading) {
        let Some(before) = self.last.replace(reading) else { return };
        if let Some(length) = reading.pause_since(&before) {
            keep(&mut self.pauses, HardwarePause { since: before.at(), until: reading.at(), length });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_is_late_counts_before_it_runs() {
        for (due, now, from) in [
            (0, 9 * BUCKET, None),
            (BUCKET, BUCKET - 1, None),
            (BUCKET, BUCKET + MIN_DELAY - 1, None),
            (BUCKET, BUCKET + MIN_DELAY, Some(BUCKET)),
        ] {
            assert_eq!(current(due, now).map(|span| span.from), from);
            assert!(current(due, now).is_none_or(|span| span.until == now));
        }
        let lag = LoopLag::default();
        assert_eq!(lag.delays(), []);
        lag.due.store(clock::now() - MIN_DELAY, Ordering::Relaxed);
        assert_eq!(lag.delays().len(), 1);
    }

    #[test]
    fn an_attempt_to_read_the_hardware_clock_is_shared_for_ten_milliseconds() {
        let mut hardware = HardwareClock::default();
        assert!(!hardware.is_fresh(0) && !hardware.is_fresh(BUCKET));
        for is_missing in [true, false] {
            hardware.tried(None, is_missing, BUCKET);
            assert_eq!((hardware.is_missing, hardware.last), (is_missing, None));
            assert!(hardware.is_fresh(BUCKET) && hardware.is_fresh(BUCKET + SHARED - 1));
            assert!(!hardware.is_fresh(BUCKET + SHARED));
        }
        let reading = HardwareReading { clocks: pause::Clocks::now(), seconds: 7 };
        hardware.tried(Some(reading), false, 2 * BUCKET);
        assert_eq!(hardware.last, Some(reading));
        assert!(hardware.is_fresh(2 * BUCKET) && !hardware.is_fresh(2 * BUCKET + SHARED));
    }

    #[tokio::test]
    async fn the_end_of_a_session_does_not_look_for_a_missing_hardware_clock() {
        let lag = Arc::new(LoopLag::default());
        lag.hardware().tried(None, true, 1);
        lag.check_hardware_clock().await;
        assert_eq!(lag.hardware().tried_at, 1);
        // The periodic check does.
        lag.read_hardware_clock().await;
        assert!(lag.hardware().tried_at > 1);
    }

    #[test]
    fn delays_older_than_half_a_minute_are_ignored() {
        let mut worst = WorstLag::default();
        for (late, second) in [(5, 1), (900, 2), (7, 20), (8, 31)] {
            worst.add(Delay { late, at: second * BUCKET });
        }
        assert_eq!(worst.worst(31 * BUCKET), Some(Delay { late: 900, at: 2 * BUCKET }));
        worst.add(Delay { late: 1, at: 40 * BUCKET });
        assert_eq!(worst.worst(40 * BUCKET).map(|delay| delay.late), Some(8));
        assert_eq!(worst.worst(100 * BUCKET), None);
    }
}
