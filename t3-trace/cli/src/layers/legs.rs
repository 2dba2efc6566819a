//! State of the probe legs in a window, from the probe's metrics. Pure.
//!
//! A leg is clean only if it was scraped before and after the close and its echoes were counted;
//! samples that Prometheus repeats do not count as scrapes.

use std::collections::BTreeSet;

use t3_record::probe::{Leg, State, Way};

use super::prometheus::{STEP, Series};
use crate::present::text::safe;

/// The queries, in the order of [`Samples`].
pub(super) const QUERIES: [&str; 4] = [
    "t3probe_connected",
    "timestamp(t3probe_connected)",
    "t3probe_disconnects_total",
    "t3probe_rtt_seconds_bucket",
];

/// Longest time between two scrapes without a gap, in seconds.
const GAP: f64 = 90.0;
/// Bucket of echoes that are not slow, in seconds: the default of t3-probe.
const SLOW: f64 = 1.0;

/// Results of the queries.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub connected: Vec<Series>,
    pub scraped: Vec<Series>,
    pub disconnects: Vec<Series>,
    pub rtt: Vec<Series>,
}

/// Returns the legs by name, and whether all were scraped since the close.
pub(super) fn legs(samples: &Samples, closed_ms: i64) -> (Vec<Leg>, bool) {
    let names: BTreeSet<&str> = samples.connected.iter().map(|series| series.label("leg")).collect();
    let mut since = true;
    let mut legs = Vec::new();
    for name in names {
        // `t3serve:ann` is also a serve leg.
        let Some(way) = name.split(':').next().and_then(|way| way.parse::<Way>().ok()) else { continue };
        let leg = LegSamples { name, samples, closed: seconds(closed_ms) };
        since &= leg.last_scrape().is_some_and(|last| last >= leg.closed);
        legs.push(Leg { name: safe(name), way, state: leg.state(), fault: None });
    }
    (legs, since)
}

struct LegSamples<'a> {
    name: &'a str,
    samples: &'a Samples,
    closed: f64,
}

impl<'a> LegSamples<'a> {
    fn of(&self, all: &'a [Series]) -> impl Iterator<Item = &'a Series> {
        let name = self.name.to_owned();
        all.iter().filter(move |series| series.label("leg") == name)
    }

    /// One bad sample is enough for `Down` or `Slow`; `Clean` needs complete data.
    fn state(&self) -> State {
        let down =
            self.of(&self.samples.connected).any(|series| series.points.iter().any(|(_, up)| *up == 0.0));
        if down || self.grew(&self.samples.disconnects, |_| true) > 0.0 {
            return State::Down;
        }
        let counted = self.grew(&self.samples.rtt, |le| le == f64::INFINITY);
        if counted > self.grew(&self.samples.rtt, |le| le == SLOW) {
            return State::Slow;
        }
        if counted > 0.0 && self.is_covered() { State::Clean } else { State::Unseen }
    }

    /// Times of the scrapes in seconds since the epoch.
    fn scrapes(&self) -> Vec<f64> {
        let mut scrapes: Vec<f64> = self
            .of(&self.samples.scraped)
            .flat_map(|series| series.points.iter().map(|(_, at)| *at))
            .collect();
        scrapes.sort_by(f64::total_cmp);
        scrapes.dedup();
        scrapes
    }

    fn last_scrape(&self) -> Option<f64> {
        self.scrapes().last().copied()
    }

    /// Whether it was scraped before and after the close, without a gap.
    fn is_covered(&self) -> bool {
        let scrapes = self.scrapes();
        let around = scrapes.first().is_some_and(|first| *first <= self.closed)
            && scrapes.last().is_some_and(|last| *last >= self.closed);
        around && scrapes.windows(2).all(|pair| matches!(pair, [a, b] if b - a <= GAP))
    }

    /// Increase of the counters whose bucket bound matches; counters without a bound always match.
    fn grew(&self, all: &'a [Series], bound: impl Fn(f64) -> bool) -> f64 {
        let bounded =
            |series: &&Series| series.label("le").is_empty() || series.label("le").parse().is_ok_and(&bound);
        let began = self
            .of(&self.samples.connected)
            .filter_map(|series| series.points.first())
            .map(|(at, _)| *at)
            .min();
        // A counter is created by its first event: if it appears in the window, its first value
        // counts as increase.
        let grown = |series: &Series| {
            let appeared =
                series.points.first().zip(began).is_some_and(|(first, began)| first.0 > began + STEP * 1500);
            let first = series.points.first().filter(|_| appeared).map_or(0.0, |(_, value)| *value);
            let steps = series.points.windows(2).map(|pair| match pair {
                [(_, a), (_, b)] if b >= a => b - a,
                // The process restarted, and the counter with it.
                [_, (_, b)] => *b,
                _ => 0.0,
            });
            first + steps.sum::<f64>()
        };
        self.of(all).filter(bounded).map(grown).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch fit")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// Number of samples, for the outcome.
pub(super) fn count(samples: &Samples) -> usize {
    let all = [&samples.connected, &samples.disconnects, &samples.rtt];
    all.into_iter().flatten().map(|series| series.points.len()).sum()
}

/// Assigns the responses in the order of [`QUERIES`].
pub(super) fn samples(answers: Vec<Vec<Series>>) -> Samples {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    Samples { connected: next(), scraped: next(), disconnects: next(), rtt: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: i64 = 1_000_000_000;

    fn series(labels: &[(&str, &str)], points: &[(i64, f64)]) -> Series {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Series {
            labels,
            points: points.iter().map(|(after, value)| (CLOSED + after * 1000, *value)).collect(),
        }
    }

    /// A healthy leg: scraped every 30 s, each time with fast echoes.
    fn healthy(leg: &str) -> Samples {
        let times = [-60, -30, 0, 30, 60];
        let points = |value: fn(f64) -> f64| {
            times.map(|at| (at, value(f64::from(i32::try_from(at).unwrap())))).to_vec()
        };
        let of =
            |more: &[(&str, &str)], points: &[(i64, f64)]| series(&[&[("leg", leg)], more].concat(), points);
        Samples {
            connected: vec![of(&[], &points(|_| 1.0))],
            scraped: vec![of(&[], &points(|at| 1_000_000.0 + at))],
            disconnects: vec![of(&[("reason", "rtt_timeout")], &points(|_| 3.0))],
            rtt: vec![
                of(&[("le", "0.05")], &points(|_| 0.0)),
                of(&[("le", "1")], &points(|at| 100.0 + at / 10.0)),
                of(&[("le", "+Inf")], &points(|at| 150.0 + at / 10.0)),
            ],
        }
    }

    fn state(samples: &Samples) -> (State, bool) {
        let (legs, since) = legs(samples, CLOSED);
        assert_eq!(legs.len(), 1);
        (legs[0].state, since)
    }

    #[test]
    fn the_state_of_a_leg_follows_from_its_samples() {
        use State::{Clean, Down, Slow, Unseen};
        type Change = fn(&mut Samples);
        for (name, change, expected) in [
            ("healthy", (|_| {}) as Change, (Clean, true)),
            ("down at one scrape", |s| s.connected[0].points[3].1 = 0.0, (Down, true)),
            ("disconnected between two scrapes", |s| s.disconnects[0].points[4].1 = 4.0, (Down, true)),
            ("first disconnect", |s| drop(s.disconnects[0].points.drain(..3)), (Down, true)),
            ("earlier disconnects do not count", |s| s.disconnects.clear(), (Clean, true)),
            ("an echo was slow", |s| s.rtt[2].points[4].1 += 1.0, (Slow, true)),
            ("no echo was counted", |s| s.rtt.clear(), (Unseen, true)),
            (
                "not scraped since the close",
                |s| {
                    s.scraped[0].points.truncate(2);
                },
                (Unseen, false),
            ),
            (
                "Prometheus repeats a sample",
                |s| {
                    for point in &mut s.scraped[0].points {
                        point.1 = point.1.min(999_970.0);
                    }
                },
                (Unseen, false),
            ),
            ("not scraped before the close", |s| drop(s.scraped[0].points.drain(..3)), (Unseen, true)),
            ("a gap", |s| drop(s.scraped[0].points.drain(1..4)), (Unseen, true)),
            (
                "a gap does not hide a disconnect",
                |s| {
                    s.scraped[0].points.drain(1..4);
                    s.connected[0].points[1].1 = 0.0;
                },
                (Down, true),
            ),
        ] {
            let mut samples = healthy("cloudflare");
            change(&mut samples);
            assert_eq!(state(&samples), expected, "{name}");
        }
    }

    #[test]
    fn a_counter_reset_is_not_a_negative_increase() {
        let mut samples = healthy("internal");
        samples.disconnects[0].points[2..].iter_mut().for_each(|point| point.1 = 0.0);
        assert_eq!(state(&samples).0, State::Clean);
        samples.disconnects[0].points[3].1 = 1.0;
        assert_eq!(state(&samples).0, State::Down);
    }

    #[test]
    fn the_name_of_a_leg_has_its_path_and_unknown_names_are_ignored() {
        for (name, way) in [
            ("cloudflare", Some(Way::Cloudflare)),
            ("internal", Some(Way::Internal)),
            ("t3serve", Some(Way::Serve)),
            ("t3serve:ann", Some(Way::Serve)),
            ("", None),
            ("other", None),
        ] {
            let found: Vec<_> = legs(&healthy(name), CLOSED).0.into_iter().map(|leg| leg.way).collect();
            assert_eq!(found, Vec::from_iter(way), "{name}");
        }
        assert!(legs(&Samples::default(), CLOSED).0.is_empty());
    }
}
