//! Record of a session whose t3-dispatch ended without writing one, from its `ws open`.

use jiff::Timestamp;

use crate::{
    evidence::Nanos,
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
    /// Time of the 101.
    pub opened: Moment,
}

/// A time on the wall clock, which can be set, and on the clock that starts with each boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Moment {
    /// Wall clock in microseconds since the epoch.
    pub wall_us: u64,
    /// `CLOCK_MONOTONIC` of its boot.
    pub monotonic: Nanos,
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

/// Creates the record. `last_sign` is the last time, in the boot of the session, at which
/// t3-dispatch or its host was seen alive; the session lasted at least until then.
#[must_use]
pub fn reconcile(session: &UnclosedSession, end: UnclosedEnd, last_sign: Option<Moment>) -> CloseRecord {
    let opened = session.opened;
    let ended = last_sign.filter(|sign| sign.monotonic > opened.monotonic).unwrap_or(opened);
    let (verdict, segment, how) = match end {
        UnclosedEnd::DispatchDied => (Verdict::DispatchDied, Segment::Dispatch, How::ProxyGone),
        UnclosedEnd::PowerLoss => (Verdict::Unknown, Segment::Devvm, How::PowerLoss),
        UnclosedEnd::Reboot => (Verdict::Unknown, Segment::Devvm, How::Reboot),
    };
    let mut record = CloseRecord::new(
        session.user.clone(),
        session.ip.clone(),
        (ended.monotonic - opened.monotonic) / 1_000_000,
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
    mark(&mut record, Reconciled::Journal, ended.wall_us);
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
            opened: Moment { wall_us: OPENED, monotonic: 5_000_000_000 },
        }
    }

    #[test]
    fn a_reconciled_record_has_the_identity_of_the_open_and_is_never_proven() {
        for (end, last_sign, line) in [
            (
                UnclosedEnd::DispatchDied,
                // The wall clock was set forward by an hour.
                Some(Moment { wall_us: OPENED + 3_661_873_999, monotonic: 66_873_999_000 }),
                "ws close user=wizard ip=203.0.113.7 dur_ms=61873 cause=dispatch_closed \
                 verdict=dispatch_died segment=dispatch conn=k3v9 kernel=off how=proxy_gone \
                 closed_by=dispatch confidence=likely ray=8c1f-LHR reconciled=journal \
                 ended_at=2026-03-01T03:14:46.993Z",
            ),
            // No sign after the open.
            (
                UnclosedEnd::PowerLoss,
                Some(Moment { wall_us: OPENED - 5_000_000, monotonic: 4_000_000_000 }),
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
