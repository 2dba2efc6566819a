//! Times of a client's watchdog (facts: t3 client, "ping tick").

use crate::evidence::{Heartbeat, Nanos};

/// The period of pings when too few were seen to learn it (facts: t3 client, "ping tick").
pub(super) const DEFAULT_PERIOD: Nanos = 5_000_000_000;

/// Lower bound of a watchdog, however often a client pings; shorter delays are scheduling on a busy
/// host.
pub(super) const SHORTEST: Nanos = 1_000_000_000;

/// No client gives up after a shorter silence, whatever the period of its pings: the shortest known
/// watchdogs fire after 5 s (facts: t3 client, "ping tick"; `pingTimeout` of engine.io 3).
pub(super) const SHORTEST_KNOWN: Nanos = 4_000_000_000;

/// Silence after which the client's watchdog can fire. A client that has tolerated missed ticks has
/// a watchdog that needs more of them; one that waits for pings of serve allows some delay.
pub(super) fn watchdog(heartbeat: &Heartbeat) -> Nanos {
    let limit = watchdog_limit(period(heartbeat)).saturating_mul(u64::from(heartbeat.survived) + 1);
    if heartbeat.is_by_serve { limit.saturating_add(period(heartbeat) / 2) } else { limit }
}

pub(super) fn period(heartbeat: &Heartbeat) -> Nanos {
    heartbeat.period_ns.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD)
}

/// Minimum age of an unanswered ping at which the watchdog can fire: it checks at the next tick,
/// and ticks jitter.
pub(super) fn watchdog_limit(period: Nanos) -> Nanos {
    (period.saturating_mul(9) / 10).max(SHORTEST)
}
