//! Comparison of the histories of two legs. Pure.
//!
//! A proxy forwards the frames of a WebSocket unchanged. While nothing is in flight, the bytes
//! received on one leg minus those sent on the other are therefore a constant: the difference of
//! the two handshakes. A plain HTTP request through the same connections changes it.

use t3_record::evidence::Nanos;

use super::history::{History, Sample, Step};

/// Maximum time between receiving on one leg and sending on the other. Greater than a loaded proxy
/// needs.
const FORWARDED: Nanos = 250_000_000;
/// Precision of the times of the kernel: a tick of 4 ms each, rounded to milliseconds.
const TICK: Nanos = 10_000_000;

/// Bytes that a connection sends without waiting for the peer; more of them can take long on a slow
/// line, so that the time of the last one says nothing.
const IMMEDIATE: u64 = 8_192;

/// Different sizes that are counted.
const MOST_SIZES: usize = 4;

/// How far two histories agree, from the newest sample back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Windows in which both legs had traffic, of the same size in both directions and in an order
    /// of time in which a proxy forwards it.
    pub(crate) windows: u32,
    /// Different sizes of their traffic, up to [`MOST_SIZES`].
    pub(crate) sizes: usize,
    /// An older window disagrees; else the histories agree from their beginning.
    pub(crate) is_contradicted: bool,
    offsets: Option<(u64, u64)>,
}

/// Difference of the counters of both legs, per direction.
fn offsets(down: &Sample, up: &Sample) -> (u64, u64) {
    (down.received.wrapping_sub(up.sent), up.received.wrapping_sub(down.sent))
}

/// Whether a proxy can have sent on each leg what came in on the other one: not before, and not
/// long after. `older` and `newer` are the samples before and after the traffic.
///
/// With an answer in the same window both directions bind: sessions with equal heartbeats are
/// distinguished by a few milliseconds.
fn is_causal(down: (&Sample, &Sample), up: (&Sample, &Sample)) -> bool {
    let precision = TICK + down.1.precision + up.1.precision;
    let can_follow = |received: u64, at: Nanos, sender: (&Sample, &Sample)| {
        let sent_at = sender.1.last_sent;
        // The time of a retransmission hides that of the data.
        let has_limit = received <= IMMEDIATE && sender.0.retrans == sender.1.retrans;
        received == 0 || (sent_at + precision >= at && (!has_limit || sent_at <= at + FORWARDED + precision))
    };
    let received = |(older, newer): (&Sample, &Sample)| newer.received.wrapping_sub(older.received);
    can_follow(received(down), down.1.last_received, up) && can_follow(received(up), up.1.last_received, down)
}

impl Agreement {
    /// Compares a downstream leg with an upstream leg. Samples before `horizon` do not count.
    pub(crate) fn of(down: &History, up: &History, horizon: Nanos) -> Self {
        let mut found = Self::default();
        let (mut downs, mut ups) = (down.newest_first(), up.newest_first());
        let (mut next_down, mut next_up) = (downs.next(), ups.next());
        let mut newer: Option<(&Step, &Step)> = None;
        let mut sizes = [(0, 0); MOST_SIZES];
        while let (Some(down), Some(up)) = (next_down, next_up) {
            if down.until.min(up.until) < horizon {
                break;
            }
            if down.from.max(up.from) <= down.until.min(up.until) {
                let here = offsets(&down.sample, &up.sample);
                if *found.offsets.get_or_insert(here) != here {
                    found.is_contradicted = true;
                    break;
                }
                if let Some((newer_down, newer_up)) = newer {
                    let downs = (&down.sample, &newer_down.sample);
                    if !is_causal(downs, (&up.sample, &newer_up.sample)) {
                        found.is_contradicted = true;
                        break;
                    }
                    found.windows += 1;
                    let size = (
                        newer_down.sample.received.wrapping_sub(down.sample.received),
                        newer_down.sample.sent.wrapping_sub(down.sample.sent),
                    );
                    let known = sizes.iter().take(found.sizes);
                    if !known.into_iter().any(|known| *known == size)
                        && let Some(place) = sizes.get_mut(found.sizes)
                    {
                        *place = size;
                        found.sizes += 1;
                    }
                }
                newer = Some((down, up));
            }
            // The other one may have been constant for longer.
            let (is_down, is_up) = (down.from >= up.from, up.from >= down.from);
            if is_down {
                next_down = downs.next();
            }
            if is_up {
                next_up = ups.next();
            }
        }
        found
    }

    /// Whether a proxy can have forwarded these totals, of which it had agreed before: it sends
    /// nothing of its own.
    pub(crate) fn allows(&self, down: (u64, u64), up: (u64, u64)) -> bool {
        let Some((towards_up, towards_down)) = self.offsets else { return true };
        let sent = |received: u64, sent: u64, offset: u64| {
            // A FIN counts as a byte where the kernel did not report it.
            received.wrapping_sub(sent).wrapping_sub(offset).wrapping_add(1) < u64::MAX / 2
        };
        sent(down.0, up.1, towards_up) && sent(up.0, down.1, towards_down)
    }
}
