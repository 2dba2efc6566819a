//! Uptime, wall clock changes and cached map counts for the status of the daemon.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use t3_trace_host::{clock, kernel::Inventory};

use crate::locked::lock;

/// Counting walks the kernel's maps and delays closes: minimum time between counts.
const EVERY: Duration = Duration::from_secs(10);

/// Created when the daemon starts.
#[derive(Debug)]
pub(crate) struct DaemonStatus {
    since: Instant,
    wall_ahead: i128,
    counted: Mutex<Option<(Instant, Inventory)>>,
}

impl DaemonStatus {
    pub(crate) fn now() -> Self {
        Self { since: Instant::now(), wall_ahead: clock::wall_ahead(), counted: Mutex::default() }
    }

    pub(crate) fn uptime_s(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// Change of the wall clock beyond the elapsed time, in milliseconds.
    pub(crate) fn clock_moved_ms(&self) -> i64 {
        i64::try_from((clock::wall_ahead() - self.wall_ahead) / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Returns the cached counts, or counts now.
    pub(crate) fn inventory(&self, count: impl FnOnce() -> Inventory) -> Inventory {
        let mut counted = lock(&self.counted);
        match &*counted {
            Some((at, inventory)) if at.elapsed() < EVERY => inventory.clone(),
            _ => {
                let inventory = count();
                *counted = Some((Instant::now(), inventory.clone()));
                inventory
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_queries_get_cached_counts() {
        let status = DaemonStatus::now();
        let first = status.inventory(|| Inventory { events: Some(1), ..Inventory::default() });
        let second = status.inventory(|| Inventory { events: Some(2), ..Inventory::default() });
        assert_eq!((first.events, second.events), (Some(1), Some(1)));
    }

    #[test]
    fn an_unchanged_clock_has_not_moved() {
        let moved = DaemonStatus::now().clock_moved_ms();
        assert!(moved.abs() < 1000, "{moved} ms");
    }
}
