//! Limit of records per minute of one port. Pure.

use t3_record::evidence::Nanos;
use t3_trace_host::clock::SECOND;

const MINUTE: Nanos = 60 * SECOND;

/// Records of the current minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Budget {
    began_at: Nanos,
    used: u32,
    over: u64,
}

/// Result of [`Budget::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// A record may be written.
    pub(super) is_granted: bool,
    /// Connections of the ended minute that were not recorded; 0 in a minute that goes on.
    pub(super) over_before: u64,
}

impl Budget {
    /// Takes one of `limit` records per minute.
    pub(super) fn take(&mut self, now: Nanos, limit: u32) -> Taken {
        let mut over_before = 0;
        if now.saturating_sub(self.began_at) >= MINUTE {
            over_before = self.over;
            *self = Self { began_at: now, used: 0, over: 0 };
        }
        let is_granted = self.used < limit;
        if is_granted {
            self.used += 1;
        } else {
            self.over += 1;
        }
        Taken { is_granted, over_before }
    }

    /// The first connection of this minute that is not recorded.
    pub(super) fn is_first_over(&self) -> bool {
        self.over == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_its_limit_and_the_next_one_reports_the_rest() {
        let mut budget = Budget::default();
        let start = 1_000 * SECOND;
        let mut take = |at| {
            let taken = budget.take(start + at * SECOND, 2);
            (taken.is_granted, taken.over_before, budget.is_first_over())
        };
        assert_eq!((take(0), take(1)), ((true, 0, false), (true, 0, false)));
        assert_eq!((take(2), take(59)), ((false, 0, true), (false, 0, false)));
        assert_eq!(take(60), (true, 2, false));
        assert_eq!(take(61), (true, 0, false));
        assert_eq!(take(62), (false, 0, true));
    }
}
