//! Both connections of a proxy that t3-dispatch is not: they are the two legs of a session.
//!
//! What arrived on a leg is an act of that leg's peer, and the rules are those of a session whose
//! relay is unknown. What the proxy sent before anything arrived is its own act: then the proxy is
//! the process behind the port, as it is for a connection without a known upstream.

use super::{close_frames, gave_up_on_the_dead, is_earned, judge_direct};
use crate::{
    evidence::{CloseFrames, Evidence, KernelFacts, Nanos, PairFacts, SocketFacts},
    how::How,
    verdict::{Judgement, acts::errno_end, judge_events},
    vocabulary::{Actor, Confidence, LegEnd, Segment, Verdict},
};

/// Judgement of a pair, with the evidence that it is based on.
#[derive(Debug, Clone, PartialEq)]
pub struct PairJudgement {
    /// Judgement.
    pub judgement: Judgement,
    /// Who acted first; `None` if nothing was seen, or the socket was destroyed.
    pub actor: Option<Actor>,
    /// Both legs, with the process that the judgement is about.
    pub(crate) evidence: Evidence,
}

/// Judges the end of a proxy's session; `frames` are the Close frames on the connection that the
/// proxy accepted.
#[must_use]
pub fn judge_pair(pair: &PairFacts, frames: Option<&CloseFrames>) -> PairJudgement {
    let actor = actor(pair);
    if actor == Some(Actor::Proxy) {
        let mut facts = pair.proxy.clone();
        facts.serve = Some(own_acts(pair));
        // No end acted: the one in the middle did.
        let judgement = Judgement { closed_by: None, ..judge_direct(&facts, None) };
        return PairJudgement { judgement, actor, evidence: legs(pair, &pair.proxy, None) };
    }
    // Without the process behind the upstream leg, nothing is known of its fate.
    let mut facts = pair.upstream.clone().unwrap_or_else(|| KernelFacts {
        peer: None,
        pressure: None,
        memory: None,
        ..pair.proxy.clone()
    });
    facts.is_overflowed |= pair.proxy.is_overflowed;
    facts.lost = facts.lost.max(pair.proxy.lost);
    if pair.upstream.is_none() {
        facts.serve = None;
    }
    facts.network.clone_from(&pair.proxy.network);
    let evidence = legs(pair, &facts, frames);
    let mut judgement = gave_up_on_the_dead(&evidence).unwrap_or_else(|| judge_events(&evidence));
    let is_proven = judgement.confidence == Confidence::Proven;
    if is_proven && !is_earned(&facts, pair.down.error, None, &judgement) {
        judgement.confidence = Confidence::Likely;
    }
    let is_timeout = matches!(judgement.how, Some(How::ZeroWindow | How::Loss));
    if judgement.verdict == Verdict::ServeStalled && is_timeout && pair.upstream.is_none() {
        // Its host or the network between did not answer.
        let (verdict, how, segment) = (Verdict::Unknown, Some(How::Vanished), Segment::Unknown);
        judgement = Judgement { verdict, how, segment, ..judgement };
    }
    let actor = actor.filter(|_| judgement.verdict != Verdict::AdminKilled);
    PairJudgement { judgement, actor, evidence }
}

fn legs(pair: &PairFacts, facts: &KernelFacts, frames: Option<&CloseFrames>) -> Evidence {
    let mut kernel = facts.clone();
    kernel.down = Some(pair.down.clone());
    kernel.up = Some(pair.up.clone());
    let mut relay = frames.and_then(close_frames);
    // The upstream sent its Close frame before its FIN; the proxy forwards it a moment later.
    if let Some((frame, fin)) =
        relay.as_mut().and_then(|relay| relay.up.close_frame.as_mut()).zip(pair.up.fin_in)
    {
        frame.at = frame.at.min(fin);
    }
    Evidence { kernel, relay, ..Evidence::default() }
}

fn first(times: impl IntoIterator<Item = Option<Nanos>>) -> Option<Nanos> {
    times.into_iter().flatten().min()
}

fn failure(socket: &SocketFacts) -> Option<(LegEnd, Nanos)> {
    socket.error.and_then(|(errno, at)| Some((errno_end(errno)?, at)))
}

/// Time of the first act of the peer of a leg.
fn received(socket: &SocketFacts) -> Option<Nanos> {
    let failed = failure(socket).filter(|(end, _)| *end != LegEnd::Abort).map(|(_, at)| at);
    // An error without a known meaning is a RST that no hook reported.
    let other = socket.error.filter(|_| failure(socket).is_none()).map(|(_, at)| at);
    first([socket.fin_in, socket.rst_in, failed, other])
}

/// Time of the first act of the proxy on a leg. A failing connection also sends a RST.
fn sent(socket: &SocketFacts) -> Option<Nanos> {
    first([socket.fin_out, socket.rst_out.filter(|_| failure(socket).is_none())])
}

fn actor(pair: &PairFacts) -> Option<Actor> {
    let legs = [&pair.down, &pair.up];
    if legs.iter().any(|leg| failure(leg).is_some_and(|(end, _)| end == LegEnd::Abort)) {
        return None;
    }
    let acts = [
        // Of two acts at the same time the upstream's counts, as in `acts::first`.
        (received(&pair.up), Actor::Upstream),
        (received(&pair.down), Actor::Client),
        (first(legs.map(sent)), Actor::Proxy),
    ];
    let acts = acts.into_iter().filter_map(|(at, actor)| Some((at?, actor)));
    acts.min_by_key(|(at, _)| *at).map(|(_, actor)| actor)
}

/// What the proxy did on both legs, as acts on one socket; what it received later are answers.
fn own_acts(pair: &PairFacts) -> SocketFacts {
    let (down, up) = (&pair.down, &pair.up);
    let is_up_first = sent(up) < sent(down) && sent(up).is_some() || sent(down).is_none();
    let acted = if is_up_first { up } else { down };
    SocketFacts {
        fin_out: acted.fin_out,
        rst_out: acted.rst_out,
        closed: acted.closed,
        closer: acted.closer.clone(),
        rst_reason: acted.rst_reason.clone(),
        ..SocketFacts::default()
    }
}

#[cfg(test)]
mod tests;
