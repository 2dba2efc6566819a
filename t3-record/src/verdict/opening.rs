//! Sessions that never opened: serve did not answer 101.

use crate::{
    evidence::{Evidence, Fate, Listeners, Nanos, OpenFailure, RelayFacts},
    how::How,
    verdict::{Disturbance, Finding, Judgement, leg_cause, leg_end, ours, peer, pressure},
    vocabulary::{Confidence, LegEnd, Segment, Side, Verdict},
};

/// A client that leaves earlier has not waited for serve: the shortest known open timeout is 5 s
/// (facts: t3 client, "WS open timeout").
const OPEN_TIMEOUT: Nanos = 4_500_000_000;

/// A user who leaves later may have waited for serve.
const IMPATIENCE: Nanos = 1_000_000_000;

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
        OpenFailure::Refused => (Side::Up, refused(relay.listeners)),
        OpenFailure::Unreach => {
            (Side::Up, Finding::proven(Verdict::ServeRefused, How::Unreach, Segment::Serve))
        }
        OpenFailure::ForeignListener => {
            let finding = Finding::proven(Verdict::ServeRefused, How::ForeignListener, Segment::Devvm);
            // Without a uid it was only not shown to be the user's.
            let confidence = relay.peer_uid.map_or(Confidence::Likely, |_| finding.confidence);
            (Side::Up, Finding { confidence, ..finding })
        }
        OpenFailure::ConnectTimeout => (Side::Up, never_accepted(relay.listeners, slow())),
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
            // dispatch ends a leg that was connected.
            let is_connected = relay.up.own_end.is_some() || relay.up.end.is_some();
            let how = if is_connected { How::HandshakeTimeout } else { How::ConnectTimeout };
            (Side::Down, Finding::likely(Verdict::ServeTimeout, how, slow()))
        }
        OpenFailure::ClientGone => {
            let finding = match leg_end(evidence, Side::Down) {
                Some(LegEnd::RstIn) => Finding::proven(Verdict::ClientReset, How::Rst, Segment::Downstream),
                Some(LegEnd::FinIn) => Finding::proven(Verdict::ClientLeft, How::Fin, Segment::Downstream),
                // The client did leave; how is uncertain, because its FIN was not captured.
                _ => Finding::likely(Verdict::ClientLeft, How::Fin, Segment::Downstream),
            };
            // It may have waited before: in the browser, for a serve that did not run, or unread.
            let held_up = Disturbance::before(relay, &evidence.kernel, relay.ended_at);
            let unread = held_up.lag.saturating_add(held_up.pause);
            let is_unsure = halted || waited.saturating_add(unread) >= IMPATIENCE;
            let confidence = if is_unsure { Confidence::Likely } else { finding.confidence };
            (Side::Down, Finding { confidence, ..finding })
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

/// The host refused the connection: nothing listens, or a firewall rejects it.
fn refused(listeners: Option<Listeners>) -> Finding {
    match listeners {
        Some(Listeners { queue: Some(_), .. }) => {
            Finding::likely(Verdict::ServeRefused, How::Refused, Segment::Devvm)
        }
        Some(Listeners { elsewhere: true, .. }) => {
            Finding::proven(Verdict::ServeRefused, How::OtherAddress, Segment::Serve)
        }
        Some(_) => Finding::proven(Verdict::ServeRefused, How::Refused, Segment::Serve),
        None => Finding::likely(Verdict::ServeRefused, How::Refused, Segment::Serve),
    }
}

/// The SYN was not answered. A full accept queue drops it (net/ipv4/tcp_input.c,
/// `tcp_conn_request`), and so does a firewall; the loopback loses nothing.
fn never_accepted(listeners: Option<Listeners>, slow: Segment) -> Finding {
    let full = Finding::likely(Verdict::ServeTimeout, How::ConnectTimeout, slow);
    let dropped = Finding::likely(Verdict::ServeTimeout, How::Loss, Segment::Devvm);
    let Some(Listeners { queue, overflowed, .. }) = listeners else { return full };
    let waiting = queue.unwrap_or(0) > 0;
    match overflowed {
        Some(true) if waiting => Finding { confidence: Confidence::Proven, ..full },
        Some(true) => full,
        None if waiting => full,
        Some(false) | None => dropped,
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
            let (verdict, how) = match failure {
                OpenFailure::HandshakeReset => (Verdict::ServeReset, How::Rst),
                _ => (Verdict::ServeLeft, How::HandshakeEof),
            };
            // Only a process that is alive is known to have closed deliberately.
            if fate == Some(Fate::Alive) {
                Finding::proven(verdict, how, Segment::Serve)
            } else {
                Finding::likely(verdict, how, Segment::Serve)
            }
        }
    }
}
