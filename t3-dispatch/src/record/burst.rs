//! Which endings could be one of many: those wait a moment for their neighbours. Pure; the counting
//! is [`t3_record::burst`]'s, done once for endings that lie close together, because it costs more
//! the more there are.

use std::time::Duration;

use t3_record::{
    burst::{Bursts, PATIENCE},
    evidence::{Burst, LegFacts, Nanos, RelayFacts},
};

/// How long such an ending waits.
pub const WAIT: Duration = Duration::from_nanos(PATIENCE);

/// Could this ending belong to a burst: downstream first, without a close frame, and not our own
/// doing?
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

/// Endings this close together, counted this shortly one after the other, share one count.
const SAME: Nanos = 50_000_000;

/// The cuts of the last seconds, and the last count.
#[derive(Debug, Default)]
pub struct BurstCounter {
    /// The cuts.
    pub cuts: Bursts,
    last: Option<(Nanos, Nanos, Burst)>,
}

impl BurstCounter {
    /// The burst that the cut at `at` belongs to, as far as it is known at `now`.
    pub fn around(&mut self, at: Nanos, now: Nanos) -> Option<Burst> {
        if let Some((then, counted, burst)) = self.last
            && at.abs_diff(then) <= SAME
            && now.abs_diff(counted) <= SAME
        {
            return Some(burst);
        }
        let burst = self.cuts.around(at);
        // From the end of the count on: a long one must not be over before it is shared.
        self.last = burst.map(|burst| (at, crate::sys::clock::now().max(now), burst));
        burst
    }
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::{CloseFrame, SeenEnd, Shutdown};

    use super::*;

    #[test]
    fn only_a_cut_of_the_browsers_leg_waits() {
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
