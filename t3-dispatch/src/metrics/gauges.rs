//! Snapshot of values that other folders keep, read when the metrics page is rendered.

use std::time::Duration;

use t3_record::wire::JournalState;

use super::{labels::Limit, reject_reason::RejectReason};

/// Age at which a session of t3 has a recognised heartbeat: t3 pings every 5 s, and the period is
/// known after four pings.
pub const HEARTBEAT_DUE: Duration = Duration::from_secs(30);

/// State of this process at the time of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub records_written: u64,
    pub records_dropped: u64,
    pub records_rejected: u64,
    pub records_waiting: u64,
    /// Worst delay of the event loop in the last 30 s, in nanoseconds.
    pub worst_lag: Option<u64>,
    /// The evidence socket is connected.
    pub evidence_connected: bool,
    /// Records compared with the journal, as the connected t3-trace last reported.
    pub journal: Option<JournalState>,
    /// Sessions older than [`HEARTBEAT_DUE`] without a recognised heartbeat.
    pub without_heartbeat: usize,
    /// Open HTTP connections, and how many of them are of untrusted peers.
    pub connections: (usize, usize),
    /// Requests of users in flight.
    pub requests: usize,
    /// Open probes.
    pub probes: usize,
    /// Log lines suppressed by the log budget.
    pub lines_suppressed: u64,
    pub limits: [u64; Limit::COUNT],
    /// Logins in the routing table.
    pub logins: usize,
    /// Rejections per reason, indexed by [`RejectReason`].
    pub rejections: [u64; RejectReason::ALL.len()],
}
