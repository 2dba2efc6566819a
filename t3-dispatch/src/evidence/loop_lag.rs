//! Lag of dispatch's own event loop: the delay of a task that should run every [`TICK`].
//!
//! Each record contains the worst lag of the last 30 s, so that a stall of dispatch is not
//! attributed to a peer.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use t3_record::evidence::{MAX_SPANS, Nanos, Pause, Span};
use tokio::time::{Instant, sleep_until};

use crate::{evidence::pause::Clocks, sys::clock};

/// Interval of the measurement.
pub const TICK: Duration = Duration::from_millis(100);
const WINDOW: Nanos = 30_000_000_000;
const BUCKET: Nanos = 1_000_000_000;
/// Shorter delays are those of a busy host, and matter to no watchdog.
const MIN_DELAY: Nanos = 100_000_000;

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
    /// The last delays and pauses, oldest first.
    delays: Mutex<VecDeque<Span>>,
    pauses: Mutex<VecDeque<Pause>>,
}

fn push<T>(list: &Mutex<VecDeque<T>>, item: T) {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
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
        copy(&self.delays)
    }

    /// Returns the last pauses of the host, oldest first.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        copy(&self.pauses)
    }

    /// Measures continuously and reports each delay.
    pub async fn run(&self, report: impl Fn(Duration)) {
        let mut clocks = Clocks::now();
        loop {
            let due = Instant::now() + TICK;
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
            if let Some(length) = clocks.pause_since(&before) {
                push(&self.pauses, Pause { at: now, length });
            }
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
