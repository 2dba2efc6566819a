//! Expected record of a plan. Pure.
//!
//! Strict where the kernel was asked in time. Without its evidence (`kernel=off`, `kernel=timeout`)
//! a record may know less, never something else: a key may be missing, none may name another side.
//! The end of the downstream leg of an opened session is never missing: the relay sees it, too. Of
//! a session during which dispatch died, t3-trace knows the identity and that dispatch died.

use t3_record::{CloseRecord, ClosedBy, How, KernelSource, LegEnd, Segment, Side, Verdict, evidence::Fate};

use super::plan::{Act, Plan};
use crate::faults::Mismatch;

/// Expected keys of a session.
struct ExpectedRecord {
    verdict: Verdict,
    how: How,
    closed_by: ClosedBy,
    segment: Segment,
    down: &'static [LegEnd],
    up: &'static [LegEnd],
    code: Option<u16>,
    from: Option<Side>,
}

const GAVE_UP: &[LegEnd] = &[LegEnd::FinIn, LegEnd::FinOut, LegEnd::RstOut, LegEnd::None];
/// After an HTTP response either end may close the downstream leg first.
const ANSWERED: &[LegEnd] = &[LegEnd::None, LegEnd::FinOut, LegEnd::FinIn];

fn expected(act: Act) -> Option<ExpectedRecord> {
    let down = |verdict, how| ExpectedRecord {
        verdict,
        how,
        closed_by: ClosedBy::Downstream,
        segment: Segment::Downstream,
        down: &[LegEnd::FinIn],
        up: &[LegEnd::FinOut],
        code: None,
        from: None,
    };
    let up = |verdict, how| ExpectedRecord {
        closed_by: ClosedBy::Upstream,
        segment: Segment::Serve,
        down: &[LegEnd::FinOut],
        up: &[LegEnd::FinIn],
        ..down(verdict, how)
    };
    let unopened = |verdict, how, ends| ExpectedRecord { down: ANSWERED, up: ends, ..up(verdict, how) };
    Some(match act {
        // serve replies to the Close frame and closes first (RFC 6455 section 7.1.1).
        Act::ClientClose(code) => ExpectedRecord {
            down: &[LegEnd::FinOut],
            up: &[LegEnd::FinIn],
            code: Some(code),
            from: Some(Side::Down),
            ..down(Verdict::ClientClosed, How::WsClose(code))
        },
        Act::ClientFin | Act::ClientDrop => down(Verdict::ClientLeft, How::Fin),
        Act::ClientMidFrame => down(Verdict::ClientLeft, How::MidFrame),
        Act::ClientReset => ExpectedRecord {
            down: &[LegEnd::RstIn],
            up: &[LegEnd::RstOut],
            ..down(Verdict::ClientReset, How::Rst)
        },
        Act::ServeClose(code) => ExpectedRecord {
            code: Some(code),
            from: Some(Side::Up),
            ..up(Verdict::ServeClosed, How::WsClose(code))
        },
        Act::ServeFin => up(Verdict::ServeLeft, How::Fin),
        Act::ServeMidFrame => up(Verdict::ServeLeft, How::MidFrame),
        Act::ServeReset => ExpectedRecord {
            down: &[LegEnd::RstOut],
            up: &[LegEnd::RstIn],
            ..up(Verdict::ServeReset, How::Rst)
        },
        Act::Refused => unopened(Verdict::ServeRefused, How::Refused, &[LegEnd::Refused]),
        Act::Status(status) => unopened(Verdict::ServeRejected, How::Status(status), GAVE_UP),
        Act::EofAtOpen => unopened(Verdict::ServeLeft, How::HandshakeEof, &[LegEnd::FinIn]),
        Act::ResetAtOpen => unopened(Verdict::ServeReset, How::Rst, &[LegEnd::RstIn]),
        Act::Garbage => unopened(Verdict::ServeProtocol, How::Garbage, GAVE_UP),
        Act::BadAccept => unopened(Verdict::ServeProtocol, How::BadAccept, GAVE_UP),
        // The FIN may come before accept(), when the socket has no cookie: then dispatch itself
        // read the end.
        Act::Gone => ExpectedRecord {
            down: &[LegEnd::FinIn],
            up: &[LegEnd::FinOut, LegEnd::RstOut, LegEnd::None],
            ..down(Verdict::ClientLeft, How::Fin)
        },
        Act::Stranger => return None,
    })
}

/// Whether this act has a record.
#[must_use]
pub fn has_record(act: Act) -> bool {
    expected(act).is_some()
}

/// What is required of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Everything: dispatch itself made it.
    Complete,
    /// t3-trace made it, because dispatch had died before or shortly after the end.
    AfterDeath,
}

/// Differences from the expected record. `serve_pid` is the process of the upstream leg.
#[must_use]
pub fn mismatches(
    plan: &Plan,
    user: &str,
    serve_pid: Option<u32>,
    record: &CloseRecord,
    strictness: Strictness,
) -> Vec<Mismatch> {
    let mut mismatches = Mismatches {
        list: Vec::new(),
        seen: !matches!(record.kernel, KernelSource::Off | KernelSource::Timeout),
    };
    let Some(expected) = expected(plan.act) else {
        mismatches.equal("record", "none", "one");
        return mismatches.list;
    };
    mismatches.equal("user", user, &record.user);
    mismatches.equal("ip", &plan.ip(), &record.ip);
    // Cuts of several users in one second are a burst, which is frequent here.
    let burst = plan.act.cuts() && record.verdict == Verdict::EdgeBurst;
    if strictness == Strictness::AfterDeath {
        // Either dispatch had seen the end, or its death was the end.
        let verdicts = [expected.verdict, Verdict::DispatchDied].map(Verdict::as_str);
        if !burst {
            mismatches.one_of("verdict", &verdicts, Some(record.verdict.as_str()));
        }
        return mismatches.list;
    }
    if !burst {
        mismatches.equal("verdict", expected.verdict.as_str(), record.verdict.as_str());
        mismatches.one_of("how", &[expected.how.to_string()], record.how.as_ref().map(ToString::to_string));
    }
    mismatches.equal("segment", expected.segment.as_str(), record.segment.as_str());
    mismatches.one_of("closed_by", &[expected.closed_by], record.closed_by);
    let opened = plan.act.opens();
    mismatches.end("down_end", expected.down, record.down_end, opened);
    mismatches.end("up_end", expected.up, record.up_end, false);
    mismatches.equal("ws_code", &text(expected.code), &text(record.ws_code));
    mismatches.equal("ws_from", &text(expected.from), &text(record.ws_from));
    let (down, up) = (plan.messages + u64::from(plan.act.is_serves()), plan.messages);
    mismatches.equal("down_msgs", &text(opened.then_some(down)), &text(record.down_msgs));
    mismatches.equal("up_msgs", &text(opened.then_some(up)), &text(record.up_msgs));
    if let (Some(want), Some(have)) = (serve_pid, record.peer_pid) {
        mismatches.equal("peer_pid", &want.to_string(), &have.to_string());
    }
    if let Some(fate) = record.peer_exit.filter(|fate| *fate != Fate::Alive) {
        mismatches.equal("peer_exit", "alive", &format!("{fate:?}"));
    }
    mismatches.list
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

struct Mismatches {
    list: Vec<Mismatch>,
    /// There is kernel evidence.
    seen: bool,
}

impl Mismatches {
    fn equal(&mut self, key: &str, want: &str, have: &str) {
        if want != have {
            self.list.push(Mismatch { key: key.to_owned(), expected: want.to_owned(), got: have.to_owned() });
        }
    }

    fn one_of<T: ToString + PartialEq>(&mut self, key: &str, wanted: &[T], have: Option<T>) {
        self.some_of(key, wanted, have, !self.seen);
    }

    /// The end of a leg; it may be missing if the leg may still be open, or without kernel evidence
    /// unless the relay `knows` it.
    fn end(&mut self, key: &str, wanted: &[LegEnd], have: Option<LegEnd>, knows: bool) {
        let may_be_missing = wanted.contains(&LegEnd::None) || (!self.seen && !knows);
        self.some_of(key, wanted, have, may_be_missing);
    }

    fn some_of<T: ToString + PartialEq>(
        &mut self,
        key: &str,
        wanted: &[T],
        have: Option<T>,
        may_be_missing: bool,
    ) {
        let right = have.as_ref().map_or(may_be_missing, |have| wanted.contains(have));
        if !right {
            let wanted = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
            self.equal(key, &wanted, &text(have));
        }
    }
}

#[cfg(test)]
mod tests {
    use t3_record::Cause;

    use super::*;

    fn plan() -> Plan {
        Plan { id: 7, user: 0, act: Act::ServeReset, messages: 2, life: std::time::Duration::ZERO }
    }

    fn record() -> CloseRecord {
        let mut record = CloseRecord::new(
            "u0".to_owned(),
            plan().ip(),
            5,
            Cause::UpstreamClosed,
            Verdict::ServeReset,
            Segment::Serve,
            "c".to_owned(),
            KernelSource::Tracepoint,
        );
        record.how = Some(How::Rst);
        record.closed_by = Some(ClosedBy::Upstream);
        (record.down_end, record.up_end) = (Some(LegEnd::RstOut), Some(LegEnd::RstIn));
        (record.down_msgs, record.up_msgs) = (Some(3), Some(2));
        record.peer_pid = Some(11);
        record
    }

    fn keys(record: &CloseRecord) -> Vec<String> {
        keys_of(record, Strictness::Complete)
    }

    fn keys_of(record: &CloseRecord, strictness: Strictness) -> Vec<String> {
        let mismatches = mismatches(&plan(), "u0", Some(11), record, strictness);
        mismatches.into_iter().map(|mismatch| mismatch.key).collect()
    }

    #[test]
    fn the_right_record_has_no_mismatch() {
        assert_eq!(keys(&record()), [""; 0]);
    }

    #[test]
    fn the_record_of_another_session_is_a_mismatch() {
        let mut other = record();
        (other.user, other.ip) = ("u1".to_owned(), "50.0.0.8".to_owned());
        (other.down_msgs, other.peer_pid) = (Some(1), Some(12));
        assert_eq!(keys(&other), ["user", "ip", "down_msgs", "peer_pid"]);
    }

    #[test]
    fn without_kernel_evidence_an_end_may_be_missing_but_not_another() {
        let missing = CloseRecord { up_end: None, ..record() };
        assert_eq!(keys(&missing), ["up_end"]);
        assert_eq!(keys(&CloseRecord { kernel: KernelSource::Off, ..missing }), [""; 0]);
        let wrong = CloseRecord { up_end: Some(LegEnd::FinIn), kernel: KernelSource::Off, ..record() };
        assert_eq!(keys(&wrong), ["up_end"]);
    }

    #[test]
    fn the_downstream_end_of_an_opened_session_is_never_missing() {
        let missing = CloseRecord { down_end: None, kernel: KernelSource::Timeout, ..record() };
        assert_eq!(keys(&missing), ["down_end"]);
    }

    #[test]
    fn after_a_death_the_identity_and_the_verdict_are_required() {
        let mut died = record();
        (died.down_end, died.up_end, died.how, died.down_msgs) = (None, None, None, None);
        assert_eq!(keys_of(&died, Strictness::AfterDeath), [""; 0]);
        died.verdict = Verdict::DispatchDied;
        assert_eq!(keys_of(&died, Strictness::AfterDeath), [""; 0]);
        (died.verdict, died.ip) = (Verdict::ClientLeft, "50.0.0.8".to_owned());
        assert_eq!(keys_of(&died, Strictness::AfterDeath), ["ip", "verdict"]);
    }

    #[test]
    fn only_a_cut_may_be_called_a_burst() {
        let burst = CloseRecord { verdict: Verdict::EdgeBurst, ..record() };
        assert_eq!(keys(&burst), ["verdict"]);
        assert_eq!(keys_of(&burst, Strictness::AfterDeath), ["verdict"]);
    }

    #[test]
    fn a_stranger_leaves_no_record() {
        assert!(!has_record(Act::Stranger) && has_record(Act::Gone));
    }
}
