//! Sessions that never opened: what serve did instead of answering 101.

use crate::{
    evidence::{Evidence, Fate, Nanos, OpenFailure, RelayFacts},
    how::How,
    verdict::{Finding, Judgement, leg_cause, ours, peer, pressure},
    words::{Segment, Side, Verdict},
};

/// A browser that leaves earlier than this has not waited for serve: the shortest open timeout known is 10 s
/// (facts: t3 client, "WS open timeout").
const OPEN_PATIENCE: Nanos = 9_000_000_000;

/// ENFILE and EMFILE, EADDRNOTAVAIL: ours, whoever caused them.
pub(super) fn judge(evidence: &Evidence, relay: &RelayFacts, failure: OpenFailure) -> Judgement {
    let waited = relay.ended_at.saturating_sub(relay.started_at);
    let slow = || if pressure::starved(&evidence.kernel).is_some() { Segment::Devvm } else { Segment::Serve };
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
        OpenFailure::ClientGone if waited >= OPEN_PATIENCE => {
            (Side::Down, Finding::likely(Verdict::ServeTimeout, How::HandshakeTimeout, slow()))
        }
        OpenFailure::ClientGone => {
            let reset = evidence
                .kernel
                .down
                .as_ref()
                .is_some_and(|trace| trace.rst_in.is_some() && trace.fin_in.is_none());
            let finding = if reset {
                Finding::proven(Verdict::ClientReset, How::Rst, Segment::Downstream)
            } else if evidence.kernel.down.as_ref().is_some_and(|trace| trace.fin_in.is_some()) {
                Finding::proven(Verdict::ClientLeft, How::Fin, Segment::Downstream)
            } else {
                // That it left is certain, how is not: nobody saw its FIN.
                Finding::likely(Verdict::ClientLeft, How::Fin, Segment::Downstream)
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

/// serve took the connection and ended it before it had answered: because it died, or because it would not.
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
