//! Record of a session whose t3-dispatch ended without writing one, from its `ws open`.

use jiff::Timestamp;

use crate::{
    how::How,
    record::CloseRecord,
    vocabulary::{Cause, ClosedBy, Confidence, KernelSource, Reconciled, Segment, Verdict},
};

/// Identity of an opened session without a record, as `ws open` has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct UnclosedSession {
    /// Session id.
    pub conn: String,
    /// OS user.
    pub user: String,
    /// Client address.
    pub ip: String,
    /// The `Cf-Ray` header.
    pub ray: Option<String>,
    /// Wall-clock time of the 101 in microseconds since the epoch.
    pub opened_us: u64,
}

/// How the session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnclosedEnd {
    /// t3-dispatch is gone, and the host still runs.
    DispatchDied,
    /// The host went down without a shutdown.
    PowerLoss,
    /// The host was shut down.
    Reboot,
}

/// Creates the record. `last_sign_us` is the last time at which t3-dispatch or its host was seen
/// alive, in microseconds since the epoch; the session lasted at least until then.
#[must_use]
pub fn reconcile(session: &UnclosedSession, end: UnclosedEnd, last_sign_us: Option<u64>) -> CloseRecord {
    let ended_us = last_sign_us.unwrap_or(session.opened_us).max(session.opened_us);
    let (verdict, segment, how) = match end {
        UnclosedEnd::DispatchDied => (Verdict::DispatchDied, Segment::Dispatch, How::ProxyGone),
        UnclosedEnd::PowerLoss => (Verdict::Unknown, Segment::Devvm, How::PowerLoss),
        UnclosedEnd::Reboot => (Verdict::Unknown, Segment::Devvm, How::Reboot),
    };
    let mut record = CloseRecord::new(
        session.user.clone(),
        session.ip.clone(),
        (ended_us - session.opened_us) / 1_000,
        Cause::DispatchClosed,
        verdict,
        segment,
        session.conn.clone(),
        KernelSource::Off,
    );
    record.how = Some(how);
    record.closed_by = Some(ClosedBy::Dispatch);
    record.confidence = Some(Confidence::Likely);
    record.ray.clone_from(&session.ray);
    mark(&mut record, Reconciled::Journal, ended_us);
    record
}

/// Marks a record that is written after the session had ended, at `ended_us` microseconds since the
/// epoch.
pub fn mark(record: &mut CloseRecord, origin: Reconciled, ended_us: u64) {
    record.reconciled = Some(origin);
    let at = i64::try_from(ended_us / 1_000).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    record.ended_at = at.map(|at| format!("{at:.3}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: u64 = 1_772_331_225_120_000;

    fn session() -> UnclosedSession {
        UnclosedSession {
            conn: "k3v9".into(),
            user: "wizard".into(),
            ip: "203.0.113.7".into(),
            ray: Some("8c1f-LHR".into()),
            opened_us: OPENED,
        }
    }

    #[test]
    fn a_reconciled_record_has_the_identity_of_the_open_and_is_never_proven() {
        for (end, last_sign, line) in [
            (
                UnclosedEnd::DispatchDied,
                Some(OPENED + 61_873_999),
                "ws close user=wizard ip=203.0.113.7 dur_ms=61873 cause=dispatch_closed \
                 verdict=dispatch_died segment=dispatch conn=k3v9 kernel=off how=proxy_gone \
                 closed_by=dispatch confidence=likely ray=8c1f-LHR reconciled=journal \
                 ended_at=2026-03-01T02:14:46.993Z",
            ),
            // A clock that was set back: not a negative duration.
            (
                UnclosedEnd::PowerLoss,
                Some(OPENED - 5_000_000),
                "ws close user=wizard ip=203.0.113.7 dur_ms=0 cause=dispatch_closed verdict=unknown \
                 segment=devvm conn=k3v9 kernel=off how=power_loss closed_by=dispatch \
                 confidence=likely ray=8c1f-LHR reconciled=journal ended_at=2026-03-01T02:13:45.120Z",
            ),
            (
                UnclosedEnd::Reboot,
                None,
                "ws close user=wizard ip=203.0.113.7 dur_ms=0 cause=dispatch_closed verdict=unknown \
                 segment=devvm conn=k3v9 kernel=off how=reboot closed_by=dispatch \
                 confidence=likely ray=8c1f-LHR reconciled=journal ended_at=2026-03-01T02:13:45.120Z",
            ),
        ] {
            let record = reconcile(&session(), end, last_sign);
            assert_eq!(record.to_line(), line);
            assert_eq!(CloseRecord::from_line(line), Ok(record));
        }
    }
}
