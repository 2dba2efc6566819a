//! Constant rate: due times of messages, and the timer that reports them.
//!
//! A time is counted from the due time of a message, not from its sending: a proxy that stalls also
//! delays the messages after it, and these delays count (no coordinated omission).

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::Timespec,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};

use crate::error::{Attempt, Result};

/// Due times of messages at a constant rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    begin: Instant,
    interval: Duration,
    total: u64,
    next: u64,
}

impl Schedule {
    /// `rate` is in messages per second.
    pub(super) fn new(begin: Instant, rate: u64, total: u64) -> Self {
        Self { begin, interval: interval(rate), total, next: 0 }
    }

    /// Number and due time of the next message that is due at `now`.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let factor = u32::try_from(self.next + 1).unwrap_or(u32::MAX);
        let due = self.begin + self.interval.saturating_mul(factor);
        if self.next >= self.total || due > now {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, due))
    }

    /// Whether all messages were due.
    pub(super) const fn is_done(&self) -> bool {
        self.next >= self.total
    }
}

fn interval(rate: u64) -> Duration {
    Duration::from_nanos((1_000_000_000 / rate.max(1)).max(1))
}

/// Timer that expires at a constant rate. Timeouts of epoll are in milliseconds.
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn start(rate: u64) -> Result<Self> {
        let what = || "start a timer".to_owned();
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).attempt(what)?;
        let every = Timespec::try_from(interval(rate))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))
            .attempt(what)?;
        let times = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times).attempt(what)?;
        Ok(Self(timer))
    }

    /// Reads the expirations, so that the next one is an event.
    pub(super) fn rearm(&self) {
        let mut count = [0; 8];
        // Without an expiration there is nothing to read.
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_the_rate_also_after_a_delay() {
        let begin = Instant::now();
        let after = |micros| begin + Duration::from_micros(micros);
        let mut schedule = Schedule::new(begin, 5_000, 4);
        assert_eq!(schedule.next_due(after(199)), None);
        assert_eq!(schedule.next_due(after(200)), Some((0, after(200))));
        assert_eq!(schedule.next_due(after(250)), None);
        assert_eq!(schedule.next_due(after(10_000)), Some((1, after(400))));
        assert_eq!(schedule.next_due(after(10_000)), Some((2, after(600))));
        assert!(!schedule.is_done());
        assert_eq!(schedule.next_due(after(10_000)), Some((3, after(800))));
        assert!(schedule.is_done());
        assert_eq!(schedule.next_due(after(10_000)), None, "four in all");
    }
}
