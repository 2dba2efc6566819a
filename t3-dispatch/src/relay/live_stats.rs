//! Live stats of one session: a copy of its counters that other tasks can read, collected only
//! during a subscription. Without locks and system calls: the relay does a few atomic stores per
//! read.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use t3_record::{evidence::Nanos, vocabulary::HeartbeatSource, wire::live::StatsReport};

/// Value of an unknown number.
const NONE: u64 = u64::MAX;

/// Byte counts and heartbeats of one session.
#[derive(Debug)]
pub struct LiveStats {
    down_bytes: AtomicU64,
    up_bytes: AtomicU64,
    rtt_ns: AtomicU64,
    waiting_since: AtomicU64,
    /// Index in [`HeartbeatSource::ALL`].
    hb_by: AtomicU8,
    changed: AtomicBool,
}

impl Default for LiveStats {
    fn default() -> Self {
        Self {
            down_bytes: AtomicU64::new(0),
            up_bytes: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(NONE),
            waiting_since: AtomicU64::new(NONE),
            hb_by: AtomicU8::new(HeartbeatSource::None as u8),
            changed: AtomicBool::new(true),
        }
    }
}

impl LiveStats {
    /// Stores the current values.
    pub fn update(
        &self,
        down_bytes: u64,
        up_bytes: u64,
        rtt_ns: Option<Nanos>,
        waiting_since: Option<Nanos>,
        hb_by: HeartbeatSource,
    ) {
        self.down_bytes.store(down_bytes, Ordering::Relaxed);
        self.up_bytes.store(up_bytes, Ordering::Relaxed);
        self.rtt_ns.store(rtt_ns.unwrap_or(NONE), Ordering::Relaxed);
        self.waiting_since.store(waiting_since.unwrap_or(NONE), Ordering::Relaxed);
        self.hb_by.store(hb_by as u8, Ordering::Relaxed);
        self.changed.store(true, Ordering::Release);
    }

    /// How the heartbeats of the session are recognised.
    #[must_use]
    pub fn hb_by(&self) -> HeartbeatSource {
        let index = usize::from(self.hb_by.load(Ordering::Relaxed));
        HeartbeatSource::ALL.get(index).copied().unwrap_or(HeartbeatSource::None)
    }

    /// Returns the values for the session `conn` if they changed since the last call, or with
    /// `all`.
    #[must_use]
    pub fn take(&self, conn: &str, all: bool) -> Option<StatsReport> {
        let changed = self.changed.swap(false, Ordering::AcqRel);
        let known = |number: &AtomicU64| Some(number.load(Ordering::Relaxed)).filter(|n| *n != NONE);
        (changed || all).then(|| StatsReport {
            conn: conn.to_owned(),
            down_bytes: self.down_bytes.load(Ordering::Relaxed),
            up_bytes: self.up_bytes.load(Ordering::Relaxed),
            rtt_ns: known(&self.rtt_ns),
            waiting_since: known(&self.waiting_since),
            hb_by: Some(self.hb_by()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_stats_are_taken_unless_all_are_requested() {
        let live = LiveStats::default();
        let first = live.take("c", false).unwrap();
        assert_eq!((first.down_bytes, first.rtt_ns, first.waiting_since), (0, None, None));
        assert_eq!(first.hb_by, Some(HeartbeatSource::None));
        assert_eq!(live.take("c", false), None);
        live.update(10, 20, Some(30), None, HeartbeatSource::Rhythm);
        let changed = live.take("c", false).unwrap();
        assert_eq!((changed.down_bytes, changed.up_bytes, changed.rtt_ns), (10, 20, Some(30)));
        assert_eq!(changed.hb_by, Some(HeartbeatSource::Rhythm));
        assert_eq!((live.take("c", false), live.take("c", true)), (None, Some(changed)));
    }
}
