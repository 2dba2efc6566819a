//! Byte counters of one leg over its life, as steps of constant values. Pure.

use std::collections::VecDeque;

use t3_record::evidence::Nanos;

/// Steps that are kept: the newest.
const MOST: usize = 16;

/// Counters of a socket at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes sent, without retransmissions.
    pub(crate) sent: u64,
    /// Time of the last received and of the last sent data.
    pub(crate) last_received: Nanos,
    pub(crate) last_sent: Nanos,
    /// Precision of these times.
    pub(crate) precision: Nanos,
    /// Segments retransmitted; each of them is a sent one in `last_sent`.
    pub(crate) retrans: u32,
    /// Bytes in its queues: received and not read, or sent and not acknowledged.
    pub(crate) is_queued: bool,
}

/// Interval in which the counters had these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) from: Nanos,
    pub(super) until: Nanos,
    pub(super) sample: Sample,
}

/// Counters of a leg at the moments at which nothing was in flight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History(VecDeque<Step>);

impl History {
    /// Adds a sample that was read at `at` or later. It counts only if there was no traffic for
    /// `quiet` before `at` and nothing is queued: then the proxy has forwarded what came in, and
    /// the counters of all legs are those of one moment, however long reading them took.
    pub(crate) fn add(&mut self, at: Nanos, quiet: Nanos, sample: Sample) {
        let last = sample.last_received.max(sample.last_sent);
        if sample.is_queued || last.saturating_add(quiet) > at {
            return;
        }
        if let Some(step) = self.0.back_mut()
            && (step.sample.received, step.sample.sent) == (sample.received, sample.sent)
        {
            step.until = at;
            return;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Step { from: at, until: at, sample });
    }

    /// Steps, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Step> {
        self.0.iter().rev()
    }

    /// It has seen traffic.
    pub(super) fn has_moved(&self) -> bool {
        self.0.len() > 1
    }
}
