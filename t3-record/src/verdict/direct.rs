//! Connections that dispatch did not carry: the rules of sessions, applied to the events of one
//! socket, the one of the process behind the port.
//!
//! The socket is seen as a relay without delay would see it: what it received is an act of the
//! client, what it sent an act of serve. No frame is known, so nothing that a Close frame could
//! refute is proven: only a death before the first act, a timeout, and a destroyed socket.

use super::{
    Finding, Judgement, acts::Acts, acts::Kind, death::death, finish, judge_events, leg_cause, peer,
};
use crate::{
    evidence::{Evidence, KernelFacts, Nanos, SocketFacts},
    verdict::acts::errno_end,
    vocabulary::{Confidence, LegEnd, Side, Verdict},
};

mod pair;

pub use pair::{PairJudgement, judge_pair};

/// Time after its death in which a client that gives up can have done so because of it: the longest
/// known watchdog fires after 20 s (facts: t3 client).
const GIVES_UP: Nanos = 30_000_000_000;
/// Delay of t3-trace from which the host may not have run.
const LATE: Nanos = 2_000_000_000;
/// Time in which such a delay can be the cause of a timeout.
const LATE_AGE: Nanos = 60_000_000_000;

/// Judges the end of a connection that dispatch did not carry; `kernel.serve` is its socket.
#[must_use]
pub fn judge_direct(kernel: &KernelFacts) -> Judgement {
    let evidence = as_legs(kernel);
    let mut judgement = gave_up_on_the_dead(&evidence).unwrap_or_else(|| judge_events(&evidence));
    let error = kernel.serve.as_ref().and_then(|socket| socket.error);
    if judgement.confidence == Confidence::Proven && !is_earned(kernel, error, &judgement) {
        judgement.confidence = Confidence::Likely;
    }
    judgement
}

/// The socket as the two legs of a session.
pub(crate) fn as_legs(kernel: &KernelFacts) -> Evidence {
    let mut kernel = kernel.clone();
    let socket = kernel.serve.clone().unwrap_or_default();
    let is_abort = |(errno, _): &(i32, Nanos)| errno_end(*errno) == Some(LegEnd::Abort);
    // A failing connection also sends a RST before or after its error is set.
    let has_failed = socket.error.is_some_and(|(errno, _)| errno_end(errno).is_some());
    kernel.down = Some(SocketFacts {
        fin_in: socket.fin_in,
        rst_in: socket.rst_in,
        error: socket.error.filter(|error| !is_abort(error)),
        retrans: socket.retrans,
        ..SocketFacts::default()
    });
    kernel.up = Some(SocketFacts {
        fin_in: socket.fin_out,
        rst_in: socket.rst_out.filter(|_| !has_failed),
        error: socket.error.filter(is_abort),
        ..SocketFacts::default()
    });
    kernel.network.retain(|event| event.side == Side::Down);
    Evidence { kernel, ..Evidence::default() }
}

/// The process had ended, or had its fatal signal, and the client gave up first: its socket can
/// outlive it (core dump, a child with the descriptor). A client that left at that moment looks the
/// same.
fn gave_up_on_the_dead(evidence: &Evidence) -> Option<Judgement> {
    let first = Acts::of(evidence).first()?;
    let process = evidence.kernel.peer.as_ref()?;
    let died = process.signalled_at.or(process.ended_at)?;
    let is_after = died <= first.at && first.at - died <= GIVES_UP;
    let is_close = first.side == Side::Down && matches!(first.kind, Kind::Fin | Kind::Rst);
    let finding = death(&evidence.kernel, process.fate).filter(|_| is_after && is_close)?;
    let finding = Finding { confidence: Confidence::Likely, ..finding };
    Some(finish(evidence, finding, leg_cause(first.side), Some(peer(first.side)), Some(first.at)))
}

/// Whether kernel evidence alone proves it; `error` is that of the socket towards the client.
fn is_earned(kernel: &KernelFacts, error: Option<(i32, Nanos)>, judgement: &Judgement) -> bool {
    let Some(at) = judgement.at.filter(|_| !kernel.is_overflowed) else { return false };
    match judgement.verdict {
        // serve may have answered a Close frame of the client before it died.
        Verdict::ServeKilled | Verdict::ServeExited | Verdict::ServeOom => {
            let closer = kernel.serve.as_ref().and_then(|socket| socket.closer.as_ref());
            kernel.peer.as_ref().is_some_and(|process| {
                let died = process.signalled_at.or(process.ended_at);
                closer.is_some_and(|closer| closer.pid == process.task.pid)
                    && died.is_some_and(|died| died <= at)
            })
        }
        Verdict::ClientVanished => {
            let is_late = kernel.delays.iter().any(|delay| {
                delay.until.saturating_sub(delay.from) >= LATE && at.saturating_sub(delay.until) <= LATE_AGE
            });
            let is_timeout = error.is_some_and(|(errno, _)| errno_end(errno) == Some(LegEnd::Timeout));
            is_timeout && kernel.lost == 0 && !is_late
        }
        Verdict::AdminKilled => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
