//! Counters of the states of WebSockets. They only grow; the number in a state is the difference of
//! two counters, so that a page is consistent and tests detect a missed transition.
//!
//! The transitions of a session are counted in order, and [`SessionCounters::snapshot`] reads them
//! in reverse order: a session counted as ended is also counted as opened.

use std::sync::atomic::{AtomicU64, Ordering};

use t3_record::vocabulary::{Cause, Verdict};

const PAIRS: usize = Verdict::ALL.len() * Cause::ALL.len();

/// Number of transitions.
#[derive(Debug)]
pub struct SessionCounters {
    forwarded: AtomicU64,
    opened: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    ended: AtomicU64,
    closed: [AtomicU64; PAIRS],
}

/// All counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Upgrades forwarded to serve.
    pub forwarded: u64,
    /// The 101 was relayed.
    pub opened: u64,
    /// The session was continued from the process before.
    pub resumed: u64,
    /// The open failed.
    pub failed: u64,
    /// The first leg of an open session ended.
    pub ended: u64,
    closed: [u64; PAIRS],
}

impl Default for SessionCounters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            forwarded: zero(),
            opened: zero(),
            resumed: zero(),
            failed: zero(),
            ended: zero(),
            closed: std::array::from_fn(|_| zero()),
        }
    }
}

const fn index(verdict: Verdict, cause: Cause) -> usize {
    verdict as usize * Cause::ALL.len() + cause as usize
}

fn increment(count: &AtomicU64) {
    count.fetch_add(1, Ordering::AcqRel);
}

impl SessionCounters {
    pub fn forwarded(&self) {
        increment(&self.forwarded);
    }

    /// The 101 was relayed.
    pub fn opened(&self) {
        increment(&self.opened);
    }

    /// The session was continued from the process before.
    pub fn resumed(&self) {
        increment(&self.resumed);
    }

    /// The first leg ended (`open`) or the open failed. Once per session.
    pub fn ended(&self, open: bool) {
        increment(if open { &self.ended } else { &self.failed });
    }

    /// The record was written.
    pub fn closed(&self, verdict: Verdict, cause: Cause) {
        increment(&self.closed[index(verdict, cause)]);
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |count: &AtomicU64| count.load(Ordering::Acquire);
        let closed = std::array::from_fn(|at| get(&self.closed[at]));
        let (ended, failed) = (get(&self.ended), get(&self.failed));
        let (opened, resumed) = (get(&self.opened), get(&self.resumed));
        Snapshot { forwarded: get(&self.forwarded), opened, resumed, failed, ended, closed }
    }
}

impl Snapshot {
    /// Records with this verdict and cause.
    #[must_use]
    pub const fn closed(&self, verdict: Verdict, cause: Cause) -> u64 {
        self.closed[index(verdict, cause)]
    }

    /// Sessions being opened.
    #[must_use]
    pub const fn opening(&self) -> u64 {
        self.forwarded.saturating_sub(self.opened + self.failed)
    }

    /// Open sessions.
    #[must_use]
    pub const fn open(&self) -> u64 {
        (self.opened + self.resumed).saturating_sub(self.ended)
    }

    /// Sessions without their record yet.
    #[must_use]
    pub fn closing(&self) -> u64 {
        (self.ended + self.failed).saturating_sub(self.closed.iter().sum())
    }
}
