//! Delivery of what a peer had sent before its end: how much of it the other peer has not
//! acknowledged, and the wait for that.
//!
//! No event announces that a send queue has become empty, so the wait reads its length (`SIOCOUTQ`)
//! at growing intervals.

use std::{pin::Pin, task::Context, time::Duration};

use rustix::io::ioctl_fionread;
use t3_record::vocabulary::Side;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Legs, Relay, session::Session};
use crate::sys::{clock, tcp_info};

/// Intervals between two reads of a send queue.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

/// The wait for acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    timer: Option<Pin<Box<Sleep>>>,
    interval: Duration,
    /// Bytes on their way when this was last read.
    in_flight: u64,
}

impl Relay<'_> {
    /// Returns whether a peer has acknowledged all bytes that were written to it. If not, the task
    /// is woken later.
    pub(super) fn is_acknowledged(&mut self, cx: &mut Context<'_>, side: Side) -> bool {
        let Ok(queued) = tcp_info::unacknowledged(self.stream(side)) else { return true };
        if queued <= self.fin_of(side) {
            return true;
        }
        if self.note_progress() {
            self.acknowledgements.interval = Duration::ZERO;
        }
        let wait = &mut self.acknowledgements;
        wait.interval = (wait.interval * 2).clamp(INTERVALS.0, INTERVALS.1);
        let timer = wait.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
        timer.as_mut().reset(Instant::now() + wait.interval);
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + INTERVALS.0);
        }
        false
    }

    /// A FIN in a send queue counts as one byte.
    fn fin_of(&self, side: Side) -> u64 {
        u64::from(self.session.flow(side.other()).end_forwarded)
    }

    /// Bytes from `side` on their way to the other peer.
    fn in_flight_from(&self, side: Side) -> u64 {
        let queued = tcp_info::unacknowledged(self.stream(side.other())).unwrap_or(0);
        queued.saturating_sub(self.fin_of(side.other())) + self.session.flow(side).unwritten().len() as u64
    }

    /// Returns whether bytes of a peer that has ended are still on their way.
    pub(super) fn is_delivering(&self) -> bool {
        [Side::Down, Side::Up].into_iter().any(|side| {
            let flow = self.session.flow(side);
            (flow.ended || flow.failed) && self.in_flight_from(side) > 0
        })
    }

    /// Returns whether a peer has acknowledged bytes since the last call, which extends the time.
    pub(super) fn note_progress(&mut self) -> bool {
        let in_flight = self.in_flight_from(Side::Down) + self.in_flight_from(Side::Up);
        let before = std::mem::replace(&mut self.acknowledgements.in_flight, in_flight);
        let is_less = in_flight < before;
        if is_less {
            self.progress_at = clock::now();
        }
        is_less
    }
}

/// Records how many bytes of each peer the other one has not acknowledged, at the end of a session.
/// `is_delivered`: the queues of both sockets are known to be empty.
pub(super) fn note_undelivered(session: &mut Session, legs: &Legs, is_delivered: bool) {
    for (side, from, to) in [(Side::Down, &legs.up, &legs.down), (Side::Up, &legs.down, &legs.up)] {
        let flow = session.flow(side.other());
        let fin = u64::from(flow.end_forwarded);
        // What was read and not written, also what was discarded.
        let held = session.facts.leg(side.other()).bytes.saturating_sub(flow.written);
        let in_sockets = || {
            let queued = tcp_info::unacknowledged(to).unwrap_or(0).saturating_sub(fin);
            ioctl_fionread(from).unwrap_or(0) + queued
        };
        session.leg_mut(side).undelivered = held + if is_delivered { 0 } else { in_sockets() };
    }
}

/// Returns whether bytes for `side` are lost when its socket is closed now. What its socket has
/// taken is not: the kernel continues to send it.
pub(super) fn is_cut(session: &Session, legs: &Legs, side: Side) -> bool {
    let from = match side {
        Side::Down => &legs.up,
        Side::Up => &legs.down,
    };
    let flow = session.flow(side.other());
    !flow.unwritten().is_empty() || ioctl_fionread(from).is_ok_and(|unread| unread > 0)
}
