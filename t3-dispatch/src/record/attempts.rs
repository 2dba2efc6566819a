//! Connections that ended before a complete request was read: no session exists for them, so they
//! are counted, and summarized once a minute. Pure.
//!
//! A connection counts if it tells something of a user's attempt: dispatch kept it waiting for a
//! second or longer ([`AttemptKind::Late`]), a part of a request arrived
//! ([`AttemptKind::Partial`]), or nothing arrived in a second or longer ([`AttemptKind::Empty`]). A
//! health probe, which connects and closes at once, is none of them, and neither is an idle
//! connection after its last response.

use t3_record::{
    AttemptsRecord,
    evidence::{Nanos, SeenEnd, Span},
};

use crate::metrics::labels::{AttemptEnd, AttemptKind};

/// Shortest wait, and shortest life without a byte, that counts. A probe that connects and closes
/// takes milliseconds.
const LEAST: Nanos = 1_000_000_000;

/// A connection that ended between two requests or in a head.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// Time from the TCP handshake until dispatch accepted the connection.
    pub queued: Nanos,
    pub accepted_at: Nanos,
    pub ended_at: Nanos,
    /// Delays of the event loop.
    pub delays: Vec<Span>,
    /// A part of a head arrived.
    pub has_part: bool,
    /// A request was served before.
    pub served: bool,
}

impl Unfinished {
    /// Time from the TCP handshake to the end.
    #[must_use]
    pub fn life(&self) -> Nanos {
        self.queued + self.ended_at.saturating_sub(self.accepted_at)
    }

    /// Returns how it counts, if it does.
    #[must_use]
    pub fn kind(&self) -> Option<AttemptKind> {
        // The wait before the first request says nothing of a later one.
        if !self.served && self.queued + self.delayed() >= LEAST {
            return Some(AttemptKind::Late);
        }
        if self.has_part {
            return Some(AttemptKind::Partial);
        }
        (!self.served && self.life() >= LEAST).then_some(AttemptKind::Empty)
    }

    /// Time after the accept in which the event loop was delayed.
    fn delayed(&self) -> Nanos {
        let overlap = |span: &Span| {
            let (from, until) = (span.from.max(self.accepted_at), span.until.min(self.ended_at));
            until.saturating_sub(from)
        };
        self.delays.iter().map(overlap).sum()
    }
}

/// Returns the label of an end that the guard saw; `None`: dispatch closed the connection.
#[must_use]
pub fn end(seen: Option<SeenEnd>, is_shutdown: bool) -> AttemptEnd {
    match seen {
        Some(SeenEnd::Eof) => AttemptEnd::Fin,
        Some(SeenEnd::Timeout) => AttemptEnd::Timeout,
        Some(_) => AttemptEnd::Rst,
        None if is_shutdown => AttemptEnd::Shutdown,
        None => AttemptEnd::Timeout,
    }
}

/// Attempts since the last summary.
#[derive(Debug, Default)]
pub struct Attempts {
    late: u64,
    partial: u64,
    empty: u64,
    longest: Nanos,
    worst_lag: Option<Nanos>,
}

impl Attempts {
    /// Adds one. `worst_lag`: worst delay of the event loop in the 30 s before its end.
    pub fn add(&mut self, kind: AttemptKind, life: Nanos, worst_lag: Option<Nanos>) {
        match kind {
            AttemptKind::Late => self.late += 1,
            AttemptKind::Partial => self.partial += 1,
            AttemptKind::Empty => self.empty += 1,
        }
        self.longest = self.longest.max(life);
        self.worst_lag = self.worst_lag.max(worst_lag);
    }

    /// Returns the summary, and starts the next. `None` without attempts.
    pub fn sum_up(&mut self) -> Option<AttemptsRecord> {
        let Self { late, partial, empty, longest, worst_lag } = std::mem::take(self);
        let n = late + partial + empty;
        (n > 0).then(|| {
            let mut record = AttemptsRecord::new(n, late, partial, empty, longest / 1_000_000);
            record.self_lag_ms = worst_lag.map(|lag| lag / 1_000_000);
            record
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn ended(queued: Nanos, life: Nanos, delays: &[(Nanos, Nanos)]) -> Unfinished {
        let accepted_at = 50_000 * MS;
        let span = |(from, until): &(Nanos, Nanos)| Span { from: from * MS, until: until * MS };
        Unfinished {
            queued: queued * MS,
            accepted_at,
            ended_at: accepted_at + life * MS,
            delays: delays.iter().map(span).collect(),
            has_part: false,
            served: false,
        }
    }

    #[test]
    fn only_what_tells_of_an_attempt_counts() {
        use AttemptKind::{Empty, Late, Partial};
        // queued, life after the accept, delays; nothing arrived, a part of a head, after a
        // response.
        for (queued, life, delays, nothing, part, again) in [
            (0, 0, &[][..], None, Some(Partial), None),
            (0, 999, &[], None, Some(Partial), None),
            (0, 1000, &[], Some(Empty), Some(Partial), None),
            (999, 0, &[], None, Some(Partial), None),
            (1000, 0, &[], Some(Late), Some(Late), None),
            (600, 400, &[], Some(Empty), Some(Partial), None),
            (0, 2000, &[(50_500, 51_500)], Some(Late), Some(Late), None),
            (600, 2000, &[(50_500, 50_900)], Some(Late), Some(Late), None),
            // Delays before the accept and after the end.
            (0, 2000, &[(48_000, 50_500), (51_600, 60_000)], Some(Empty), Some(Partial), None),
        ] {
            let connection = ended(queued, life, delays);
            assert_eq!(connection.kind(), nothing, "{connection:?}");
            let partial = Unfinished { has_part: true, ..connection.clone() };
            assert_eq!(partial.kind(), part, "{partial:?}");
            let idle = Unfinished { served: true, ..connection };
            assert_eq!(idle.kind(), again, "{idle:?}");
            assert_eq!(Unfinished { has_part: true, ..idle }.kind(), Some(Partial));
        }
        assert_eq!(ended(600, 400, &[]).life(), 1000 * MS);
    }

    #[test]
    fn a_summary_has_all_attempts_once() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.sum_up(), None);
        attempts.add(AttemptKind::Late, 9120 * MS, Some(9000 * MS));
        attempts.add(AttemptKind::Late, 100 * MS, Some(3 * MS));
        attempts.add(AttemptKind::Partial, 200 * MS, None);
        let line = attempts.sum_up().unwrap().to_line();
        assert_eq!(line, "ws attempts n=3 late=2 partial=1 empty=0 wait_ms=9120 self_lag_ms=9000");
        assert_eq!(attempts.sum_up(), None);
    }
}
