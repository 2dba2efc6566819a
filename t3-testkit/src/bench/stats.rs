//! Medians, quantiles and ratios. Pure.

use serde::{Deserialize, Serialize};

/// Direction in which a number improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

impl Better {
    /// Whether `value` is at least as good as `limit`.
    #[must_use]
    pub fn reaches(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Lower => value <= limit,
            Self::Higher => value >= limit,
        }
    }

    /// The better of two values.
    #[must_use]
    pub fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Lower => one.min(other),
            Self::Higher => one.max(other),
        }
    }
}

/// Median and range of repeated measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// For an even number, the lower of the two middle values.
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// The best value.
    #[must_use]
    pub const fn best(&self, better: Better) -> f64 {
        match better {
            Better::Lower => self.min,
            Better::Higher => self.max,
        }
    }

    /// The worst value.
    #[must_use]
    pub const fn worst(&self, better: Better) -> f64 {
        match better {
            Better::Lower => self.max,
            Better::Higher => self.min,
        }
    }
}

/// Median and range of values; `None` without values.
#[must_use]
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    Some(Spread { median: *values.get(middle)?, min: *values.first()?, max: *values.last()? })
}

/// Ratios of two contestants, each within one round, so that a change of the host's speed between
/// rounds does not affect them. A round without a positive reference is left out.
#[must_use]
pub fn ratios(of: &[f64], to: &[f64]) -> Option<Spread> {
    spread(of.iter().zip(to).filter(|(_, to)| **to > 0.0).map(|(of, to)| of / to))
}

/// The best value of several contestants in each round.
#[must_use]
pub fn best_of<'a>(better: Better, all: impl IntoIterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut all = all.into_iter();
    let Some(first) = all.next() else { return Vec::new() };
    all.fold(first.to_vec(), |best, one| best.iter().zip(one).map(|(a, b)| better.of(*a, *b)).collect())
}

/// Quantile of sorted values by nearest rank; `part` is 0 to 1.
#[must_use]
pub fn quantile(sorted: &[u64], part: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank, bounded by the length"
    )]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(spread([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread([4.0, 1.0]), Some(Spread { median: 1.0, min: 1.0, max: 4.0 }));
        assert_eq!(spread([]), None);
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        let of = |median, min, max| Some(Spread { median, min, max });
        let table: [(&[f64], &[f64], Option<Spread>); 5] = [
            // The second round was twice as slow for both.
            (&[1.0, 2.0, 1.5], &[2.0, 4.0, 2.0], of(0.5, 0.5, 0.75)),
            (&[1.0, 9.0], &[2.0, 0.0], of(0.5, 0.5, 0.5)),
            (&[1.0, 9.0], &[2.0], of(0.5, 0.5, 0.5)),
            (&[1.0], &[0.0], None),
            (&[], &[], None),
        ];
        for (ours, theirs, expected) in table {
            assert_eq!(ratios(ours, theirs), expected, "{ours:?} / {theirs:?}");
        }
    }

    #[test]
    fn the_best_is_chosen_for_each_round() {
        let (one, other) = ([1.0, 4.0], [2.0, 3.0]);
        assert_eq!(best_of(Better::Lower, [&one[..], &other[..]]), [1.0, 3.0]);
        assert_eq!(best_of(Better::Higher, [&one[..], &other[..]]), [2.0, 4.0]);
        assert!(best_of(Better::Lower, []).is_empty());
    }

    #[test]
    fn the_best_and_the_worst_depend_on_the_direction() {
        let spread = Spread { median: 2.0, min: 1.0, max: 3.0 };
        assert_eq!((spread.best(Better::Lower), spread.worst(Better::Lower)), (1.0, 3.0));
        assert_eq!((spread.best(Better::Higher), spread.worst(Better::Higher)), (3.0, 1.0));
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&values, 0.5), 50);
        assert_eq!(quantile(&values, 0.99), 99);
        assert_eq!(quantile(&values, 1.0), 100);
        assert_eq!(quantile(&values, 0.0), 1);
        assert_eq!(quantile(&[7], 0.99), 7);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn better_depends_on_the_direction() {
        for (better, value, limit, expected) in [
            (Better::Lower, 0.9, 0.9, true),
            (Better::Lower, 0.91, 0.9, false),
            (Better::Higher, 1.05, 1.05, true),
            (Better::Higher, 1.04, 1.05, false),
        ] {
            assert_eq!(better.reaches(value, limit), expected, "{better:?} {value} {limit}");
        }
        assert_eq!((Better::Lower.of(1.0, 2.0), Better::Higher.of(1.0, 2.0)), (1.0, 2.0));
    }
}
