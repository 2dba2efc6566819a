//! Histogram of durations in bounded memory. Pure.

use std::collections::BTreeMap;

use crate::present::text::lasted;

/// Histogram of values: exact below 64, else to 32 steps per doubling (3 percent, downwards), so
/// that it stays small.
#[derive(Debug, Default)]
pub(super) struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        let drop = (u64::BITS - value.leading_zeros()).saturating_sub(6);
        *self.0.entry(value >> drop << drop).or_default() += 1;
    }

    /// The smallest value that `percent` of all do not exceed.
    fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.0.values().sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (value, count) in &self.0 {
            seen += count;
            if seen >= rank {
                return *value;
            }
        }
        0
    }

    pub(super) fn text(&self) -> String {
        if self.0.is_empty() {
            return "none known".to_owned();
        }
        [("p10", 10), ("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)]
            .map(|(name, percent)| format!("{name} {}", lasted(self.percentile(percent))))
            .join("  ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn percentiles_are_exact_to_a_few_percent(
            mut values in prop::collection::vec(0..10_000_000_u64, 1..200), percent in 1..=100_u64,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let rank = (values.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let (right, got) = (values[rank - 1], histogram.percentile(percent));
            prop_assert!(got <= right && right - got <= right / 32, "{got} for {right}");
        }
    }
}
