//! Measurements as data, for `--json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    contestant::Contestant,
    cpus::Cpus,
    meter::Memory,
    metric::{Metric, Workload},
    stats::Spread,
};

/// Result of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Whether it was a small run, whose numbers mean little.
    pub quick: bool,
    pub machine: Machine,
    /// Number of rounds of each workload.
    pub rounds: usize,
    /// Values of all contestants.
    pub rows: Vec<Row>,
    /// Ratios of t3-dispatch to the others.
    pub ratios: Vec<Ratio>,
    /// System calls per unit of work.
    pub calls: Vec<Calls>,
    /// Memory of idle sessions in detail.
    pub idle: Vec<Idle>,
    /// Missing measurements, with the reasons.
    pub notes: Vec<String>,
}

/// The host, on which absolute numbers depend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Number of processors that this process may use.
    pub cores: usize,
    /// Model name of the first processor.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// Names and versions of the peers.
    pub peers: Vec<String>,
    pub cpus: Cpus,
}

/// One metric of all contestants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub metric: Metric,
    /// Name of the workload.
    pub title: String,
    pub unit: String,
    pub cells: Vec<Cell>,
}

/// One metric of one contestant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    pub contestant: Contestant,
    /// One per round, in their order.
    pub values: Vec<f64>,
    pub spread: Spread,
}

/// Ratio of two contestants, within each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub metric: Metric,
    pub contestant: Contestant,
    pub to: Contestant,
    pub spread: Spread,
}

/// System calls of one contestant per unit of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    pub workload: Workload,
    /// Name of the workload.
    pub title: String,
    /// Unit of work.
    pub unit: String,
    pub contestant: Contestant,
    pub total: f64,
    pub by_name: BTreeMap<String, f64>,
}

/// Cost of idle sessions. A time is CPU time of the proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Idle {
    pub contestant: Contestant,
    /// Number of sessions.
    pub sessions: usize,
    /// Number of threads of the proxy.
    pub threads: usize,
    /// Memory after one session has opened and closed.
    pub before: Memory,
    /// Memory with all sessions open, each after one heartbeat.
    pub with: Memory,
    /// Memory after all have ended.
    pub after: Memory,
    /// Proportional memory per session.
    pub pss_kib: f64,
    /// Resident memory per session.
    pub rss_kib: f64,
    /// CPU milliseconds per second while all sessions are idle.
    pub idle_ms_per_s: f64,
}

impl Row {
    #[must_use]
    pub fn cell(&self, contestant: Contestant) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.contestant == contestant)
    }
}
