//! Thresholds at which pressure explains a stall; applied only after other evidence shows a stall.
//!
//! PSI is the share of time in which tasks waited, not its cause, so the thresholds are set where a
//! watchdog of 5 to 20 s could not be met.

use crate::evidence::{KernelFacts, Pressure, Stall};

/// Resource whose pressure explains a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starved {
    /// Memory: reclaim, `memory.high` throttling, refaults.
    Memory,
    /// IO.
    Io,
    /// CPU: throttled by its cgroup, or contention on the host.
    Cpu,
}

/// A row of the table.
struct Threshold {
    resource: Starved,
    pick: fn(&Pressure) -> Option<Stall>,
    /// PSI some of serve's cgroup over the last 10 s or 30 s, in percent.
    cgroup_some: f32,
    /// PSI full of the host over the last 10 s, in percent.
    host_full: f32,
}

/// Thresholds with their reasons; also in docs/VERDICTS.md.
const TABLE: [Threshold; 3] = [
    // Healthy work has no memory stalls: 20% of the time in reclaim means waits of seconds for
    // single allocations. Throttling at memory.high gives 90 and more.
    Threshold { resource: Starved::Memory, pick: |p| p.mem, cgroup_some: 20.0, host_full: 10.0 },
    // A build or an index run gives 30 to 50 while serve still answers; an event loop that waits
    // for a disk half of the time does not.
    Threshold { resource: Starved::Io, pick: |p| p.io, cgroup_some: 50.0, host_full: 30.0 },
    // Two busy neighbours on one core give 50 to 66 and slow serve down to a third; at 80 it runs
    // 20% of the time. A serve that uses the CPU itself does not wait for it and stays far below.
    Threshold { resource: Starved::Cpu, pick: |p| p.cpu, cgroup_some: 80.0, host_full: 80.0 },
];

/// Returns the resource under pressure in serve's cgroup or on the host; the first matching row.
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

/// Thresholds of PSI some of serve's cgroup, in percent: memory, IO, CPU.
#[must_use]
pub fn limits() -> [f32; 3] {
    TABLE.map(|row| row.cgroup_some)
}
