//! Connections that dispatch did not carry: the rules of sessions, applied to the events of one
//! socket, the one of the process behind the port.
//!
//! The socket is seen as a relay without delay would see it: what it received is an act of the
//! client, what it sent an act of serve. Where no frame is known, nothing that a Close frame could
//! refute is proven: only a death before the first act, a timeout, and a destroyed socket. Close
//! frames count where no other can have been before them.

use super::{
    Finding, Judgement, acts::Acts, acts::Kind, death::death, finish, judge_events, leg_cause, peer,
};
use crate::{
    evidence::{CloseFrame, CloseFrames, Evidence, KernelFacts, LegFacts, Nanos, RelayFacts, SocketFacts},
    how::How,
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
pub fn judge_direct(kernel: &KernelFacts, frames: Option<&CloseFrames>) -> Judgement {
    let evidence = as_legs(kernel, frames);
    let mut judgement = gave_up_on_the_dead(&evidence).unwrap_or_else(|| judge_events(&evidence));
    let error = kernel.serve.as_ref().and_then(|socket| socket.error);
    if judgement.confidence == Confidence::Proven && !is_earned(kernel, error, frames, &judgement) {
        judgement.confidence = Confidence::Likely;
    }
    judgement
}

/// The socket as the two legs of a session. `kernel.serve` is the socket.
pub(crate) fn as_legs(kernel: &KernelFacts, frames: Option<&CloseFrames>) -> Evidence {
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
    Evidence { kernel, relay: frames.and_then(close_frames), ..Evidence::default() }
}

/// The Close frames as a relay would see them; `None` unless it is certain which was first.
fn close_frames(frames: &CloseFrames) -> Option<RelayFacts> {
    frames.first()?;
    let leg = |frame: Option<(Nanos, Option<u16>)>| LegFacts {
        close_frame: frame.map(|(at, code)| CloseFrame { code, reason: String::new(), at }),
        ..LegFacts::default()
    };
    Some(RelayFacts { down: leg(frames.received), up: leg(frames.sent), ..RelayFacts::default() })
}

/// The process had ended, or had its fatal signal, and the client gave up first: its socket can
/// outlive it (core dump, a child with the descriptor). A client that left at that moment looks the
/// same.
fn gave_up_on_the_dead(evidence: &Evidence) -> Option<Judgement> {
    let first = Acts::of(evidence).first()?;
    let process = evidence.kernel.peer.as_ref()?;
    let died = process.signalled_at.or(process.ended_at)?;
    let is_after = died <= first.at && first.at - died <= GIVES_UP;
    let is_close = first.side == Side::Down && can_be_reaction(evidence, first.kind);
    let finding = death(&evidence.kernel, process.fate).filter(|_| is_after && is_close)?;
    let finding = Finding { confidence: Confidence::Likely, ..finding };
    Some(finish(evidence, finding, leg_cause(first.side), Some(peer(first.side)), Some(first.at)))
}

/// No watchdog closes with 1001 or with a code of the application.
fn can_be_reaction(evidence: &Evidence, kind: Kind) -> bool {
    let code = evidence.relay.as_ref().and_then(|relay| relay.down.close_frame.as_ref()).and_then(|f| f.code);
    match kind {
        Kind::Fin | Kind::Rst => true,
        Kind::CloseFrame => !matches!(code, Some(1001 | 3000..)),
        _ => false,
    }
}

/// Whether it is proven by kernel evidence and `frames`; `error` is that of the socket towards the
/// client.
fn is_earned(
    kernel: &KernelFacts,
    error: Option<(i32, Nanos)>,
    frames: Option<&CloseFrames>,
    judgement: &Judgement,
) -> bool {
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
        Verdict::ClientClosed | Verdict::ServeClosed => {
            frames.is_some_and(|frames| kernel.lost == 0 && is_certain(kernel, frames, judgement))
        }
        _ => false,
    }
}

/// All frames were seen, no event of the kernel was before the first Close frame, the process
/// lives, and nothing else explains the close: a watchdog of the client, or Close frames that
/// crossed.
fn is_certain(kernel: &KernelFacts, frames: &CloseFrames, judgement: &Judgement) -> bool {
    let (Some((side, (at, code))), Some(socket)) = (frames.first(), kernel.serve.as_ref()) else {
        return false;
    };
    let is_by_frame = matches!(judgement.how, Some(How::WsClose(_) | How::WsCloseEmpty));
    let (client, own) = ([socket.fin_in, socket.rst_in], [socket.fin_out, socket.rst_out]);
    let has_ended = client.iter().chain(&own).any(Option::is_some);
    let is_after = |ends: [Option<Nanos>; 2]| ends.into_iter().flatten().all(|end| end >= at);
    let is_alone = match side {
        // Its FIN can come in before its Close frame is read.
        Side::Down => judgement.verdict == Verdict::ClientClosed && matches!(code, Some(1001 | 3000..)),
        // A reply has the same code.
        Side::Up => {
            let is_reply = frames.received.is_none_or(|(_, reply)| reply == code);
            judgement.verdict == Verdict::ServeClosed && is_reply && is_after(client)
        }
    };
    let agrees = has_ended && is_after(own) && socket.error.is_none();
    let lives = kernel.peer.as_ref().is_some_and(|process| process.fate == crate::evidence::Fate::Alive);
    frames.is_complete() && is_by_frame && agrees && is_alone && lives && kernel.network.is_empty()
}

#[cfg(test)]
mod tests;
