//! Judgement of the evidence. Pure and total: `unknown` if no rule matches.
//!
//! The order of the rules is the design: first whether *dispatch* ended the session (died, shut
//! down, socket destroyed), then which side acted first ([`acts`]), and then the cause
//! (`downstream`, `upstream`). A slow, dead or pressured component nearby is never the cause by
//! itself; it only explains an end whose side is known.

pub mod acts;
mod death;
pub mod direct;
pub mod disturbance;
mod downstream;
mod leg;
mod opening;
pub mod outgoing;
mod own_network;
pub mod pressure;
mod upstream;
mod watchdog;

use crate::{
    evidence::{Evidence, Fate, Nanos, OpenFailure, OwnEnd, RelayFacts, SeenEnd},
    how::How,
    verdict::{
        acts::{Act, Acts, Kind},
        disturbance::Disturbance,
    },
    vocabulary::{Cause, ClosedBy, Confidence, LegEnd, Segment, Side, Verdict},
};

/// Result of judging the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Coarse cause.
    pub cause: Cause,
    /// Verdict.
    pub verdict: Verdict,
    /// Deciding mechanism.
    pub how: Option<How>,
    /// Location of the cause.
    pub segment: Segment,
    /// End that acted first.
    pub closed_by: Option<ClosedBy>,
    /// Certainty.
    pub confidence: Confidence,
    /// Time of the deciding act, if observed.
    pub at: Option<Nanos>,
}

/// Second half of a judgement: the cause of an end whose side is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) how: How,
    pub(crate) segment: Segment,
    pub(crate) confidence: Confidence,
}

impl Finding {
    pub(crate) const fn proven(verdict: Verdict, how: How, segment: Segment) -> Self {
        Self { verdict, how, segment, confidence: Confidence::Proven }
    }

    pub(crate) const fn likely(verdict: Verdict, how: How, segment: Segment) -> Self {
        Self { verdict, how, segment, confidence: Confidence::Likely }
    }
}

/// Judges the end of a session.
#[must_use]
pub fn judge(evidence: &Evidence) -> Judgement {
    let mut judgement = judge_events(evidence);
    if judgement.confidence == Confidence::Proven && !is_earned(evidence, &judgement) {
        judgement.confidence = Confidence::Likely;
    }
    judgement
}

/// Whether nothing that could refute a proven judgement is unexcluded.
fn is_earned(evidence: &Evidence, judgement: &Judgement) -> bool {
    // The kernel reports a death and its cause, whatever else was late; dispatch knows its own
    // acts.
    let is_event = matches!(
        judgement.verdict,
        Verdict::ServeKilled
            | Verdict::ServeExited
            | Verdict::ServeOom
            | Verdict::DispatchDied
            | Verdict::DispatchShutdown
            | Verdict::HostPaused
    );
    if is_event {
        return true;
    }
    // What ended before may have been evicted: a death of serve, or the first act.
    if evidence.kernel.is_overflowed && judgement.verdict != Verdict::DispatchStalled {
        return false;
    }
    // The facts that a dead dispatch had reported end before its last acts.
    if evidence.dispatch_died.is_some() {
        return false;
    }
    let Some(relay) = &evidence.relay else { return false };
    let at = judgement.at.unwrap_or(relay.ended_at);
    if !Disturbance::before(relay, &evidence.kernel, at).is_small() {
        return false;
    }
    let by_client =
        matches!(judgement.verdict, Verdict::ClientClosed | Verdict::ClientLeft | Verdict::ClientReset);
    if by_client && Acts::of(evidence).first().is_some_and(|first| downstream::is_unsure(evidence, first)) {
        return false;
    }
    let is_recognised = relay.heartbeat.is_some_and(|heartbeat| !heartbeat.can_be_chance());
    if relay.opened_at.is_none() || is_recognised || !by_client {
        return true;
    }
    // No heartbeat was recognised: a stall that ended in a watchdog looks the same. No watchdog
    // closes with 1001 or with a code of the application, and none fires in a session this young.
    let is_young = at.saturating_sub(relay.opened_at.unwrap_or(at)) < watchdog::SHORTEST_KNOWN;
    match judgement.how {
        Some(How::WsClose(1000)) => false,
        Some(How::WsClose(1001 | 3000..)) => true,
        _ => is_young,
    }
}

/// A dead dispatch left no facts of its relay, so this FIN may be the reply to a Close frame of the
/// other peer, and the first act is unknown. The FIN of a serve that has ended is its own.
fn can_be_reply(evidence: &Evidence, first: Act) -> bool {
    let has_ended = evidence.kernel.peer.as_ref().is_some_and(|peer| peer.fate != Fate::Alive);
    evidence.relay.is_none() && first.kind == Kind::Fin && !(first.side == Side::Up && has_ended)
}

fn judge_events(evidence: &Evidence) -> Judgement {
    let acts = Acts::of(evidence);
    if let Some(died) = &evidence.dispatch_died
        && acts.peer_first_before(died.at).is_none_or(|first| can_be_reply(evidence, first))
    {
        let how = match died.fate {
            Some(Fate::Signal(signal)) => How::ProxySignal(signal),
            Some(Fate::Oom) => How::Oom,
            _ => How::ProxyGone,
        };
        let is_first = acts.peer_first_before(died.at).is_none();
        let is_certain = died.fate.is_some() && is_first;
        let confidence = if is_certain { Confidence::Proven } else { Confidence::Likely };
        return ours(
            Finding { verdict: Verdict::DispatchDied, how, segment: Segment::Dispatch, confidence },
            Some(died.at),
        );
    }
    if let Some(relay) = &evidence.relay {
        let stopped = relay.shutdown.filter(|shutdown| acts.peer_first_before(shutdown.at).is_none());
        // An open that is cancelled by a shutdown looks as if the client had left.
        let dropped = |failure: &OpenFailure| *failure == OpenFailure::ClientGone && stopped.is_some();
        if let Some(failure) = relay.open_failure.filter(|failure| !dropped(failure)) {
            // The request may have waited unread until its client gave up.
            let first = acts.first().filter(|_| failure == OpenFailure::ClientGone);
            let unread = first.and_then(|first| {
                Some((first, paused(evidence, first).or_else(|| own_stall(evidence, first))?))
            });
            if let Some((first, finding)) = unread {
                return finish(
                    evidence,
                    finding,
                    leg_cause(first.side),
                    Some(peer(first.side)),
                    Some(first.at),
                );
            }
            return opening::judge(evidence, relay, failure);
        }
        if let Some(shutdown) = stopped {
            let how = shutdown.signal.map_or(How::ProxyGone, How::ProxySignal);
            let finding = Finding::proven(Verdict::DispatchShutdown, how, Segment::Dispatch);
            return ours(finding, Some(shutdown.at));
        }
    }
    if let Some(abort) = acts.first_of(Kind::Abort) {
        let finding = Finding::proven(Verdict::AdminKilled, How::SockDestroy, Segment::Devvm);
        return finish(evidence, finding, leg_cause(abort.side), Some(ClosedBy::Dispatch), Some(abort.at));
    }
    let Some(first) = acts.first() else { return NOTHING_SEEN };
    if let Some(finding) = paused(evidence, first).or_else(|| own_stall(evidence, first)) {
        return finish(evidence, finding, leg_cause(first.side), Some(peer(first.side)), Some(first.at));
    }
    let simultaneous = acts.simultaneous();
    let mut finding = match first.side {
        Side::Down => downstream::judge(evidence, first),
        Side::Up => upstream::judge(evidence, first),
    };
    finding = own_network::weaken(evidence, first, finding);
    let plain = matches!(
        finding.verdict,
        Verdict::ClientClosed
            | Verdict::ClientLeft
            | Verdict::ClientReset
            | Verdict::ServeClosed
            | Verdict::ServeLeft
            | Verdict::ServeReset
    );
    // Without an act of a peer, dispatch's kernel timed out.
    let given_up = matches!(first.kind, Kind::Timeout | Kind::Unreach);
    let mut closed_by = if given_up { ClosedBy::Dispatch } else { peer(first.side) };
    if simultaneous && plain {
        finding.how = How::Simultaneous;
        finding.segment = Segment::None;
        closed_by = ClosedBy::Both;
    }
    finish(evidence, finding, leg_cause(first.side), Some(closed_by), Some(first.at))
}

/// Judgement without any act.
const NOTHING_SEEN: Judgement = Judgement {
    cause: Cause::DispatchClosed,
    verdict: Verdict::Unknown,
    how: None,
    segment: Segment::Unknown,
    closed_by: None,
    confidence: Confidence::Likely,
    at: None,
};

/// Time that a client waits before it gives up, at least: of its watchdog if its heartbeat is
/// known.
fn patience(relay: &RelayFacts) -> Nanos {
    relay.heartbeat.as_ref().map_or(watchdog::SHORTEST_KNOWN, watchdog::watchdog)
}

/// The client's act can be its reaction to silence.
fn gave_up(relay: &RelayFacts, first: Act) -> bool {
    first.side == Side::Down && downstream::is_reaction(relay, first)
}

/// The client gave up on a host that did not run.
fn paused(evidence: &Evidence, first: Act) -> Option<Finding> {
    let relay = evidence.relay.as_ref()?;
    let disturbance = Disturbance::before(relay, &evidence.kernel, first.at);
    let patience = patience(relay);
    let paused = |pause: Nanos| gave_up(relay, first) && pause >= patience;
    let finding = Finding::likely(Verdict::HostPaused, How::Pause, Segment::Devvm);
    if paused(disturbance.certain_pause) {
        return Some(Finding { confidence: Confidence::Proven, ..finding });
    }
    paused(disturbance.pause).then_some(finding)
}

/// The client gave up while dispatch's event loop was blocked: its pings and its close were unread
/// in dispatch's sockets.
fn own_stall(evidence: &Evidence, first: Act) -> Option<Finding> {
    let relay = evidence.relay.as_ref()?;
    let lag = Disturbance::before(relay, &evidence.kernel, first.at).lag;
    let gave_up = gave_up(relay, first) && first.kind != Kind::Timeout;
    // The host is the cause if it was under pressure.
    let segment =
        if pressure::starved(&evidence.kernel).is_some() { Segment::Devvm } else { Segment::Dispatch };
    (gave_up && lag >= patience(relay)).then_some(Finding::likely(
        Verdict::DispatchStalled,
        How::Stall,
        segment,
    ))
}

fn ours(finding: Finding, at: Option<Nanos>) -> Judgement {
    Judgement {
        cause: Cause::DispatchClosed,
        verdict: finding.verdict,
        how: Some(finding.how),
        segment: finding.segment,
        closed_by: Some(ClosedBy::Dispatch),
        confidence: finding.confidence,
        at,
    }
}

fn finish(
    evidence: &Evidence,
    finding: Finding,
    cause: Cause,
    closed_by: Option<ClosedBy>,
    at: Option<Nanos>,
) -> Judgement {
    let handshake = evidence
        .relay
        .as_ref()
        .is_some_and(|relay| relay.down.close_frame.is_some() && relay.up.close_frame.is_some());
    Judgement {
        cause: if handshake { Cause::Graceful } else { cause },
        verdict: finding.verdict,
        how: Some(finding.how),
        segment: finding.segment,
        closed_by,
        confidence: finding.confidence,
        at,
    }
}

const fn peer(side: Side) -> ClosedBy {
    match side {
        Side::Down => ClosedBy::Downstream,
        Side::Up => ClosedBy::Upstream,
    }
}

const fn leg_cause(side: Side) -> Cause {
    match side {
        Side::Down => Cause::DownstreamClosed,
        Side::Up => Cause::UpstreamClosed,
    }
}

/// End of a leg in the kernel: its first event by the kernel's clock, or the relay's facts where
/// the kernel has none.
#[must_use]
pub fn leg_end(evidence: &Evidence, side: Side) -> Option<LegEnd> {
    let trace = match side {
        Side::Down => evidence.kernel.down.as_ref(),
        Side::Up => evidence.kernel.up.as_ref(),
    };
    let leg = evidence.relay.as_ref().map(|relay| relay.leg(side));
    let seen =
        leg.and_then(|leg| leg.end.or(leg.write_error)).and_then(|(end, at)| Some((at, seen_leg_end(end)?)));
    let own_end = leg.and_then(|leg| leg.own_end).map(|(end, at)| match end {
        OwnEnd::Fin => (at, LegEnd::FinOut),
        OwnEnd::Rst => (at, LegEnd::RstOut),
    });
    let mut events = Vec::with_capacity(7);
    let mut own = Vec::with_capacity(2);
    if let Some(trace) = trace {
        let failure = trace.error.and_then(|(errno, at)| Some((at, acts::errno_end(errno)?)));
        events.extend(trace.fin_in.map(|at| (at, LegEnd::FinIn)));
        events.extend(trace.rst_in.map(|at| (at, LegEnd::RstIn)));
        events.extend(failure);
        own.extend(trace.fin_out.map(|at| (at, LegEnd::FinOut)));
        // A failing connection also sends a RST before or after the error is set; that is not a
        // second cause.
        own.extend(trace.rst_out.filter(|_| failure.is_none()).map(|at| (at, LegEnd::RstOut)));
    }
    // The relay sees an end after the kernel, so its facts count only if the kernel side attached
    // too late.
    events.extend(seen);
    if own.is_empty() {
        own.extend(own_end);
    }
    events.into_iter().chain(own).min_by_key(|(at, _)| *at).map(|(_, end)| end)
}

const fn seen_leg_end(end: SeenEnd) -> Option<LegEnd> {
    match end {
        SeenEnd::Eof => Some(LegEnd::FinIn),
        SeenEnd::Reset => Some(LegEnd::RstIn),
        SeenEnd::Timeout => Some(LegEnd::Timeout),
        SeenEnd::Abort => Some(LegEnd::Abort),
        SeenEnd::Unreach => Some(LegEnd::Unreach),
        SeenEnd::Refused => Some(LegEnd::Refused),
        SeenEnd::Pipe | SeenEnd::Errno(_) => None,
    }
}

#[cfg(test)]
mod dispatch_death_tests;
#[cfg(test)]
pub(crate) mod evidence_builder;
#[cfg(test)]
mod host_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod opening_tests;
#[cfg(test)]
mod own_network_tests;
#[cfg(test)]
mod path_tests;
#[cfg(test)]
mod reaction_tests;
#[cfg(test)]
mod stall_tests;
#[cfg(test)]
mod tests;
