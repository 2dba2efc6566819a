//! Burst candidates and the burst of a session. Pure.
//!
//! [`t3_record::burst`] counts. Its cost grows with the number of cuts, so one count is shared by
//! cuts that are close in time.

use std::time::Duration;

use t3_record::{
    burst::{Bursts, SETTLE_TIME},
    evidence::{Burst, LegFacts, Nanos, RelayFacts},
};

/// Time that a candidate waits for other cuts.
pub const WAIT: Duration = Duration::from_nanos(SETTLE_TIME);

/// Returns whether this close can belong to a burst: the downstream leg ended first, without a
/// Close frame and not because of a shutdown.
#[must_use]
pub fn candidate(facts: &RelayFacts) -> bool {
    let first = |leg: &LegFacts| [leg.end, leg.write_error].into_iter().flatten().map(|(_, at)| at).min();
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

/// Largest distance of cuts, and of their counts, that share one count.
const SHARED: Nanos = 50_000_000;

/// Cuts of the last seconds, with the last count.
#[derive(Debug, Default)]
pub struct BurstCounter {
    pub cuts: Bursts,
    last: Option<(Nanos, Nanos, Burst)>,
}

impl BurstCounter {
    /// Returns the burst that the cut at `at` belongs to, as far as it is known at `now`.
    pub fn around(&mut self, at: Nanos, now: Nanos) -> Option<Burst> {
        if let Some((cut_at, counted_at, burst)) = self.last
            && at.abs_diff(cut_at) <= SHARED
            && now.abs_diff(counted_at) <= SHARED
        {
            return Some(burst);
        }
        let burst = self.cuts.around(at);
        // Counted from its end: otherwise a slow count would expire before it is shared.
        self.last = burst.map(|burst| (at, crate::sys::clock::now().max(now), burst));
        burst
    }
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::{CloseFrame, SeenEnd, Shutdown};

    use super::*;

    #[test]
    fn only_a_cut_of_the_downstream_leg_is_a_candidate() {
        let cut = RelayFacts {
            opened_at: Some(1),
            down: LegFacts { end: Some((SeenEnd::Reset, 5)), ..LegFacts::default() },
            up: LegFacts { end: Some((SeenEnd::Eof, 6)), ..LegFacts::default() },
            ..RelayFacts::default()
        };
        assert!(candidate(&cut));
        let not = |change: fn(&mut RelayFacts)| {
            let mut facts = cut.clone();
            change(&mut facts);
            assert!(!candidate(&facts), "{facts:?}");
        };
        not(|facts| facts.up.end = Some((SeenEnd::Eof, 4)));
        not(|facts| facts.up.write_error = Some((SeenEnd::Reset, 4)));
        not(|facts| facts.opened_at = None);
        not(|facts| facts.shutdown = Some(Shutdown { signal: None, at: 2 }));
        not(|facts| facts.down.close_frame = Some(CloseFrame { code: None, reason: String::new(), at: 3 }));
        not(|facts| facts.down.end = None);
    }
}
