//! Ratios of t3-dispatch to the other contestants, and its goals. Pure.

use super::{
    metric::Goal,
    report::{Ratio, Row},
    stats::{Spread, best_of, ratios, spread},
};
use crate::bench::contestant::Contestant;

/// Ratios of t3-dispatch to every other contestant.
#[must_use]
pub fn all(rows: &[Row]) -> Vec<Ratio> {
    let mut all = Vec::new();
    for row in rows {
        for own in row.cells.iter().filter(|cell| cell.contestant.is_ours()) {
            for other in row.cells.iter().filter(|cell| !cell.contestant.is_ours()) {
                if let Some(spread) = ratios(&own.values, &other.values) {
                    let (contestant, to) = (own.contestant, other.contestant);
                    all.push(Ratio { metric: row.metric, contestant, to, spread });
                }
            }
        }
    }
    all
}

/// State of a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoalState {
    /// The ratio or the value that the goal limits.
    pub spread: Spread,
    pub limit: f64,
    pub is_met: bool,
}

/// State of the goal of a row for one contestant; `None` if its reference was not measured.
#[must_use]
pub fn goal(row: &Row, contestant: Contestant) -> Option<GoalState> {
    let better = row.metric.better();
    let own = row.cell(contestant)?;
    let (spread, limit) = match row.metric.goal() {
        Goal::To(other, limit) => (ratios(&own.values, &row.cell(other)?.values)?, limit),
        Goal::ToBest(limit) => {
            let peers = row.cells.iter().filter(|cell| cell.contestant.is_peer());
            let best = best_of(better, peers.map(|cell| cell.values.as_slice()));
            (ratios(&own.values, &best)?, limit)
        }
        Goal::Value(limit) => (spread(own.values.iter().copied())?, limit),
    };
    Some(GoalState { spread, limit, is_met: better.reaches(spread.median, limit) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        contestant::Contestant::{Dispatch, DispatchStored, Floor, Haproxy, HaproxyLarge, Nginx},
        metric::Metric,
        report::Cell,
    };

    fn row(metric: Metric, cells: &[(Contestant, &[f64])]) -> Row {
        let cell = |(contestant, values): &(Contestant, &[f64])| Cell {
            contestant: *contestant,
            values: values.to_vec(),
            spread: spread(values.iter().copied()).unwrap(),
        };
        Row { metric, title: String::new(), unit: String::new(), cells: cells.iter().map(cell).collect() }
    }

    #[test]
    fn each_of_ours_is_compared_with_each_other_contestant() {
        let row = row(
            Metric::EchoCpu,
            &[
                (Nginx, &[2.0, 4.0]),
                (Dispatch, &[1.0, 3.0]),
                (DispatchStored, &[2.0, 2.0]),
                (Floor, &[1.0, 1.0]),
            ],
        );
        let got: Vec<_> = all(&[row])
            .into_iter()
            .map(|one| (one.contestant, one.to, one.spread.median, one.spread.max))
            .collect();
        let expected = [
            (Dispatch, Nginx, 0.5, 0.75),
            (Dispatch, Floor, 1.0, 3.0),
            (DispatchStored, Nginx, 0.5, 1.0),
            (DispatchStored, Floor, 2.0, 2.0),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_goal_is_met_by_the_median_of_the_ratios() {
        type Cells = &'static [(Contestant, &'static [f64])];
        type Case = (Metric, Cells, Option<(f64, bool)>);
        let table: [Case; 8] = [
            (Metric::EchoCpu, &[(Nginx, &[10.0]), (Dispatch, &[9.0])], Some((0.9, true))),
            (Metric::EchoCpu, &[(Nginx, &[10.0]), (Dispatch, &[9.5])], Some((0.95, false))),
            (Metric::EchoRate, &[(Nginx, &[10.0]), (Dispatch, &[10.0])], Some((1.0, false))),
            (Metric::EchoRate, &[(Nginx, &[10.0]), (Dispatch, &[11.0])], Some((1.1, true))),
            // The best peer changes from round to round; the floor is not a peer.
            (
                Metric::BulkCpu,
                &[
                    (Haproxy, &[4.0, 8.0, 4.0]),
                    (HaproxyLarge, &[8.0, 4.0, 8.0]),
                    (Floor, &[1.0, 1.0, 1.0]),
                    (Dispatch, &[2.0, 3.0, 4.0]),
                ],
                Some((0.75, true)),
            ),
            (Metric::CycleCpu, &[(Nginx, &[1.0]), (Dispatch, &[1.0])], None),
            (Metric::BulkCpu, &[(Floor, &[1.0]), (Dispatch, &[1.0])], None),
            (Metric::IdlePss, &[(Dispatch, &[3.6])], Some((3.6, false))),
        ];
        for (metric, cells, expected) in table {
            let state = goal(&row(metric, cells), Dispatch).map(|state| (state.spread.median, state.is_met));
            assert_eq!(state, expected, "{metric:?} {cells:?}");
        }
    }
}
