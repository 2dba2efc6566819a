//! The live numbers of a session where others can read them: a copy that the relay leaves in
//! passing, and that is collected only while somebody watches. Never waits and never makes the
//! relay wait: no lock, no system call, a few stores for each read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use t3_record::{evidence::Nanos, wire::live::StatsReport};

/// Stands for a number that is not known.
const NONE: u64 = u64::MAX;

/// The live numbers of one session.
#[derive(Debug)]
pub struct Published {
    down_bytes: AtomicU64,
    up_bytes: AtomicU64,
    rtt_ns: AtomicU64,
    waiting_since: AtomicU64,
    moved: AtomicBool,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            down_bytes: AtomicU64::new(0),
            up_bytes: AtomicU64::new(0),
            rtt_ns: AtomicU64::new(NONE),
            waiting_since: AtomicU64::new(NONE),
            moved: AtomicBool::new(true),
        }
    }
}

impl Published {
    /// Something has come from one of the two sides.
    pub fn publish(
        &self,
        down_bytes: u64,
        up_bytes: u64,
        rtt_ns: Option<Nanos>,
        waiting_since: Option<Nanos>,
    ) {
        self.down_bytes.store(down_bytes, Ordering::Relaxed);
        self.up_bytes.store(up_bytes, Ordering::Relaxed);
        self.rtt_ns.store(rtt_ns.unwrap_or(NONE), Ordering::Relaxed);
        self.waiting_since.store(waiting_since.unwrap_or(NONE), Ordering::Relaxed);
        self.moved.store(true, Ordering::Release);
    }

    /// The numbers of the session `conn`, if they have moved since they were taken last, or if
    /// `all` are wanted.
    #[must_use]
    pub fn take(&self, conn: &str, all: bool) -> Option<StatsReport> {
        let moved = self.moved.swap(false, Ordering::AcqRel);
        let known = |number: &AtomicU64| Some(number.load(Ordering::Relaxed)).filter(|n| *n != NONE);
        (moved || all).then(|| StatsReport {
            conn: conn.to_owned(),
            down_bytes: self.down_bytes.load(Ordering::Relaxed),
            up_bytes: self.up_bytes.load(Ordering::Relaxed),
            rtt_ns: known(&self.rtt_ns),
            waiting_since: known(&self.waiting_since),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_moved_is_taken_unless_all_is_wanted() {
        let live = Published::default();
        let fresh = live.take("c", false).unwrap();
        assert_eq!((fresh.down_bytes, fresh.rtt_ns, fresh.waiting_since), (0, None, None));
        assert_eq!(live.take("c", false), None);
        live.publish(10, 20, Some(30), None);
        let moved = live.take("c", false).unwrap();
        assert_eq!((moved.down_bytes, moved.up_bytes, moved.rtt_ns), (10, 20, Some(30)));
        assert_eq!((live.take("c", false), live.take("c", true)), (None, Some(moved)));
    }
}
