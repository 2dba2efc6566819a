//! Lag of dispatch's own event loop: the delay of a task that should run every [`TICK`].
//!
//! Each record contains the worst lag of the last 30 s, so that a stall of dispatch is not
//! attributed to a peer.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use t3_record::evidence::Nanos;
use tokio::time::{Instant, sleep_until};

use crate::sys::clock;

/// Interval of the measurement.
pub const TICK: Duration = Duration::from_millis(100);
const WINDOW: Nanos = 30_000_000_000;
const BUCKET: Nanos = 1_000_000_000;

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
}

impl LoopLag {
    /// Returns the worst delay of the last 30 s.
    #[must_use]
    pub fn worst(&self) -> Option<Delay> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).worst(clock::now())
    }

    /// Measures continuously and reports each delay.
    pub async fn run(&self, report: impl Fn(Duration)) {
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let elapsed = due.elapsed();
            report(elapsed);
            let late = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            self.worst.lock().unwrap_or_else(PoisonError::into_inner).add(Delay { late, at: clock::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
