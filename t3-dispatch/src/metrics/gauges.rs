//! Snapshot of values that other folders keep, read when the metrics page is rendered.

use super::reject_reason::RejectReason;

/// State of this process at the time of a scrape.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub records_written: u64,
    pub records_dropped: u64,
    pub records_waiting: u64,
    /// Worst delay of the event loop in the last 30 s, in nanoseconds.
    pub worst_lag: Option<u64>,
    /// The evidence socket is connected.
    pub evidence_connected: bool,
    /// Logins in the routing table.
    pub logins: usize,
    /// Rejections per reason, indexed by [`RejectReason`].
    pub rejections: [u64; RejectReason::ALL.len()],
}
