//! The probe's legs over a window, from its metrics. Pure. A leg is only clean when it was looked
//! at before and after the close, and its echoes were counted: a number that Prometheus repeats is
//! no look.

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

/// Scrapes further apart than this leave a gap, in seconds.
const GAP: f64 = 90.0;
/// The bucket of answers that were not slow, in seconds: t3-probe's own default.
const SLOW: f64 = 1.0;

/// What the queries gave.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub connected: Vec<Series>,
    pub scraped: Vec<Series>,
    pub disconnects: Vec<Series>,
    pub rtt: Vec<Series>,
}

/// The legs, by name, and whether they were looked at since the close.
pub(super) fn legs(samples: &Samples, closed_ms: i64) -> (Vec<Leg>, bool) {
    let names: BTreeSet<&str> = samples.connected.iter().map(|series| series.label("leg")).collect();
    let mut since = true;
    let mut legs = Vec::new();
    for name in names {
        // `t3serve:ann` is a serve, too.
        let Some(way) = name.split(':').next().and_then(|way| way.parse::<Way>().ok()) else { continue };
        let leg = One { name, samples, closed: seconds(closed_ms) };
        since &= leg.last_look().is_some_and(|last| last >= leg.closed);
        legs.push(Leg { name: safe(name), way, state: leg.state() });
    }
    (legs, since)
}

struct One<'a> {
    name: &'a str,
    samples: &'a Samples,
    closed: f64,
}

impl<'a> One<'a> {
    fn of(&self, all: &'a [Series]) -> impl Iterator<Item = &'a Series> {
        let name = self.name.to_owned();
        all.iter().filter(move |series| series.label("leg") == name)
    }

    /// Trouble is trouble however little was seen; well-being has to be seen whole.
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
        if counted > 0.0 && self.looked_at() { State::Clean } else { State::Unseen }
    }

    /// When the leg was scraped, in seconds since the epoch.
    fn looks(&self) -> Vec<f64> {
        let mut looks: Vec<f64> = self
            .of(&self.samples.scraped)
            .flat_map(|series| series.points.iter().map(|(_, at)| *at))
            .collect();
        looks.sort_by(f64::total_cmp);
        looks.dedup();
        looks
    }

    fn last_look(&self) -> Option<f64> {
        self.looks().last().copied()
    }

    /// Before the close, after it, and without a gap in between.
    fn looked_at(&self) -> bool {
        let looks = self.looks();
        let around = looks.first().is_some_and(|first| *first <= self.closed)
            && looks.last().is_some_and(|last| *last >= self.closed);
        around && looks.windows(2).all(|pair| matches!(pair, [a, b] if b - a <= GAP))
    }

    /// How much counters with such a bound grew; those without a bound have none to ask for.
    fn grew(&self, all: &'a [Series], bound: impl Fn(f64) -> bool) -> f64 {
        let bounded =
            |series: &&Series| series.label("le").is_empty() || series.label("le").parse().is_ok_and(&bound);
        let began = self
            .of(&self.samples.connected)
            .filter_map(|series| series.points.first())
            .map(|(at, _)| *at)
            .min();
        // A counter comes into being with its first event: one that appears in the window has grown
        // by all it shows.
        let grown = |series: &Series| {
            let appeared =
                series.points.first().zip(began).is_some_and(|(first, began)| first.0 > began + STEP * 1500);
            let first = series.points.first().filter(|_| appeared).map_or(0.0, |(_, value)| *value);
            let steps = series.points.windows(2).map(|pair| match pair {
                [(_, a), (_, b)] if b >= a => b - a,
                // The process started again, and with it the counter.
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

/// For a line of the outcome: how many samples there were.
pub(super) fn count(samples: &Samples) -> usize {
    let all = [&samples.connected, &samples.disconnects, &samples.rtt];
    all.into_iter().flatten().map(|series| series.points.len()).sum()
}

/// Splits the answers as [`QUERIES`] orders them.
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

    /// One leg that is well: looked at each half minute, an echo counted each time, all of them
    /// fast.
    fn well(leg: &str) -> Samples {
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
    fn a_leg_s_state_follows_from_its_numbers() {
        use State::{Clean, Down, Slow, Unseen};
        type Change = fn(&mut Samples);
        for (name, change, expected) in [
            ("well", (|_| {}) as Change, (Clean, true)),
            ("down at one scrape", |s| s.connected[0].points[3].1 = 0.0, (Down, true)),
            ("died between two scrapes", |s| s.disconnects[0].points[4].1 = 4.0, (Down, true)),
            ("died as never before", |s| drop(s.disconnects[0].points.drain(..3)), (Down, true)),
            ("deaths of before do not count", |s| s.disconnects.clear(), (Clean, true)),
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
                "Prometheus repeats a number",
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
                "a gap hides no death",
                |s| {
                    s.scraped[0].points.drain(1..4);
                    s.connected[0].points[1].1 = 0.0;
                },
                (Down, true),
            ),
        ] {
            let mut samples = well("cloudflare");
            change(&mut samples);
            assert_eq!(state(&samples), expected, "{name}");
        }
    }

    #[test]
    fn a_counter_that_starts_again_is_not_a_negative_number_of_deaths() {
        let mut samples = well("internal");
        samples.disconnects[0].points[2..].iter_mut().for_each(|point| point.1 = 0.0);
        assert_eq!(state(&samples).0, State::Clean);
        samples.disconnects[0].points[3].1 = 1.0;
        assert_eq!(state(&samples).0, State::Down);
    }

    #[test]
    fn names_tell_the_way_and_strange_ones_are_no_legs() {
        for (name, way) in [
            ("cloudflare", Some(Way::Cloudflare)),
            ("internal", Some(Way::Internal)),
            ("t3serve", Some(Way::Serve)),
            ("t3serve:ann", Some(Way::Serve)),
            ("", None),
            ("other", None),
        ] {
            let found: Vec<_> = legs(&well(name), CLOSED).0.into_iter().map(|leg| leg.way).collect();
            assert_eq!(found, Vec::from_iter(way), "{name}");
        }
        assert!(legs(&Samples::default(), CLOSED).0.is_empty());
    }
}
