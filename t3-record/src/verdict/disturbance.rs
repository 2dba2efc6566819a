//! Times in which dispatch or the host did not run between the last answered heartbeat and the
//! first act. They can be the cause of a close, and they forbid `proven` for every verdict that
//! rests on the order or the absence of events.

use crate::{
    evidence::{KernelFacts, Nanos, RelayFacts, Span},
    verdict::pressure,
};

/// Time after a delay or a pause in which what it held up is read.
const TAIL: Nanos = 1_500_000_000;
/// A shorter delay of dispatch is not compared with those of t3-trace, which runs once a second.
const COMPARABLE: Nanos = 2_000_000_000;
/// Steal from which pressure in this host is the consequence, in percent.
const STOLEN: f32 = 30.0;

/// Delays and pauses before an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// Time that dispatch's event loop was late while the host ran, in nanoseconds.
    pub lag: Nanos,
    /// Time that the host did not run, in nanoseconds.
    pub pause: Nanos,
    /// The part of it that the kernel counted as suspended.
    pub certain_pause: Nanos,
    /// Time from the last answered heartbeat to the act, in nanoseconds, with the time in which
    /// data held up before it was read.
    interval: Nanos,
}

impl Disturbance {
    /// Sums the delays and pauses that overlap the time from the last answered heartbeat to `at`.
    /// Without heartbeats the time starts at the last frame from serve, else at the open. Only the
    /// part of a delay between the open and `at` counts, and no pause that ended before the open.
    /// The kernel has the time of an act that dispatch reads only after its delay. The request of a
    /// session that never opened may have waited unread: there all counts.
    #[must_use]
    pub fn before(relay: &RelayFacts, kernel: &KernelFacts, at: Nanos) -> Self {
        let answered = relay.heartbeat.as_ref().and_then(|heartbeat| {
            Some(heartbeat.last_pong_at?.saturating_sub(heartbeat.rtt_ns.unwrap_or(0)))
        });
        let opened = relay.opened_at.unwrap_or(relay.started_at);
        let first = relay.opened_at.unwrap_or(0);
        let alive = answered.or(relay.up.last_frame_at).unwrap_or(opened).min(at);
        let start = alive.saturating_sub(TAIL);
        let (mut lag, mut both): (Nanos, Nanos) = (0, 0);
        for delay in relay.delays.iter().filter(|delay| delay.until >= start && delay.from <= at) {
            let sum = if is_of_host(*delay, relay, kernel) { &mut both } else { &mut lag };
            *sum = sum.saturating_add(delay.until.min(at).saturating_sub(delay.from.max(first)));
        }
        let pauses = || {
            relay.pauses.iter().filter(|pause| {
                let age = at.saturating_sub(pause.at);
                // Data that was lost during a pause is sent again after up to as long again, unless
                // the session went on meanwhile.
                let is_recent = age <= TAIL || pause.at >= alive && age <= pause.length;
                pause.at > first && pause.at <= at.saturating_add(TAIL) && is_recent
            })
        };
        let pause = pauses().map(|pause| pause.length).fold(both, Nanos::saturating_add);
        let certain = pauses().filter(|pause| pause.is_certain);
        let certain_pause = certain.map(|pause| pause.length).fold(0, Nanos::saturating_add);
        Self { lag, pause, certain_pause, interval: at.saturating_sub(start) }
    }

    /// The order and the absence of events still prove something: less than a fifth of the time is
    /// missing.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.lag.saturating_add(self.pause).saturating_mul(5) < self.interval
    }
}

fn length(span: Span) -> Nanos {
    span.until.saturating_sub(span.from)
}

/// t3-trace was late over the same time, and other processes of this host did not take the CPU.
fn is_of_host(delay: Span, relay: &RelayFacts, kernel: &KernelFacts) -> bool {
    // A t3-trace that was stopped alone is late for much longer than dispatch.
    let is_shared = |other: &&Span| {
        let together = relay.delays.iter().map(|delay| overlap(*delay, **other));
        together.fold(0, Nanos::saturating_add).saturating_mul(2) >= length(**other)
    };
    let shared = kernel.delays.iter().filter(is_shared).map(|other| overlap(delay, *other));
    let was_stolen = kernel.steal.is_some_and(|percent| percent >= STOLEN);
    length(delay) >= COMPARABLE
        && shared.fold(0, Nanos::saturating_add).saturating_mul(2) >= length(delay)
        && (was_stolen || pressure::starved(kernel).is_none())
}

fn overlap(one: Span, other: Span) -> Nanos {
    one.until.min(other.until).saturating_sub(one.from.max(other.from))
}
