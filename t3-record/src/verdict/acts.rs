//! Who acted first: each side's first act, from the kernel where it saw it, from the relay
//! otherwise, and whether both sides acted without having heard of each other.
//!
//! A close frame is data, so only the relay sees it; FIN and RST come from the kernel, whose clock
//! is not delayed by a busy relay. Both clocks are `CLOCK_MONOTONIC`.

use crate::{
    evidence::{Evidence, LegFacts, Nanos, SeenEnd, SocketFacts},
    vocabulary::{LegEnd, Side},
};

/// Acts of both sides further apart than this were not simultaneous, even if news of the first had
/// not yet reached the second.
const SIMULTANEOUS: Nanos = 100_000_000;

/// How a side acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A close frame.
    CloseFrame,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// Keepalive, retransmission or user timeout: the side did not act, it was given up.
    Timeout,
    /// The network says that it cannot be reached.
    Unreach,
    /// Our socket was destroyed.
    Abort,
    /// Another error of the socket.
    Error,
}

/// One side's first act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// Who.
    pub side: Side,
    /// What.
    pub kind: Kind,
    /// When.
    pub at: Nanos,
}

/// The first act of each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acts {
    /// The browser's side.
    pub down: Option<Act>,
    /// serve's side.
    pub up: Option<Act>,
    /// When we first passed news of an end to the browser's side.
    notified_down: Option<Nanos>,
    /// When we first passed news of an end to serve's side.
    notified_up: Option<Nanos>,
}

/// What an errno on a socket means for its leg.
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
    /// From the evidence.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let relay = evidence.relay.as_ref();
        let kernel = &evidence.kernel;
        let down = first_act(Side::Down, kernel.down.as_ref(), relay.map(|r| &r.down));
        let mut up = first_act(Side::Up, kernel.up.as_ref(), relay.map(|r| &r.up));
        // serve's own socket destroyed reaches us as a RST like any other; only its own trace
        // tells.
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

    /// The side that acted first. Of two acts at the same instant serve's counts: nothing can be
    /// read off such a pair, and serve's is the one that can be looked into on this machine.
    #[must_use]
    pub fn first(&self) -> Option<Act> {
        match (self.down, self.up) {
            (Some(down), Some(up)) => Some(if down.at < up.at { down } else { up }),
            (down, up) => down.or(up),
        }
    }

    /// The first act of this kind, if it came before every other act or is the only thing that
    /// explains them.
    #[must_use]
    pub fn first_of(&self, kind: Kind) -> Option<Act> {
        let first = self.first()?;
        [self.down, self.up].into_iter().flatten().find(|act| {
            // The reset that tells the other end of a destroyed socket may overtake the error by a
            // clock tick.
            act.kind == kind && act.at.saturating_sub(first.at) <= 1_000_000
        })
    }

    /// The first act, if it came before `at` and before anything that we ourselves sent.
    #[must_use]
    pub fn peer_first_before(&self, at: Nanos) -> Option<Act> {
        let notified =
            [self.notified_down, self.notified_up].into_iter().flatten().min().unwrap_or(Nanos::MAX);
        self.first().filter(|act| act.at < at && act.at <= notified)
    }

    /// Both sides acted, close together, and neither had been told of the other's act.
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
                // ECONNRESET and EPIPE only repeat the RST; where the RST itself was not traced
                // they stand for it.
                _ if trace.rst_in.is_none() && errno == 104 => Some(Kind::Rst),
                _ => None,
            };
            acts.extend(kind.map(|kind| Act { side, kind, at }));
        }
    }
    if let Some(leg) = leg {
        // The relay sees an end after the kernel, so its word only counts where the kernel side
        // began to watch too late for it.
        let relay =
            leg.end.or(leg.write_error).and_then(|(end, at)| Some(Act { side, kind: seen(end)?, at }));
        acts.extend(relay);
        if let Some(frame) = &leg.close_frame {
            // A frame that was read came before the FIN or RST behind it, however long the relay
            // took to read it.
            let end =
                acts.iter().filter(|act| matches!(act.kind, Kind::Fin | Kind::Rst)).map(|act| act.at).min();
            let at = end.map_or(frame.at, |end| end.min(frame.at));
            acts.retain(|act| !matches!(act.kind, Kind::Fin | Kind::Rst));
            acts.push(Act { side, kind: Kind::CloseFrame, at });
        }
    }
    // The kind breaks a tie, so that the answer does not depend on the order of the facts.
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

/// When a side's peer first heard from us of any end.
fn notified(trace: Option<&SocketFacts>, leg: Option<&LegFacts>) -> Option<Nanos> {
    let kernel = trace.into_iter().flat_map(|trace| [trace.fin_out, trace.rst_out]).flatten();
    let relay =
        leg.into_iter().flat_map(|leg| [leg.close_forwarded_at, leg.own_end.map(|(_, at)| at)]).flatten();
    kernel.chain(relay).min()
}
