//! Mass disconnects: sessions whose downstream legs were cut within the same second. Pure: the
//! caller passes the time.
//!
//! Only cuts count: a downstream FIN or RST without a Close frame. Sessions with an individual
//! cause (a Close frame, the exit of serve, a timeout) are not evidence of a shared failure,
//! however many end at the same time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    evidence::{Burst, Nanos},
    record::BurstRecord,
};

/// Maximum time between the cuts of a burst.
pub const WINDOW: Nanos = 1_000_000_000;

/// Minimum number of sessions in a burst.
pub const LEAST: u32 = 5;

/// Time for which the record of a cut waits for further cuts.
pub const SETTLE_TIME: Nanos = 500_000_000;

/// Recent cuts.
#[derive(Debug, Default)]
pub struct Bursts {
    /// In the order of time.
    cuts: VecDeque<(Nanos, String)>,
    /// Bursts up to this time have been summarized.
    summed_up: Nanos,
}

impl Bursts {
    /// Adds a cut of a downstream leg. Cuts may arrive slightly out of order.
    pub fn cut(&mut self, at: Nanos, user: &str) {
        let place = self.cuts.partition_point(|(other, _)| *other <= at);
        self.cuts.insert(place, (at, user.to_owned()));
    }

    /// Returns the largest burst so far that contains the cut at `at`.
    #[must_use]
    pub fn around(&self, at: Nanos) -> Option<Burst> {
        let from = self.cuts.partition_point(|(other, _)| *other < at.saturating_sub(WINDOW));
        let near: Vec<_> = self
            .cuts
            .iter()
            .skip(from)
            .take_while(|(other, _)| *other <= at.saturating_add(WINDOW))
            .collect();
        let mut best: Option<Burst> = None;
        // A sliding window with incremental counts, so that a burst of thousands takes one pass.
        let mut held: BTreeMap<&str, u32> = BTreeMap::new();
        let mut end = 0;
        for (start, (from, user)) in near.iter().enumerate() {
            while let Some((to, user)) = near.get(end).filter(|(to, _)| to - from <= WINDOW) {
                debug_assert!(to >= from);
                *held.entry(user).or_default() += 1;
                end += 1;
            }
            if *from <= at && near[end - 1].0 >= at {
                let burst = Burst { sessions: number(end - start), users: number(held.len()) };
                if best.is_none_or(|best| burst.sessions > best.sessions) {
                    best = Some(burst);
                }
            }
            if let Some(count) = held.get_mut(user.as_str()) {
                *count -= 1;
                if *count == 0 {
                    held.remove(user.as_str());
                }
            }
        }
        best.filter(|burst| burst.sessions >= LEAST)
    }

    /// Summarizes a burst after its second and the wait of its last cut. Call periodically; returns
    /// each burst once.
    pub fn sum_up(&mut self, now: Nanos) -> Option<BurstRecord> {
        loop {
            let first = self.cuts.iter().find(|(at, _)| *at > self.summed_up).map(|(at, _)| *at);
            let Some(first) = first else {
                self.forget(now);
                return None;
            };
            if now < first.saturating_add(WINDOW + SETTLE_TIME) {
                return None;
            }
            let members: Vec<_> = self
                .cuts
                .iter()
                .filter(|(at, _)| *at >= first && *at - first <= WINDOW)
                .map(|(at, user)| (*at, user.clone()))
                .collect();
            let burst = count(members.iter().map(|(_, user)| user.as_str()));
            if burst.sessions >= LEAST {
                let last = members.last().map_or(first, |(at, _)| *at);
                self.summed_up = last;
                let mut record = BurstRecord::new(u64::from(burst.sessions), u64::from(burst.users));
                record.span_ms = Some((last - first) / 1_000_000);
                return Some(record);
            }
            // Too few cuts from here on; the next one may start another burst.
            self.summed_up = first;
        }
    }

    fn forget(&mut self, now: Nanos) {
        while self.cuts.front().is_some_and(|(at, _)| at.saturating_add(3 * WINDOW) < now) {
            self.cuts.pop_front();
        }
        // A burst of thousands may be the last for days.
        self.cuts.shrink_to(2 * self.cuts.len());
    }
}

fn count<'a>(users: impl Iterator<Item = &'a str>) -> Burst {
    let mut sessions = 0;
    let mut names = BTreeSet::new();
    for user in users {
        sessions += 1;
        names.insert(user);
    }
    Burst { sessions, users: number(names.len()) }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn cuts(list: &[(Nanos, &str)]) -> Bursts {
        let mut bursts = Bursts::default();
        for (at, user) in list {
            bursts.cut(10_000 * MS + at * MS, user);
        }
        bursts
    }

    fn around(bursts: &Bursts, at: Nanos) -> Option<(u32, u32)> {
        bursts.around(10_000 * MS + at * MS).map(|b| (b.sessions, b.users))
    }

    #[test]
    fn five_within_a_second_are_a_burst_and_four_are_none() {
        let four = cuts(&[(0, "a"), (10, "b"), (20, "c"), (30, "a")]);
        assert_eq!(around(&four, 10), None);
        let five = cuts(&[(30, "a"), (0, "a"), (10, "b"), (20, "c"), (999, "a")]);
        for at in [0, 10, 999] {
            assert_eq!(around(&five, at), Some((5, 3)), "{at}");
        }
    }

    #[test]
    fn the_second_slides_but_does_not_stretch() {
        let drip = cuts(&[(0, "a"), (400, "b"), (800, "c"), (1200, "d"), (1600, "e"), (2000, "f")]);
        for at in [0, 800, 2000] {
            assert_eq!(around(&drip, at), None, "{at}");
        }
        let late = cuts(&[(0, "a"), (900, "b"), (950, "c"), (1000, "d"), (1100, "e"), (1200, "f")]);
        assert_eq!(around(&late, 0), None);
        assert_eq!(around(&late, 1000), Some((5, 5)));
    }

    #[test]
    fn a_burst_is_summed_up_once_and_only_when_it_is_over() {
        let mut bursts = cuts(&[(0, "a"), (1, "a"), (2, "b"), (3, "b"), (380, "c"), (5_000, "a")]);
        let at = |ms: Nanos| 10_000 * MS + ms * MS;
        assert_eq!(bursts.sum_up(at(1_400)), None);
        let record = bursts.sum_up(at(1_500)).unwrap();
        assert_eq!(record.to_line(), "ws burst n=5 users=3 span_ms=380");
        assert_eq!(bursts.sum_up(at(2_000)), None);
        assert_eq!(bursts.sum_up(at(9_000)), None);
        assert_eq!((bursts.cuts.len(), bursts.cuts.capacity()), (0, 0), "old cuts are forgotten");
    }

    #[test]
    fn a_lone_cut_before_a_burst_does_not_hide_it() {
        let mut bursts =
            cuts(&[(0, "x"), (900, "a"), (1_100, "a"), (1_200, "b"), (1_300, "b"), (1_400, "c")]);
        let record = bursts.sum_up(10_000 * MS + 5_000 * MS).unwrap();
        assert_eq!((record.n, record.users, record.span_ms), (5, 3, Some(500)));
    }
}
