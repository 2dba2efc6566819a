//! Records of one ending, by connection. A record of one connection is one leg; one that has both
//! connections of a proxy is split here into its two legs.

use t3_record::{ClosedBy, Confidence, How, TcpCloseRecord, Verdict};

/// What a record says about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    pub verdict: Verdict,
    /// Mechanism; empty without one.
    pub how: String,
    pub closed_by: Option<ClosedBy>,
    pub confidence: Option<Confidence>,
    pub peer_comm: Option<String>,
    /// `down_end` and `up_end`.
    pub ends: String,
    /// The record.
    pub line: String,
}

impl Leg {
    fn of(record: &TcpCloseRecord) -> Self {
        let end = |end: Option<t3_record::LegEnd>| end.map_or("-", |end| end.as_str());
        Self {
            verdict: record.verdict,
            how: record.how.as_ref().map(How::to_string).unwrap_or_default(),
            closed_by: record.closed_by,
            confidence: record.confidence,
            peer_comm: record.peer_comm.clone(),
            ends: format!("{}/{}", end(record.down_end), end(record.up_end)),
            line: record.to_line(),
        }
    }
}

/// The legs of a record, each with its port.
#[must_use]
pub fn legs(record: &TcpCloseRecord) -> Vec<(u16, Leg)> {
    vec![(record.port, Leg::of(record))]
}
