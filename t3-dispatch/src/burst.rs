//! Many sessions cut downstream within one second: a shared segment broke. Counts, and draws no conclusion. Pure.

use std::{collections::HashSet, time::Duration};

use t3_record::{
    BurstRecord,
    evidence::{Burst, Nanos, RelayFacts},
};

/// From how many sessions on it is a burst.
pub const FEWEST: u32 = 5;
/// How long an ending that could belong to a burst waits for its neighbours.
pub const WAIT: Duration = Duration::from_millis(500);
const SECOND: Nanos = 1_000_000_000;

/// The endings of the current second.
#[derive(Debug, Default)]
pub struct Bursts {
    start: Nanos,
    last: Nanos,
    sessions: u32,
    users: HashSet<String>,
}

/// Could this ending belong to a burst: downstream first, without a close frame, and not our own doing?
#[must_use]
pub fn candidate(facts: &RelayFacts) -> bool {
    let first = |leg: &t3_record::evidence::LegFacts| {
        [leg.end, leg.write_error].into_iter().flatten().map(|(_, at)| at).min()
    };
    let downstream_first = match (first(&facts.down), first(&facts.up)) {
        (Some(down), Some(up)) => down <= up,
        (Some(_), None) => true,
        (None, _) => false,
    };
    downstream_first
        && facts.opened_at.is_some()
        && facts.shutdown.is_none()
        && facts.down.close_frame.is_none()
        && facts.up.close_frame.is_none()
}

impl Bursts {
    /// A session ended downstream. Returns the sum of the second before, when that was a burst and this ending begins a new second.
    pub fn note(&mut self, user: &str, at: Nanos) -> Option<BurstRecord> {
        let sum = (at > self.start + SECOND).then(|| self.take()).flatten();
        if self.sessions == 0 {
            self.start = at;
        }
        self.last = self.last.max(at);
        self.sessions += 1;
        if !self.users.contains(user) {
            self.users.insert(user.to_owned());
        }
        sum
    }

    /// The burst that an ending at `at` belongs to, as far as it is known by now.
    #[must_use]
    pub fn around(&self, at: Nanos) -> Option<Burst> {
        let within = at + SECOND >= self.start && at <= self.start + SECOND;
        (within && self.sessions >= FEWEST).then(|| Burst {
            sessions: self.sessions,
            users: u32::try_from(self.users.len()).unwrap_or(u32::MAX),
        })
    }

    /// The sum of the current second if it is over by `now` and was a burst. Given out once.
    pub fn over(&mut self, now: Nanos) -> Option<BurstRecord> {
        if self.sessions > 0 && now > self.start + SECOND { self.take() } else { None }
    }

    fn take(&mut self) -> Option<BurstRecord> {
        let record = (self.sessions >= FEWEST).then(|| {
            let mut record = BurstRecord::new(u64::from(self.sessions), self.users.len() as u64);
            record.span_ms = Some(self.last.saturating_sub(self.start) / 1_000_000);
            record
        });
        *self = Self::default();
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn five_within_a_second_are_a_burst_and_summed_up_once() {
        let mut bursts = Bursts::default();
        for (n, user) in ["ann", "bob", "ann", "bob"].into_iter().enumerate() {
            assert_eq!(bursts.note(user, SECOND * 10 + n as u64 * 100 * MS), None);
            assert_eq!(bursts.around(SECOND * 10), None);
        }
        bursts.note("ann", SECOND * 10 + 400 * MS);
        assert_eq!(bursts.around(SECOND * 10), Some(Burst { sessions: 5, users: 2 }));
        assert_eq!(bursts.over(SECOND * 10 + 900 * MS), None);
        let sum = bursts.over(SECOND * 11 + MS).unwrap();
        assert_eq!((sum.n, sum.users, sum.span_ms), (5, 2, Some(400)));
        assert_eq!(bursts.over(SECOND * 12), None);
    }

    #[test]
    fn five_within_five_seconds_are_none() {
        let mut bursts = Bursts::default();
        for n in 0..5 {
            assert_eq!(bursts.note("ann", SECOND * (10 + 2 * n)), None);
            assert_eq!(bursts.around(SECOND * (10 + 2 * n)), None);
        }
    }

    #[test]
    fn a_second_burst_brings_the_sum_of_the_first() {
        let mut bursts = Bursts::default();
        for n in 0..6 {
            assert_eq!(bursts.note("ann", SECOND + n), None);
        }
        assert_eq!(bursts.note("ann", SECOND * 3).map(|sum| sum.n), Some(6));
    }
}
