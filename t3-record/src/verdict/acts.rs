//! First act of each side, from the kernel where available, else from the relay, and whether both
//! sides acted before either received the other's act.
//!
//! A Close frame is data, so only the relay sees it; FIN and RST come from the kernel, whose clock
//! is not delayed by a busy relay. Both clocks are `CLOCK_MONOTONIC`.

use crate::{
    evidence::{Evidence, LegFacts, Nanos, OwnEnd, SeenEnd, SocketFacts},
    vocabulary::{LegEnd, Side},
};

/// Maximum time between simultaneous acts of both sides.
const SIMULTANEOUS: Nanos = 100_000_000;

/// Kind of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Close frame.
    CloseFrame,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// Keepalive, retransmission or user timeout: the side stopped responding.
    Timeout,
    /// Unreachable, reported by the network.
    Unreach,
    /// dispatch's socket was destroyed.
    Abort,
    /// Any other socket error.
    Error,
}

/// First act of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// Side.
    pub side: Side,
    /// Kind.
    pub kind: Kind,
    /// Time.
    pub at: Nanos,
}

/// The first act of each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acts {
    /// Downstream.
    pub down: Option<Act>,
    /// Upstream.
    pub up: Option<Act>,
    /// Time at which an end was first forwarded downstream.
    notified_down: Option<Nanos>,
    /// Time at which an end was first forwarded upstream.
    notified_up: Option<Nanos>,
}

/// End of a leg for an errno of its socket.
#[must_use]
pub const fn errno_end(errno: i32) -> Option<LegEnd> {
    match errno {
        110 => Some(LegEnd::Timeout),
        103 => Some(LegEnd::Abort),
        101 | 113 => Some(LegEnd::Unreach),
        111 => Some(LegEnd::Refused),
        _ => None,
    }
}

impl Acts {
    /// Reads the acts from the evidence.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let relay = evidence.relay.as_ref();
        let kernel = &evidence.kernel;
        let down = first_act(Side::Down, kernel.down.as_ref(), relay.map(|r| &r.down));
        let mut up = first_act(Side::Up, kernel.up.as_ref(), relay.map(|r| &r.up));
        // A destroyed socket of serve arrives as a RST; only the facts of serve's socket show it.
        if let Some((103, at)) = kernel.serve.as_ref().and_then(|trace| trace.error) {
            up = Some(Act { side: Side::Up, kind: Kind::Abort, at });
        }
        Self {
            down,
            up,
            notified_down: notified(kernel.down.as_ref(), relay.map(|r| &r.down)),
            notified_up: notified(kernel.up.as_ref(), relay.map(|r| &r.up)),
        }
    }

    /// The first act. Of two acts at the same time serve's counts, because it can be examined on
    /// this host.
    #[must_use]
    pub fn first(&self) -> Option<Act> {
        match (self.down, self.up) {
            (Some(down), Some(up)) => Some(if down.at < up.at { down } else { up }),
            (down, up) => down.or(up),
        }
    }

    /// The first act of this kind, if it was before all other acts or explains them.
    #[must_use]
    pub fn first_of(&self, kind: Kind) -> Option<Act> {
        let first = self.first()?;
        [self.down, self.up].into_iter().flatten().find(|act| {
            // The RST of a destroyed socket can precede the error by a clock tick.
            act.kind == kind && act.at.saturating_sub(first.at) <= 1_000_000
        })
    }

    /// The first act, if it was before `at` and before any end that dispatch sent.
    #[must_use]
    pub fn peer_first_before(&self, at: Nanos) -> Option<Act> {
        let notified =
            [self.notified_down, self.notified_up].into_iter().flatten().min().unwrap_or(Nanos::MAX);
        self.first().filter(|act| act.at < at && act.at <= notified)
    }

    /// Both sides acted at nearly the same time, before either received the other's act.
    #[must_use]
    pub fn simultaneous(&self) -> bool {
        let (Some(down), Some(up)) = (self.down, self.up) else { return false };
        let unnoticed = |act: Act, notified: Option<Nanos>| notified.is_some_and(|at| act.at < at);
        let deliberate = |act: Act| matches!(act.kind, Kind::CloseFrame | Kind::Fin | Kind::Rst);
        deliberate(down)
            && deliberate(up)
            && down.at.abs_diff(up.at) <= SIMULTANEOUS
            && unnoticed(down, self.notified_down)
            && unnoticed(up, self.notified_up)
    }
}

fn first_act(side: Side, trace: Option<&SocketFacts>, leg: Option<&LegFacts>) -> Option<Act> {
    let act = |kind| move |at| Act { side, kind, at };
    let mut acts: Vec<Act> = Vec::with_capacity(6);
    if let Some(trace) = trace {
        acts.extend(trace.fin_in.map(act(Kind::Fin)));
        acts.extend(trace.rst_in.map(act(Kind::Rst)));
        if let Some((errno, at)) = trace.error {
            let kind = match errno_end(errno) {
                Some(LegEnd::Timeout) => Some(Kind::Timeout),
                Some(LegEnd::Abort) => Some(Kind::Abort),
                Some(LegEnd::Unreach) => Some(Kind::Unreach),
                // ECONNRESET and EPIPE repeat the RST, and replace it if the RST was not traced.
                _ if trace.rst_in.is_none() && errno == 104 => Some(Kind::Rst),
                _ => None,
            };
            acts.extend(kind.map(|kind| Act { side, kind, at }));
        }
    }
    if let Some(leg) = leg {
        // The relay sees an end after the kernel, so its facts count only if the kernel side
        // attached too late.
        let relay =
            leg.end.or(leg.write_error).and_then(|(end, at)| Some(Act { side, kind: seen(end)?, at }));
        acts.extend(relay);
        if let Some(frame) = &leg.close_frame {
            // A frame that was read preceded the FIN or RST after it, however late the relay read
            // it.
            let end =
                acts.iter().filter(|act| matches!(act.kind, Kind::Fin | Kind::Rst)).map(|act| act.at).min();
            let at = end.map_or(frame.at, |end| end.min(frame.at));
            acts.retain(|act| !matches!(act.kind, Kind::Fin | Kind::Rst));
            acts.push(Act { side, kind: Kind::CloseFrame, at });
        }
    }
    // The kind breaks ties, so that the result does not depend on the order of the facts.
    acts.into_iter().min_by_key(|act| (act.at, act.kind))
}

const fn seen(end: SeenEnd) -> Option<Kind> {
    match end {
        SeenEnd::Eof => Some(Kind::Fin),
        SeenEnd::Reset | SeenEnd::Pipe => Some(Kind::Rst),
        SeenEnd::Timeout => Some(Kind::Timeout),
        SeenEnd::Abort => Some(Kind::Abort),
        SeenEnd::Unreach => Some(Kind::Unreach),
        SeenEnd::Refused => None,
        SeenEnd::Errno(_) => Some(Kind::Error),
    }
}

/// Time at which dispatch first sent any end to a side's peer. The relay takes its time before the
/// system call, and may be interrupted in between; the kernel's time of the same act is later and
/// replaces it. An act that the kernel side did not see keeps the relay's time.
fn notified(trace: Option<&SocketFacts>, leg: Option<&LegFacts>) -> Option<Nanos> {
    let (fin_out, rst_out) = trace.map_or((None, None), |trace| (trace.fin_out, trace.rst_out));
    let own_end = leg.and_then(|leg| leg.own_end).filter(|(end, _)| match end {
        OwnEnd::Fin => fin_out.is_none(),
        OwnEnd::Rst => rst_out.is_none(),
    });
    let close_frame = leg.and_then(|leg| leg.close_forwarded_at);
    [fin_out, rst_out, own_end.map(|(_, at)| at), close_frame].into_iter().flatten().min()
}
