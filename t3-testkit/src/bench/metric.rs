//! Rows of the benchmark: workloads, the metrics that each of them gives, units and goals. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{client::Seen, contestant::Contestant, stats::Better};

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Short messages and their replies over many connections.
    Echo,
    /// Short messages and their replies over one connection.
    Single,
    /// Short messages at a constant rate.
    Paced,
    /// Large frames from the backend.
    Bulk,
    /// Open, upgrade and close.
    Cycle,
    /// Idle sessions.
    Idle,
}

impl Workload {
    /// Unit of work of the CPU time and of the system calls.
    #[must_use]
    pub const fn unit_of_work(self) -> &'static str {
        match self {
            Self::Echo | Self::Single | Self::Paced => "round trip",
            Self::Bulk => "MiB",
            Self::Cycle => "cycle",
            Self::Idle => "session",
        }
    }
}

/// One number that is compared between contestants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    EchoCpu,
    EchoRate,
    SingleCpu,
    PacedCpu,
    PacedP99,
    BulkCpu,
    CycleCpu,
    IdlePss,
}

/// What t3-dispatch is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Median of the ratios to a contestant.
    To(Contestant, f64),
    /// Median of the ratios to the best peer of each round.
    ToBest(f64),
    /// Median of the values.
    Value(f64),
}

impl Metric {
    /// The workload that gives it.
    #[must_use]
    pub const fn workload(self) -> Workload {
        match self {
            Self::EchoCpu | Self::EchoRate => Workload::Echo,
            Self::SingleCpu => Workload::Single,
            Self::PacedCpu | Self::PacedP99 => Workload::Paced,
            Self::BulkCpu => Workload::Bulk,
            Self::CycleCpu => Workload::Cycle,
            Self::IdlePss => Workload::Idle,
        }
    }

    /// Unit in the tables.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::EchoCpu | Self::SingleCpu | Self::PacedCpu | Self::CycleCpu => "CPU µs",
            Self::EchoRate => "round trips/s",
            Self::PacedP99 => "p99 µs",
            Self::BulkCpu => "CPU ns/KiB",
            Self::IdlePss => "PSS KiB",
        }
    }

    #[must_use]
    pub const fn better(self) -> Better {
        match self {
            Self::EchoRate => Better::Higher,
            _ => Better::Lower,
        }
    }

    #[must_use]
    pub const fn goal(self) -> Goal {
        match self {
            Self::EchoCpu => Goal::To(Contestant::Nginx, 0.90),
            Self::EchoRate => Goal::To(Contestant::Nginx, 1.05),
            Self::SingleCpu | Self::PacedCpu => Goal::To(Contestant::Nginx, 0.95),
            Self::PacedP99 => Goal::ToBest(1.0),
            Self::BulkCpu => Goal::ToBest(0.90),
            Self::CycleCpu => Goal::To(Contestant::Haproxy, 1.1),
            Self::IdlePss => Goal::Value(3.5),
        }
    }
}

/// The metrics of one round: the client's result and the proxy's CPU time. `kib` is the payload of
/// a reply in KiB. An idle workload has no rounds.
#[must_use]
pub fn of_round(workload: Workload, seen: &Seen, cpu: Duration, kib: f64) -> Vec<(Metric, f64)> {
    let units = seen.messages as f64;
    let micros = cpu.as_secs_f64() * 1e6 / units;
    match workload {
        Workload::Echo => vec![(Metric::EchoCpu, micros), (Metric::EchoRate, units / seen.seconds)],
        Workload::Single => vec![(Metric::SingleCpu, micros)],
        Workload::Paced => vec![(Metric::PacedCpu, micros), (Metric::PacedP99, seen.p99_us)],
        Workload::Bulk => vec![(Metric::BulkCpu, micros * 1000.0 / kib)],
        Workload::Cycle => vec![(Metric::CycleCpu, micros)],
        Workload::Idle => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    const SEEN: Seen = Seen { messages: 1000, seconds: 0.5, p50_us: 10.0, p99_us: 40.0 };

    #[test]
    fn a_round_gives_the_metrics_of_its_workload() {
        use Metric::*;
        let cpu = Duration::from_millis(20);
        let table: [(Workload, &[(Metric, f64)]); 6] = [
            (Workload::Echo, &[(EchoCpu, 20.0), (EchoRate, 2000.0)]),
            (Workload::Single, &[(SingleCpu, 20.0)]),
            (Workload::Paced, &[(PacedCpu, 20.0), (PacedP99, 40.0)]),
            (Workload::Bulk, &[(BulkCpu, 312.5)]),
            (Workload::Cycle, &[(CycleCpu, 20.0)]),
            (Workload::Idle, &[]),
        ];
        for (workload, expected) in table {
            assert_eq!(of_round(workload, &SEEN, cpu, 64.0), expected, "{workload:?}");
        }
    }

    #[test]
    fn every_metric_comes_from_its_workload() {
        for metric in Metric::value_variants() {
            let given = of_round(metric.workload(), &SEEN, Duration::ZERO, 1.0);
            let idle = metric.workload() == Workload::Idle;
            assert!(idle || given.iter().any(|(one, _)| one == metric), "{metric:?}");
        }
    }
}
