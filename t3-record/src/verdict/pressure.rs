//! When pressure explains a stall. One table of thresholds; applied only after a stall has been
//! established on other evidence.
//!
//! PSI says how much of the time tasks waited, not who caused it, so the thresholds are set where a
//! browser's watchdog of 5 to 20 s could not have been met, not where a graph starts to look bad.

use crate::evidence::{KernelFacts, Pressure, Stall};

/// The resource that starved a stalled serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starved {
    /// Memory: reclaim, `memory.high` throttling, refaults.
    Memory,
    /// IO.
    Io,
    /// CPU: throttled by its cgroup or outnumbered on the machine.
    Cpu,
}

/// One row of the table.
struct Threshold {
    resource: Starved,
    pick: fn(&Pressure) -> Option<Stall>,
    /// Percent of the last 10 s, or of the last 30 s, in which some task of serve's cgroup stalled.
    cgroup_some: f32,
    /// Percent of the last 10 s in which all tasks of the whole machine stalled.
    host_full: f32,
}

/// The table, with the reason for each number. docs/VERDICTS.md repeats it.
const TABLE: [Threshold; 3] = [
    // Memory stalls are never part of healthy work: a fifth of the time in reclaim means
    // seconds-long waits for single allocations. Throttling at memory.high reads 90 and more.
    Threshold { resource: Starved::Memory, pick: |p| p.mem, cgroup_some: 20.0, host_full: 10.0 },
    // A build or an index run reads 30 to 50 while serve still answers; an event loop that waits
    // for a disk half of all the time does not.
    Threshold { resource: Starved::Io, pick: |p| p.io, cgroup_some: 50.0, host_full: 30.0 },
    // Two busy neighbours on one core read 50 to 66 and only slow serve down to a third; at 80 it
    // runs a fifth of the time. A serve that burns CPU itself does not stall on it and stays far
    // below.
    Threshold { resource: Starved::Cpu, pick: |p| p.cpu, cgroup_some: 80.0, host_full: 80.0 },
];

/// Whether serve's cgroup or the whole machine was starving, and of what. The first row that holds
/// wins.
#[must_use]
pub fn starved(kernel: &KernelFacts) -> Option<Starved> {
    TABLE.iter().find_map(|row| {
        let cgroup = kernel.pressure.as_ref().and_then(row.pick);
        let host = kernel.host.as_ref().and_then(row.pick);
        let in_cgroup = cgroup.is_some_and(|stall| stall.some.max(stall.some30) >= row.cgroup_some);
        let on_host = host.and_then(|stall| stall.full).is_some_and(|full| full >= row.host_full);
        (in_cgroup || on_host).then_some(row.resource)
    })
}

/// From how many percent of the time on in which some task of serve's cgroup stood still each
/// resource explains a stall: memory, IO, CPU.
#[must_use]
pub fn limits() -> [f32; 3] {
    TABLE.map(|row| row.cgroup_some)
}
