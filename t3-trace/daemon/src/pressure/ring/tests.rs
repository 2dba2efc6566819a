//! Ring tests with stalls of known time and length.

use proptest::prelude::*;

use super::*;

const MS: Nanos = 1_000_000;

/// Total of a host that stalls only between `from` and `to`.
fn total_us(at: Nanos, from: Nanos, to: Nanos) -> u64 {
    at.clamp(from, to).saturating_sub(from) / 1000
}

fn sample(at: Nanos, some: u64) -> Sample {
    let counters = Counters { io: Some(Totals { some, full: Some(some / 2) }), ..Counters::default() };
    Sample { at, counters }
}

fn io(ring: &Ring) -> Stall {
    ring.pressure().unwrap().io.unwrap()
}

#[test]
fn a_stall_of_2_s_is_20_percent_of_the_window() {
    let mut ring = Ring::default();
    for second in 0..=40 {
        ring.push(sample(second * SECOND, total_us(second * SECOND, 35 * SECOND, 37 * SECOND)));
    }
    let stall = io(&ring);
    assert_eq!((stall.some, stall.full, stall.peak), (20.0, Some(10.0), 100.0));
    assert!((stall.some30 - 6.667).abs() < 0.001, "{stall:?}");
}

#[test]
fn a_stall_before_the_window_counts_only_in_the_long_window() {
    let mut ring = Ring::default();
    for second in 0..=40 {
        ring.push(sample(second * SECOND, total_us(second * SECOND, 12 * SECOND, 13 * SECOND)));
    }
    let stall = io(&ring);
    assert_eq!((stall.some, stall.peak), (0.0, 100.0));
}

#[test]
fn one_sample_or_a_short_interval_has_no_pressure() {
    let mut ring = Ring::default();
    assert_eq!(ring.pressure(), None);
    ring.push(sample(SECOND, 0));
    assert_eq!(ring.pressure(), None);
    ring.push(sample(SECOND + 10 * MS, 10_000));
    assert_eq!(ring.pressure(), None);
    ring.push(sample(2 * SECOND, 500_000));
    assert_eq!(io(&ring).some, 50.0);
}

#[test]
fn absent_pressure_stays_absent() {
    let mut ring = Ring::default();
    for second in 0..20 {
        ring.push(Sample { at: second * SECOND, counters: Counters::default() });
    }
    assert_eq!(ring.pressure(), None);
    assert_eq!(ring.growth(|c| c.oom_kills), None);
}

#[test]
fn a_recreated_cgroup_clears_the_ring() {
    let mut ring = Ring::default();
    ring.push(sample(SECOND, 5_000_000));
    ring.push(sample(2 * SECOND, 6_000_000));
    ring.push(sample(3 * SECOND, 0));
    assert_eq!((ring.len(), ring.pressure()), (1, None));
}

#[test]
fn growth_covers_the_last_minute() {
    let mut ring = Ring::default();
    for second in 0..200 {
        let counters = Counters { oom_kills: Some(second / 10), ..Counters::default() };
        ring.push(Sample { at: second * SECOND, counters });
    }
    assert_eq!(ring.growth(|c| c.oom_kills), Some(6));
    assert!(ring.len() <= 62, "{}", ring.len());
}

proptest! {
    /// With irregular sampling, the percentage is exact between the base sample and the last.
    #[test]
    fn windows_are_exact_for_irregular_sampling(
        gaps in prop::collection::vec(1u64..9_000, 2..80),
        from_ms in 0u64..200_000,
        stalled_ms in 0u64..60_000,
    ) {
        let (from, to) = (from_ms * MS, (from_ms + stalled_ms) * MS);
        let mut ring = Ring::default();
        let mut times = Vec::new();
        let mut at = SECOND;
        for gap in gaps {
            at += gap * MS;
            times.push(at);
            ring.push(sample(at, total_us(at, from, to)));
        }
        let kept: Vec<Nanos> = times.iter().copied().filter(|t| ring.samples.iter().any(|s| s.at == *t)).collect();
        let (base, near) = kept.iter().map(|t| (*t, t.abs_diff(at.saturating_sub(WINDOW)))).min_by_key(|(t, d)| (*d, *t)).unwrap();
        prop_assert!(kept.iter().all(|t| t.abs_diff(at.saturating_sub(WINDOW)) >= near));
        match ring.pressure() {
            None => prop_assert!(at - base < SHORTEST || at - kept[0] < SHORTEST),
            Some(pressure) => {
                let stall = pressure.io.unwrap();
                let stalled = at.clamp(from, to) - base.clamp(from, to);
                let expected = stalled as f64 * 100.0 / (at - base) as f64;
                prop_assert!((f64::from(stall.some) - expected).abs() < 0.01, "{} {expected}", stall.some);
                for percent in [stall.some, stall.peak, stall.some30] {
                    prop_assert!((0.0..=100.0).contains(&percent), "{stall:?}");
                }
                prop_assert!(stall.full.unwrap() <= stall.some + 0.01);
            }
        }
    }

    /// The peak is not below the average of its window.
    #[test]
    fn the_peak_is_not_below_the_average_of_its_window(stalls in prop::collection::vec(0u64..=1_000_000, 12..40)) {
        let mut ring = Ring::default();
        let mut total = 0;
        for (second, stalled) in (0u64..).zip(&stalls) {
            total += stalled;
            ring.push(sample(second * SECOND, total));
        }
        let stall = io(&ring);
        prop_assert!(stall.peak + 0.01 >= stall.some && stall.peak + 0.01 >= stall.some30, "{stall:?}");
        // The stall of the first sample is before the ring.
        let seconds = stalls.len().saturating_sub(30).max(1);
        let expected = stalls[seconds..].iter().max().unwrap();
        prop_assert!((f64::from(stall.peak) - *expected as f64 / 10_000.0).abs() < 0.01, "{stall:?} {expected}");
    }

    #[test]
    fn the_ring_is_bounded(gaps in prop::collection::vec(500u64..5_000, 1..400)) {
        let mut ring = Ring::default();
        let mut at = 0;
        for gap in gaps {
            at += gap * MS;
            ring.push(sample(at, 0));
            prop_assert!(ring.len() <= 122);
        }
    }
}

#[test]
fn the_last_seconds_are_listed_oldest_first() {
    let mut ring = Ring::default();
    assert_eq!(ring.seconds(30), [] as [f32; 0]);
    for second in 0..=40 {
        // Two samples this close are not a second.
        for at in [second * SECOND, second * SECOND + 300 * MS].into_iter().filter(|at| *at <= 40 * SECOND) {
            ring.push(sample(at, total_us(at, 37 * SECOND, 38 * SECOND + SECOND / 2)));
        }
    }
    assert_eq!(ring.seconds(5), [0.0, 0.0, 100.0, 50.0, 0.0]);
    assert_eq!(ring.seconds(1000).len(), 40);
    // A sampler delayed by three seconds: one interval.
    ring.push(sample(43 * SECOND, total_us(43 * SECOND, 37 * SECOND, 38 * SECOND + SECOND / 2)));
    assert_eq!(ring.seconds(4), [100.0, 50.0, 0.0, 0.0]);
}
