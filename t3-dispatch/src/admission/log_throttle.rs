//! Throttle for repeated log lines: logs the first few of each window and counts the rest. Pure;
//! the caller passes the time and writes the log.
//!
//! Memory is bounded: keys above the limit share one entry, so a flood from many peers costs no
//! more than one from a single peer.

use std::{collections::HashMap, hash::Hash};

use t3_record::evidence::Nanos;

/// Decides which of many equal lines are logged.
#[derive(Debug)]
pub struct LogThrottle<K> {
    window: Nanos,
    /// Lines per key and window.
    lines: u32,
    max_keys: usize,
    entries: HashMap<K, ThrottledEntry>,
    overflow: Option<ThrottledEntry>,
}

#[derive(Debug, Clone, Copy)]
struct ThrottledEntry {
    since: Nanos,
    /// Lines in this window.
    logged: u32,
    suppressed: u64,
}

impl ThrottledEntry {
    fn new(since: Nanos) -> Self {
        Self { since, logged: 1, suppressed: 0 }
    }

    fn check(&mut self, window: Nanos, lines: u32, now: Nanos) -> Option<u64> {
        if let Some(suppressed) = self.restart(window, now) {
            return Some(suppressed);
        }
        if self.logged < lines {
            self.logged += 1;
            return Some(0);
        }
        self.suppressed += 1;
        None
    }

    /// Starts a new window if this one is over; returns the number of lines suppressed in it.
    fn restart(&mut self, window: Nanos, now: Nanos) -> Option<u64> {
        if now.saturating_sub(self.since) < window {
            return None;
        }
        let suppressed = self.suppressed;
        *self = Self::new(now);
        Some(suppressed)
    }
}

impl<K: Eq + Hash + Clone> LogThrottle<K> {
    /// Up to `lines` lines per key in each `window`; up to `max_keys` keys are distinguished.
    #[must_use]
    pub fn new(window: Nanos, lines: u32, max_keys: usize) -> Self {
        Self { window, lines, max_keys, entries: HashMap::new(), overflow: None }
    }

    /// Returns the number of lines suppressed since the last one if a line about `key` is to be
    /// logged now.
    pub fn check(&mut self, key: K, now: Nanos) -> Option<u64> {
        if let Some(entry) = self.entries.get_mut(&key) {
            return entry.check(self.window, self.lines, now);
        }
        if self.entries.len() < self.max_keys {
            self.entries.insert(key, ThrottledEntry::new(now));
            return Some(0);
        }
        match &mut self.overflow {
            Some(entry) => entry.check(self.window, self.lines, now),
            none => {
                *none = Some(ThrottledEntry::new(now));
                Some(0)
            }
        }
    }

    /// Returns the suppressed counts of windows that are over, so that the end of a flood is logged
    /// even when no line follows. `None` stands for the keys above the limit. Drops entries without
    /// a line for one window. Call it periodically.
    pub fn take_suppressed(&mut self, now: Nanos) -> Vec<(Option<K>, u64)> {
        let window = self.window;
        let mut sums = Vec::new();
        // A reported sum starts a new window: the sum is a log line, too.
        let mut keep = |key: Option<&K>, entry: &mut ThrottledEntry| match entry.restart(window, now) {
            None => true,
            Some(0) => false,
            Some(suppressed) => {
                sums.push((key.cloned(), suppressed));
                true
            }
        };
        self.entries.retain(|key, entry| keep(Some(key), entry));
        if self.overflow.as_mut().is_some_and(|entry| !keep(None, entry)) {
            self.overflow = None;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_is_logged_and_the_rest_of_its_window_is_counted() {
        let mut throttle = LogThrottle::new(60, 1, 10);
        assert_eq!(throttle.check("a", 100), Some(0));
        assert_eq!((throttle.check("a", 101), throttle.check("a", 159)), (None, None));
        assert_eq!(throttle.check("b", 110), Some(0), "each key has its own line");
        assert_eq!(throttle.check("a", 160), Some(2));
    }

    #[test]
    fn suppressed_lines_are_reported_after_their_window_and_then_dropped() {
        let mut throttle = LogThrottle::new(60, 1, 10);
        throttle.check("a", 0);
        throttle.check("a", 1);
        assert_eq!(throttle.take_suppressed(59), []);
        assert_eq!(throttle.take_suppressed(60), [(Some("a"), 1)]);
        assert_eq!(throttle.check("a", 100), None, "the sum was the line of this window");
        assert_eq!(throttle.take_suppressed(120), [(Some("a"), 1)]);
        assert_eq!(throttle.take_suppressed(180), []);
        assert!(throttle.entries.is_empty());
    }

    #[test]
    fn keys_above_the_limit_share_one_entry() {
        let mut throttle = LogThrottle::new(60, 1, 2);
        assert_eq!(
            (throttle.check(1, 0), throttle.check(2, 0), throttle.check(3, 0)),
            (Some(0), Some(0), Some(0))
        );
        assert_eq!((throttle.check(4, 1), throttle.check(5, 1)), (None, None));
        assert_eq!(throttle.entries.len(), 2);
        assert_eq!(throttle.take_suppressed(60), [(None, 2)]);
    }

    #[test]
    fn a_budget_of_several_lines_is_per_window() {
        let mut throttle = LogThrottle::new(60, 3, 10);
        let logged: Vec<_> = (0..5).map(|now| throttle.check("a", now)).collect();
        assert_eq!(logged, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(throttle.take_suppressed(60), [(Some("a"), 2)]);
        let logged: Vec<_> = (61..64).map(|now| throttle.check("a", now)).collect();
        assert_eq!(logged, [Some(0), Some(0), None], "the sum was a line of this window");
        assert_eq!(throttle.check("a", 120), Some(1));
    }

    proptest! {
        /// Every line is either logged or counted in exactly one sum, and a key has no more lines
        /// per window than its budget.
        #[test]
        fn every_line_is_logged_or_counted_once_and_none_too_often(
            budget in 1_u32..4,
            events in prop::collection::vec((0_u8..6, 0_u64..30, any::<bool>()), 0..200)
        ) {
            let mut throttle = LogThrottle::new(60, budget, 3);
            let (mut now, mut lines, mut accounted) = (0, 0, 0);
            let mut last: HashMap<Option<u8>, Vec<u64>> = HashMap::new();
            for (key, pause, sum) in events {
                now += pause;
                let mut check_window = |key: Option<u8>| {
                    let times = last.entry(key).or_default();
                    // One budget can end as the next one starts.
                    let most = if budget == 1 { 1 } else { 2 * budget - 1 } as usize;
                    let over = times.len().checked_sub(most).map(|at| times[at]);
                    prop_assert!(over.is_none_or(|before| now - before >= 60));
                    times.push(now);
                    Ok(())
                };
                if sum {
                    for (key, suppressed) in throttle.take_suppressed(now) {
                        check_window(key)?;
                        accounted += suppressed;
                    }
                } else {
                    lines += 1;
                    let logged = throttle.check(key, now);
                    let logged_key = throttle.entries.contains_key(&key).then_some(key);
                    if let Some(suppressed) = logged {
                        check_window(logged_key)?;
                        accounted += suppressed + 1;
                    }
                }
                prop_assert!(throttle.entries.len() <= 3);
            }
            let left: u64 = throttle.take_suppressed(now + 60).iter().map(|(_, suppressed)| suppressed).sum();
            prop_assert_eq!(accounted + left, lines);
        }
    }
}
