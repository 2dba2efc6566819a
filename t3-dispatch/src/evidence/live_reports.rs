//! Live stats of open sessions for t3-trace, collected only while it has a subscriber for them.

use std::{collections::VecDeque, time::Duration};

use t3_record::wire::{
    self, ToTrace,
    live::{MOST_PULSES, StatsReport},
};
use tokio::time::{Instant, sleep_until};

use crate::relay::live_stats::LiveStats;

/// Interval of the collection.
const INTERVAL: Duration = Duration::from_secs(1);
/// Limit of one subscription.
const LEASE_MAX: Duration = Duration::from_secs(60);
/// Limit of sessions in one collection; the rest follows in the next one.
pub const COLLECTION_MAX: usize = 8192;

/// Schedule and unsent messages of live stats on one connection to t3-trace.
#[derive(Debug)]
pub struct StatsReporter {
    lease_until: Instant,
    next: Instant,
    /// The next collection contains every session: the subscription has just started.
    all: bool,
    messages: VecDeque<Vec<StatsReport>>,
}

impl StatsReporter {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { lease_until: now, next: now, all: true, messages: VecDeque::new() }
    }

    /// Starts or extends the subscription by `ms` milliseconds.
    pub fn renew(&mut self, ms: u64, now: Instant) {
        if self.lease_until <= now {
            self.all = true;
            self.next = self.next.max(now);
        }
        self.lease_until = self.lease_until.max(now + Duration::from_millis(ms).min(LEASE_MAX));
    }

    /// Time of the next collection; `None` if the subscription ends before it.
    fn due(&self) -> Option<Instant> {
        (self.next < self.lease_until).then_some(self.next)
    }

    fn collect(&mut self, now: Instant, collect: impl FnOnce(bool) -> Vec<StatsReport>) {
        let reports = collect(std::mem::take(&mut self.all));
        self.next = now + INTERVAL;
        self.messages.extend(reports.chunks(MOST_PULSES).map(<[StatsReport]>::to_vec));
    }

    /// Returns the next message; pending without a subscription. `collect` returns the
    /// reports of all sessions or of the changed ones. Safe to cancel.
    pub async fn message(&mut self, collect: impl Fn(bool) -> Vec<StatsReport>) -> ToTrace {
        loop {
            if let Some(pulses) = self.messages.pop_front() {
                return ToTrace::Pulses { pulses };
            }
            match self.due() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
            self.collect(Instant::now(), &collect);
        }
    }
}

/// Collects reports from these sessions.
#[must_use]
pub fn collect<'a>(
    sessions: impl Iterator<Item = (&'a wire::Session, &'a LiveStats)>,
    all: bool,
) -> Vec<StatsReport> {
    sessions.filter_map(|(identity, live)| live.take(&identity.conn, all)).take(COLLECTION_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: usize) -> Vec<StatsReport> {
        (0..count).map(|n| StatsReport { conn: n.to_string(), ..StatsReport::default() }).collect()
    }

    /// Runs all due collections. Returns the time of each and whether it contained all sessions.
    fn run(reporter: &mut StatsReporter, from: Instant) -> Vec<(u128, bool)> {
        let mut ran = Vec::new();
        while let Some(due) = reporter.due() {
            reporter.collect(due, |all| {
                ran.push(((due - from).as_millis(), all));
                many(1)
            });
        }
        ran
    }

    #[test]
    fn stats_are_collected_once_per_second_and_only_during_a_subscription() {
        let start = Instant::now();
        let mut reporter = StatsReporter::new(start);
        assert_eq!(run(&mut reporter, start), []);
        reporter.renew(3500, start);
        assert_eq!(run(&mut reporter, start), [(0, true), (1000, false), (2000, false), (3000, false)]);
        // A renewal in time keeps the schedule; one after a pause starts again with all sessions.
        reporter.renew(1500, start + Duration::from_millis(3400));
        assert_eq!(run(&mut reporter, start), [(4000, false)]);
        reporter.renew(500, start + Duration::from_secs(60));
        assert_eq!(run(&mut reporter, start), [(60_000, true)]);
        // Frequent renewals do not add collections.
        for ms in 0..900 {
            reporter.renew(1, start + Duration::from_millis(60_001 + ms));
        }
        assert_eq!(run(&mut reporter, start), []);
    }

    #[tokio::test]
    async fn a_collection_is_split_into_messages() {
        let mut reporter = StatsReporter::new(Instant::now());
        reporter.renew(1500, Instant::now());
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let ToTrace::Pulses { pulses } = reporter.message(|_| many(2 * MOST_PULSES + 1)).await else {
                panic!("pulses")
            };
            lengths.push(pulses.len());
        }
        assert_eq!(lengths, [MOST_PULSES, MOST_PULSES, 1]);
    }

    #[test]
    fn the_length_of_a_subscription_is_limited() {
        let now = Instant::now();
        let mut reporter = StatsReporter::new(now);
        reporter.renew(u64::MAX, now);
        assert_eq!(reporter.lease_until - now, LEASE_MAX);
    }

    #[test]
    fn a_collection_is_bounded_and_the_rest_follows() {
        let identity = wire::Session {
            conn: "c".into(),
            user: "u".into(),
            ip: "i".into(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 1,
            kept: false,
            resumed: 0,
        };
        let live: Vec<LiveStats> = (0..COLLECTION_MAX + 5).map(|_| LiveStats::default()).collect();
        let collected = || collect(live.iter().map(|live| (&identity, live)), false).len();
        assert_eq!((collected(), collected(), collected()), (COLLECTION_MAX, 5, 0));
    }
}
