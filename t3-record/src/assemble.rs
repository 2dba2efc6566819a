//! From evidence to the record: judges, then lays every known value out under its key. Formats nothing.

use crate::{evidence::Evidence, record::CloseRecord, verdict::judge, wire::Session};

/// The record of one session's end.
#[must_use]
pub fn assemble(session: &Session, evidence: &Evidence) -> CloseRecord {
    let judgement = judge(evidence);
    CloseRecord::new(
        session.user.clone(),
        session.ip.clone(),
        0,
        judgement.cause,
        judgement.verdict,
        judgement.segment,
        session.conn.clone(),
        evidence.kernel.source,
    )
}
