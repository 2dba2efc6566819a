//! Rejections and failures of requests: counted by reason, and logged within a budget.
//!
//! Every line that a client can cause is logged through this module: a few per minute for each
//! cause and user, local user or network, then one with the number of those suppressed. Each cause
//! has its own budget, so a flood of one hides no other. Records (`ws close`) are never throttled.
//!
//! The caller decides; this module only counts and logs.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use t3_record::evidence::Nanos;
use tokio::time::interval;

use crate::{admission::log_throttle::LogThrottle, metrics::reject_reason::RejectReason, sys::clock};

/// Window of the budgets.
const WINDOW: Nanos = 60_000_000_000;
/// Maximum number of users and networks with separate log lines, per cause.
const MAX_KEYS: usize = 64;
/// Longest name of a user or network in a log line, in characters.
const LONGEST_NAME: usize = 64;
/// Longest text of a log line, in characters.
const LONGEST_LINE: usize = 400;

/// Cause of a log line about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCause {
    Rejected(RejectReason),
    /// The request is not valid HTTP, or not a valid upgrade.
    InvalidRequest,
    /// serve cannot be reached, or its response is not valid.
    Serve,
    /// No session could be created.
    Pairing,
    /// A session could not be checked.
    SessionCheck,
}

impl LogCause {
    const COUNT: usize = RejectReason::ALL.len() + 4;

    fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| match RejectReason::ALL.get(index) {
            Some(why) => Self::Rejected(*why),
            None => [Self::InvalidRequest, Self::Serve, Self::Pairing, Self::SessionCheck]
                [index - RejectReason::ALL.len()],
        })
    }

    const fn index(self) -> usize {
        match self {
            Self::Rejected(why) => why as usize,
            Self::InvalidRequest => RejectReason::ALL.len(),
            Self::Serve => RejectReason::ALL.len() + 1,
            Self::Pairing => RejectReason::ALL.len() + 2,
            Self::SessionCheck => RejectReason::ALL.len() + 3,
        }
    }

    /// Value in the log.
    const fn value(self) -> &'static str {
        match self {
            Self::Rejected(why) => why.value(),
            Self::InvalidRequest => "invalid_request",
            Self::Serve => "serve",
            Self::Pairing => "pairing",
            Self::SessionCheck => "session_check",
        }
    }

    /// Lines per window. A failure of serve has a request id, with which a user reports it.
    const fn lines(self) -> u32 {
        match self {
            Self::Rejected(_) => 1,
            Self::InvalidRequest | Self::SessionCheck => 5,
            Self::Serve | Self::Pairing => 20,
        }
    }
}

/// Counters and log budget of rejections.
#[derive(Debug)]
pub struct Rejections {
    counts: [AtomicU64; RejectReason::ALL.len()],
    /// Indexed by cause.
    throttles: [Mutex<LogThrottle<String>>; LogCause::COUNT],
    suppressed: AtomicU64,
}

impl Default for Rejections {
    fn default() -> Self {
        let throttles =
            LogCause::all().map(|cause| Mutex::new(LogThrottle::new(WINDOW, cause.lines(), MAX_KEYS)));
        Self { counts: Default::default(), throttles, suppressed: AtomicU64::new(0) }
    }
}

impl Rejections {
    /// Counts and logs a rejection. `who` is the user or network that the budget applies to.
    pub fn record(&self, why: RejectReason, who: &str, line: fmt::Arguments<'_>) {
        self.counts[why as usize].fetch_add(1, Ordering::Relaxed);
        self.log(LogCause::Rejected(why), who, |suppressed| {
            let (who, line) = (cut(who, LONGEST_NAME), cut(&line.to_string(), LONGEST_LINE));
            if why == RejectReason::ForeignListener {
                // A process of another user waits for credentials.
                tracing::error!(refused = why.value(), who, suppressed, "{line}");
            } else {
                tracing::warn!(refused = why.value(), who, suppressed, "{line}");
            }
        });
    }

    /// Logs a line with `write` if the budget allows it. `write` gets the number of lines
    /// suppressed before it, if any.
    pub fn log(&self, cause: LogCause, who: &str, write: impl FnOnce(Option<u64>)) {
        let who = cut(who, LONGEST_NAME);
        match self.throttle(cause).check(who, clock::now()) {
            Some(suppressed) => write((suppressed > 0).then_some(suppressed)),
            None => {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn throttle(&self, cause: LogCause) -> std::sync::MutexGuard<'_, LogThrottle<String>> {
        self.throttles[cause.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejections per reason since the start.
    #[must_use]
    pub fn counts(&self) -> [u64; RejectReason::ALL.len()] {
        RejectReason::ALL.map(|why| self.count(why))
    }

    /// Rejections for this reason since the start.
    #[must_use]
    pub fn count(&self, why: RejectReason) -> u64 {
        self.counts[why as usize].load(Ordering::Relaxed)
    }

    /// Suppressed lines since the start.
    #[must_use]
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Logs the number of lines suppressed up to `now`.
    pub fn sum_up(&self, now: Nanos) {
        for cause in LogCause::all() {
            let overdue = self.throttle(cause).take_suppressed(now);
            for (who, suppressed) in overdue {
                let who = who.unwrap_or_else(|| "others".to_owned());
                tracing::warn!(refused = cause.value(), who, suppressed, "similar rejections suppressed");
            }
        }
    }
}

/// Logs the suppressed counts periodically, so that the end of a flood is logged, too.
pub async fn sum_up(rejections: std::sync::Arc<Rejections>) {
    let mut ticks = interval(Duration::from_secs(10));
    loop {
        ticks.tick().await;
        rejections.sum_up(clock::now());
    }
}

/// Returns the text with up to `longest` characters.
#[must_use]
pub fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_value() {
        let rejections = Rejections::default();
        for (index, why) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            for _ in 0..=index {
                rejections.record(why, "x", format_args!("test"));
            }
        }
        for (index, why) in RejectReason::ALL.into_iter().enumerate() {
            assert_eq!(rejections.count(why), index as u64 + 1);
        }
        for (index, cause) in LogCause::all().into_iter().enumerate() {
            assert_eq!(cause.index(), index);
        }
        let mut words: Vec<&str> = LogCause::all().map(LogCause::value).into();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), LogCause::COUNT);
    }

    #[test]
    fn each_cause_and_each_network_has_its_own_budget() {
        let rejections = Rejections::default();
        let logged = |cause, who: &str| {
            let mut logged = 0;
            for _ in 0..100 {
                rejections.log(cause, who, |_| logged += 1);
            }
            logged
        };
        assert_eq!(logged(LogCause::InvalidRequest, "192.0.2.0/24"), 5);
        assert_eq!(logged(LogCause::InvalidRequest, "198.51.100.0/24"), 5);
        assert_eq!(logged(LogCause::Serve, "192.0.2.0/24"), 20);
        assert_eq!(logged(LogCause::Rejected(RejectReason::Peer), "192.0.2.0/24"), 1);
        assert_eq!(rejections.suppressed(), 95 + 95 + 80 + 99);
    }

    #[test]
    fn a_flood_from_many_networks_is_bounded_and_hides_no_other_cause() {
        let rejections = Rejections::default();
        let mut lines = 0;
        for network in 0..10_000 {
            rejections.log(LogCause::InvalidRequest, &format!("2001:db8:{network:x}::/64"), |_| lines += 1);
        }
        assert_eq!(lines, MAX_KEYS + 5, "those of separate keys, and the shared budget");
        let mut other = false;
        rejections.log(LogCause::Serve, "ann", |_| other = true);
        assert!(other);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äbcd", 3), "äbc…");
        assert_eq!(cut(&"x".repeat(60_000), LONGEST_LINE).chars().count(), LONGEST_LINE + 1);
    }
}
