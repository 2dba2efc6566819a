//! Whether the kernel side lost facts lately. Then an event that is absent may have happened, and
//! no judgement that needs its absence is `proven`.
//!
//! Three ways to lose facts:
//!
//! - A table has no room (counted by the programs).
//! - An LRU table evicts an entry that is still needed. The kernel does not count evictions, so
//!   that the number of new entries within the time in which a session's facts are needed stands
//!   for them.
//! - The kernel skips runs of a program, because the program is already running on that CPU
//!   (counted by the kernel). It does not count whose events these were, and a user can cause them
//!   with connections in a network namespace, some hundred at a time. A few are normal on a slow
//!   or emulated CPU, so that a small number counts as none.

use std::collections::VecDeque;

use t3_record::evidence::Nanos;
use t3_trace_host::{clock::SECOND, kernel::Load};

/// Time for which facts must stay in the tables: from an event to the query of its session.
const NEEDED: Nanos = 60 * SECOND;
/// Skipped runs in this time from which on facts may be missing: half of what a user causes at a
/// time.
const MANY_SKIPPED: u64 = 128;
/// Interval of samples.
const EVERY: Nanos = SECOND;

/// Samples of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    samples: VecDeque<(Nanos, Load)>,
}

impl Overflow {
    /// Adds a sample; returns whether facts of the last minute may be missing.
    pub(crate) fn sample(&mut self, now: Nanos, load: Load) -> bool {
        // The last sample before the window is its start.
        while self.samples.get(1).is_some_and(|(at, _)| at.saturating_add(NEEDED) <= now) {
            self.samples.pop_front();
        }
        let is_due = self.samples.back().is_none_or(|(at, _)| at.saturating_add(EVERY) <= now);
        if is_due {
            self.samples.push_back((now, load));
        }
        let Some((_, first)) = self.samples.front() else { return false };
        let added = load.added.saturating_sub(first.added);
        // An LRU table of the kernel begins to evict before it is full (kernel/bpf/bpf_lru_list.c).
        let is_short = load.full > first.full || added >= load.size / 2;
        is_short || load.skipped.saturating_sub(first.skipped) >= MANY_SKIPPED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn load(full: u64, added: u64) -> Load {
        Load { full, added, size: 1_000, skipped: 0 }
    }

    #[test]
    fn a_full_table_counts_for_a_minute() {
        let mut overflow = Overflow::default();
        assert!(!overflow.sample(0, load(3, 0)), "before the first sample");
        assert!(!overflow.sample(SECOND, load(3, 1)));
        assert!(overflow.sample(2 * SECOND, load(4, 2)));
        assert!(overflow.sample(30 * SECOND, load(4, 2)));
        assert!(!overflow.sample(150 * SECOND, load(4, 2)) || overflow.samples.len() > 1);
        assert!(!overflow.sample(300 * SECOND, load(4, 2)));
    }

    #[test]
    fn many_new_entries_may_have_evicted_others() {
        let mut overflow = Overflow::default();
        for second in 0..200 {
            assert!(!overflow.sample(second * SECOND, load(0, second * 5)), "300 a minute");
        }
        assert!(overflow.sample(200 * SECOND, load(0, 200 * 5 + 400)));
        assert!(overflow.samples.len() < 70);
    }

    #[test]
    fn many_skipped_runs_count_for_a_minute_and_few_do_not() {
        let skipped = |skipped| Load { skipped, ..load(0, 0) };
        let mut overflow = Overflow::default();
        assert!(!overflow.sample(0, skipped(5_000)), "before the first sample");
        assert!(!overflow.sample(SECOND, skipped(5_127)));
        // In bursts within the minute.
        assert!(overflow.sample(30 * SECOND, skipped(5_128)));
        assert!(overflow.sample(59 * SECOND, skipped(5_128)));
        assert!(!overflow.sample(61 * SECOND, skipped(5_128)), "127 were before the minute");
        assert!(overflow.sample(62 * SECOND, skipped(5_255)));
        assert!(!overflow.sample(200 * SECOND, skipped(5_255)));
        // A few in each second are normal.
        for second in 200..400 {
            assert!(!overflow.sample(second * SECOND, skipped(5_255 + (second - 200) * 2)));
        }
    }

    #[test]
    fn frequent_samples_take_no_memory() {
        let mut overflow = Overflow::default();
        for n in 0..10_000 {
            overflow.sample(n * SECOND / 100, load(0, 0));
        }
        assert!(overflow.samples.len() < 70);
    }
}
