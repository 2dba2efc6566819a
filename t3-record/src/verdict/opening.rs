//! Sessions that never opened: what serve did instead of answering 101.

use crate::{
    evidence::{Evidence, Fate, Nanos, OpenFailure, RelayFacts},
    how::How,
    verdict::{Finding, Judgement, leg_cause, leg_end, ours, peer, pressure},
    vocabulary::{LegEnd, Segment, Side, Verdict},
};

/// A browser that leaves earlier than this has not waited for serve: the shortest open timeout
/// known is 10 s (facts: t3 client, "WS open timeout").
const OPEN_TIMEOUT: Nanos = 9_000_000_000;

/// A browser that leaves earlier than this has not waited even for a serve that is known not to
/// run.
const HALTED_TIMEOUT: Nanos = 1_000_000_000;

/// ENFILE and EMFILE, EADDRNOTAVAIL: ours, whoever caused them.
pub(super) fn judge(evidence: &Evidence, relay: &RelayFacts, failure: OpenFailure) -> Judgement {
    let waited = relay.ended_at.saturating_sub(relay.started_at);
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let slow = || {
        if !halted && pressure::starved(&evidence.kernel).is_some() { Segment::Devvm } else { Segment::Serve }
    };
    // The browser's own limit counts from when it wants to connect; to one address it connects one
    // after the other, so that a second tab has waited in the browser already (RFC 6455 section
    // 4.1, item 2).
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
                // That it left is certain, how is not: nobody saw its FIN.
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

/// serve took the connection and ended it before it had answered: because it died, or because it
/// would not.
fn cut_short(evidence: &Evidence, failure: OpenFailure) -> Finding {
    match evidence.kernel.peer.as_ref().map(|process| process.fate) {
        Some(Fate::Exit(status)) => Finding::proven(Verdict::ServeExited, How::Exit(status), Segment::Serve),
        Some(Fate::Signal(signal)) => {
            Finding::proven(Verdict::ServeKilled, How::Signal(signal), Segment::Serve)
        }
        Some(Fate::Oom) => {
            Finding::proven(Verdict::ServeOom, How::Oom, super::upstream::oom_segment(&evidence.kernel))
        }
        fate => {
            let verdict = match failure {
                OpenFailure::HandshakeReset => Verdict::ServeReset,
                _ => Verdict::ServeLeft,
            };
            let finding = Finding::proven(verdict, How::HandshakeEof, Segment::Serve);
            // Only a living process is known to have chosen this.
            if fate == Some(Fate::Alive) {
                finding
            } else {
                Finding::likely(verdict, How::HandshakeEof, Segment::Serve)
            }
        }
    }
}
