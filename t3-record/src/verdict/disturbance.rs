//! Times in which dispatch or the host did not run between the last answered heartbeat and the
//! first act. They can be the cause of a close, and they forbid `proven` for every verdict that
//! rests on the order or the absence of events.

use crate::evidence::{Nanos, RelayFacts};

/// Time after a delay or a pause in which what it held up is read.
const TAIL: Nanos = 1_500_000_000;

/// Delays and pauses before an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disturbance {
    /// Time that dispatch's event loop was late, in nanoseconds.
    pub lag: Nanos,
    /// Time that the host did not run, in nanoseconds.
    pub pause: Nanos,
    /// Time from the last answered heartbeat to the act, in nanoseconds, with the time in which
    /// data held up before it was read.
    interval: Nanos,
}

impl Disturbance {
    /// Sums the delays and pauses that overlap the time from the last answered heartbeat to `at`.
    /// Without heartbeats the time starts at the last frame from serve, else at the open.
    #[must_use]
    pub fn before(relay: &RelayFacts, at: Nanos) -> Self {
        let answered = relay.heartbeat.as_ref().and_then(|heartbeat| {
            Some(heartbeat.last_pong_at?.saturating_sub(heartbeat.rtt_ns.unwrap_or(0)))
        });
        let opened = relay.opened_at.unwrap_or(relay.started_at);
        let start = answered.or(relay.up.last_frame_at).unwrap_or(opened).min(at).saturating_sub(TAIL);
        let lag = relay.delays.iter().filter(|delay| delay.until >= start && delay.from <= at);
        let lag = lag.map(|delay| delay.until.saturating_sub(delay.from)).fold(0, Nanos::saturating_add);
        // Data that was lost during a pause is sent again after up to as long again.
        let pause = relay.pauses.iter().filter(|pause| {
            let is_recent = at.saturating_sub(pause.at) <= pause.length.max(TAIL);
            pause.at >= start && pause.at <= at.saturating_add(TAIL) && is_recent
        });
        let pause = pause.map(|pause| pause.length).fold(0, Nanos::saturating_add);
        Self { lag, pause, interval: at.saturating_sub(start) }
    }

    /// The order and the absence of events still prove something: less than a fifth of the time is
    /// missing.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.lag.saturating_add(self.pause).saturating_mul(5) < self.interval
    }
}
