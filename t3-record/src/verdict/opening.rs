//! Sessions that never opened: serve did not answer 101.

use crate::{
    evidence::{Evidence, Fate, Nanos, OpenFailure, RelayFacts},
    how::How,
    verdict::{Finding, Judgement, leg_cause, leg_end, ours, peer, pressure},
    vocabulary::{LegEnd, Segment, Side, Verdict},
};

/// A client that leaves earlier has not waited for serve: the shortest known open timeout is 10 s
/// (facts: t3 client, "WS open timeout").
const OPEN_TIMEOUT: Nanos = 9_000_000_000;

/// The same for a serve that is known not to run.
const HALTED_TIMEOUT: Nanos = 1_000_000_000;

/// ENFILE, EMFILE and EADDRNOTAVAIL are errors of dispatch, whatever their cause.
pub(super) fn judge(evidence: &Evidence, relay: &RelayFacts, failure: OpenFailure) -> Judgement {
    let waited = relay.ended_at.saturating_sub(relay.started_at);
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let slow = || {
        if !halted && pressure::starved(&evidence.kernel).is_some() { Segment::Devvm } else { Segment::Serve }
    };
    // The client's timeout starts when it wants to connect. It opens one connection per address at
    // a time, so a second tab has already waited in the browser (RFC 6455 section 4.1, item 2).
    let timeout = if halted { HALTED_TIMEOUT } else { OPEN_TIMEOUT };
    let (side, finding) = match failure {
        OpenFailure::Refused => {
            (Side::Up, Finding::proven(Verdict::ServeRefused, How::Refused, Segment::Serve))
        }
        OpenFailure::Unreach => {
            (Side::Up, Finding::proven(Verdict::ServeRefused, How::Unreach, Segment::Serve))
        }
        OpenFailure::ConnectTimeout => {
            (Side::Up, Finding::proven(Verdict::ServeTimeout, How::ConnectTimeout, slow()))
        }
        OpenFailure::HandshakeTimeout => {
            (Side::Up, Finding::proven(Verdict::ServeTimeout, How::HandshakeTimeout, slow()))
        }
        OpenFailure::HandshakeEof | OpenFailure::HandshakeReset => (Side::Up, cut_short(evidence, failure)),
        OpenFailure::Status(status) => {
            (Side::Up, Finding::proven(Verdict::ServeRejected, How::Status(status), Segment::Serve))
        }
        OpenFailure::BadAccept => {
            (Side::Up, Finding::proven(Verdict::ServeProtocol, How::BadAccept, Segment::Serve))
        }
        OpenFailure::Garbage => {
            (Side::Up, Finding::proven(Verdict::ServeProtocol, How::Garbage, Segment::Serve))
        }
        OpenFailure::ClientGone if waited >= timeout => {
            (Side::Down, Finding::likely(Verdict::ServeTimeout, How::HandshakeTimeout, slow()))
        }
        OpenFailure::ClientGone => {
            let finding = match leg_end(evidence, Side::Down) {
                Some(LegEnd::RstIn) => Finding::proven(Verdict::ClientReset, How::Rst, Segment::Downstream),
                Some(LegEnd::FinIn) => Finding::proven(Verdict::ClientLeft, How::Fin, Segment::Downstream),
                // The client did leave; how is uncertain, because its FIN was not captured.
                _ => Finding::likely(Verdict::ClientLeft, How::Fin, Segment::Downstream),
            };
            (Side::Down, finding)
        }
        OpenFailure::Local(errno) => {
            let finding =
                Finding::proven(Verdict::DispatchStalled, How::LocalError(errno), Segment::Dispatch);
            return ours(finding, Some(relay.ended_at));
        }
    };
    Judgement {
        cause: leg_cause(side),
        verdict: finding.verdict,
        how: Some(finding.how),
        segment: finding.segment,
        closed_by: Some(peer(side)),
        confidence: finding.confidence,
        at: Some(relay.ended_at),
    }
}

/// serve accepted the connection and ended it before its response: it exited, or it closed.
fn cut_short(evidence: &Evidence, failure: OpenFailure) -> Finding {
    match evidence.kernel.peer.as_ref().map(|process| process.fate) {
        Some(Fate::Exit(status)) => Finding::proven(Verdict::ServeExited, How::Exit(status), Segment::Serve),
        Some(Fate::Signal(signal)) => {
            Finding::proven(Verdict::ServeKilled, How::Signal(signal), Segment::Serve)
        }
        Some(Fate::Oom) => {
            Finding::proven(Verdict::ServeOom, How::Oom, super::death::oom_segment(&evidence.kernel))
        }
        fate => {
            let verdict = match failure {
                OpenFailure::HandshakeReset => Verdict::ServeReset,
                _ => Verdict::ServeLeft,
            };
            let finding = Finding::proven(verdict, How::HandshakeEof, Segment::Serve);
            // Only a process that is alive is known to have closed deliberately.
            if fate == Some(Fate::Alive) {
                finding
            } else {
                Finding::likely(verdict, How::HandshakeEof, Segment::Serve)
            }
        }
    }
}
