//! How late dispatch's own event loop is: a task that wants to run every [`TICK`], and by how much
//! it is late when it does.
//!
//! The worst of the last 30 s goes into each record, so that a stall of ours is never blamed on
//! somebody else.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use t3_record::evidence::Nanos;
use tokio::time::{Instant, sleep_until};

use crate::sys::clock;

/// How often.
pub const TICK: Duration = Duration::from_millis(100);
const WINDOW: Nanos = 30_000_000_000;
const BUCKET: Nanos = 1_000_000_000;

/// One delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay {
    /// How late, in nanoseconds.
    pub late: u64,
    /// When it was over.
    pub at: Nanos,
}

/// The worst delay of each of the last seconds.
#[derive(Debug, Default)]
pub struct Worst {
    seconds: VecDeque<Delay>,
}

impl Worst {
    /// A delay was measured.
    pub fn note(&mut self, delay: Delay) {
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

    /// The worst of the last 30 s; of equals the latest.
    #[must_use]
    pub fn worst(&self, now: Nanos) -> Option<Delay> {
        self.seconds.iter().filter(|delay| delay.at + WINDOW >= now).max_by_key(|delay| delay.late).copied()
    }
}

/// The meter of the process.
#[derive(Debug, Default)]
pub struct Meter {
    worst: Mutex<Worst>,
}

impl Meter {
    /// The worst delay of the last 30 s.
    #[must_use]
    pub fn worst(&self) -> Option<Delay> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).worst(clock::now())
    }

    /// Measures continuously and reports each delay.
    pub async fn run(&self, tell: impl Fn(Duration)) {
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let elapsed = due.elapsed();
            tell(elapsed);
            let late = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            self.worst.lock().unwrap_or_else(PoisonError::into_inner).note(Delay { late, at: clock::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_the_last_half_minute_and_nothing_older() {
        let mut worst = Worst::default();
        for (late, second) in [(5, 1), (900, 2), (7, 20), (8, 31)] {
            worst.note(Delay { late, at: second * BUCKET });
        }
        assert_eq!(worst.worst(31 * BUCKET), Some(Delay { late: 900, at: 2 * BUCKET }));
        worst.note(Delay { late: 1, at: 40 * BUCKET });
        assert_eq!(worst.worst(40 * BUCKET).map(|delay| delay.late), Some(8));
        assert_eq!(worst.worst(100 * BUCKET), None);
    }
}
