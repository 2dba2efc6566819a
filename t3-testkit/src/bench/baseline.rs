//! Committed numbers, and their comparison with a run. Pure, but for the file.
//!
//! Absolute times of two machines cannot be compared. Committed are ratios to other programs of the
//! same run, and system calls per unit of work.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    contestant::Contestant,
    metric::{Metric, Workload},
    report::{Calls, Machine, Ratio, Report},
    stats::{Better, Spread},
};
use crate::error::{Attempt, Result};

/// A smaller change of a median is not reported as one.
const TOLERANCE: f64 = 0.05;
/// A smaller change of the system calls per unit of work is not reported.
const CALLS_TOLERANCE: f64 = 0.2;

/// Committed numbers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Baseline {
    pub machine: Machine,
    pub rounds: usize,
    pub ratios: Vec<Ratio>,
    pub calls: Vec<CallCount>,
}

/// System calls of t3-dispatch per unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CallCount {
    pub workload: Workload,
    pub contestant: Contestant,
    pub total: f64,
}

/// Direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    Better,
    Same,
    Worse,
}

/// A ratio of this run, and the committed one.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub metric: Metric,
    pub contestant: Contestant,
    pub to: Contestant,
    pub now: Spread,
    pub then: Spread,
    pub trend: Trend,
}

/// System calls of this run, and the committed ones.
#[derive(Debug, Clone, PartialEq)]
pub struct CallChange {
    pub workload: Workload,
    pub contestant: Contestant,
    pub now: f64,
    pub then: f64,
    pub trend: Trend,
}

impl Baseline {
    /// The numbers of a report that are committed.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let own = report.calls.iter().filter(|calls| calls.contestant.is_ours());
        Self {
            machine: report.machine.clone(),
            rounds: report.rounds,
            ratios: report.ratios.clone(),
            calls: own.map(CallCount::of).collect(),
        }
    }

    /// Reads the file; `None` without one.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => {
                let text = text.attempt(|| format!("read {}", path.display()))?;
                serde_json::from_str(&text).map(Some).attempt(|| format!("read {}", path.display()))
            }
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let what = || format!("write {}", path.display());
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).attempt(what)?;
        }
        fs::write(path, text + "\n").attempt(what)
    }
}

impl CallCount {
    fn of(calls: &Calls) -> Self {
        Self { workload: calls.workload, contestant: calls.contestant, total: calls.total }
    }
}

/// Ratios that are in both.
#[must_use]
pub fn changes(now: &[Ratio], then: &[Ratio]) -> Vec<Change> {
    let change = |now: &Ratio| {
        let same =
            |then: &&Ratio| (then.metric, then.contestant, then.to) == (now.metric, now.contestant, now.to);
        let then = then.iter().find(same)?.spread;
        let trend = trend(now.metric.better(), &now.spread, &then);
        Some(Change {
            metric: now.metric,
            contestant: now.contestant,
            to: now.to,
            now: now.spread,
            then,
            trend,
        })
    };
    now.iter().filter_map(change).collect()
}

/// System calls that are in both.
#[must_use]
pub fn call_changes(now: &[Calls], then: &[CallCount]) -> Vec<CallChange> {
    let change = |now: &Calls| {
        let same = |then: &&CallCount| (then.workload, then.contestant) == (now.workload, now.contestant);
        let (then, now, workload, contestant) =
            (then.iter().find(same)?.total, now.total, now.workload, now.contestant);
        let differs = (now - then).abs() > CALLS_TOLERANCE.max(then * TOLERANCE);
        let trend = match differs {
            false => Trend::Same,
            true if now > then => Trend::Worse,
            true => Trend::Better,
        };
        Some(CallChange { workload, contestant, now, then, trend })
    };
    now.iter().filter_map(change).collect()
}

/// A change counts if the medians differ by more than the tolerance, and no round of this run
/// reaches the committed median.
fn trend(better: Better, now: &Spread, then: &Spread) -> Trend {
    if (now.median / then.median - 1.0).abs() <= TOLERANCE {
        return Trend::Same;
    }
    if !better.reaches(now.best(better), then.median) {
        return Trend::Worse;
    }
    let is_better = better.reaches(now.worst(better), then.median);
    if is_better { Trend::Better } else { Trend::Same }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contestant::Contestant::{Dispatch, DispatchStored, Haproxy, Nginx};
    use std::collections::BTreeMap;

    fn of(min: f64, median: f64, max: f64) -> Spread {
        Spread { median, min, max }
    }

    fn ratio(metric: Metric, contestant: Contestant, to: Contestant, spread: Spread) -> Ratio {
        Ratio { metric, contestant, to, spread }
    }

    #[test]
    fn a_trend_needs_a_difference_above_the_noise() {
        let then = of(0.95, 1.0, 1.05);
        for (better, now, expected) in [
            (Better::Lower, of(0.98, 1.04, 1.06), Trend::Same),
            (Better::Lower, of(0.99, 1.20, 1.30), Trend::Same),
            (Better::Lower, of(1.06, 1.10, 1.30), Trend::Worse),
            (Better::Lower, of(0.80, 0.90, 1.01), Trend::Same),
            (Better::Lower, of(0.80, 0.90, 0.95), Trend::Better),
            (Better::Higher, of(0.80, 0.90, 0.95), Trend::Worse),
            (Better::Higher, of(0.80, 0.90, 1.01), Trend::Same),
            (Better::Higher, of(1.06, 1.10, 1.30), Trend::Better),
        ] {
            assert_eq!(trend(better, &now, &then), expected, "{better:?} {now:?}");
        }
    }

    #[test]
    fn only_equal_pairs_are_compared() {
        let (low, high) = (of(0.9, 0.9, 0.9), of(1.2, 1.2, 1.2));
        let then = [
            ratio(Metric::EchoCpu, Dispatch, Nginx, low),
            ratio(Metric::EchoCpu, Dispatch, Haproxy, low),
            ratio(Metric::BulkCpu, Dispatch, Nginx, low),
        ];
        let now = [
            ratio(Metric::EchoCpu, Dispatch, Nginx, high),
            ratio(Metric::EchoCpu, DispatchStored, Nginx, high),
            ratio(Metric::SingleCpu, Dispatch, Nginx, high),
        ];
        let got: Vec<_> = changes(&now, &then)
            .into_iter()
            .map(|one| (one.metric, one.contestant, one.to, one.then, one.trend))
            .collect();
        assert_eq!(got, [(Metric::EchoCpu, Dispatch, Nginx, low, Trend::Worse)]);
    }

    #[test]
    fn system_calls_are_compared_by_number() {
        let calls = |total| Calls {
            workload: Workload::Echo,
            title: String::new(),
            unit: String::new(),
            contestant: Dispatch,
            total,
            by_name: BTreeMap::new(),
        };
        let count = |total| CallCount { workload: Workload::Echo, contestant: Dispatch, total };
        for (now, then, expected) in [
            (4.6, 4.62, Trend::Same),
            (4.8, 4.5, Trend::Worse),
            (4.2, 4.62, Trend::Better),
            (61.0, 62.5, Trend::Same),
            (70.0, 62.5, Trend::Worse),
        ] {
            let got = call_changes(&[calls(now)], &[count(then)]);
            assert_eq!(got.iter().map(|one| one.trend).collect::<Vec<_>>(), [expected], "{now} {then}");
        }
        let other = CallCount { contestant: DispatchStored, ..count(1.0) };
        assert!(call_changes(&[calls(1.0)], &[other]).is_empty());
    }

    #[test]
    fn a_missing_file_is_not_an_error_but_a_wrong_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        assert!(Baseline::read(&path).unwrap().is_none());
        fs::write(&path, "{}").unwrap();
        assert!(Baseline::read(&path).is_err());
    }
}
