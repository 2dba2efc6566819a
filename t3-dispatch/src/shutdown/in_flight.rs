//! Counter of open work that a shutdown waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Number of WebSockets without a record, of HTTP connections or of probes.
#[derive(Debug, Default)]
pub struct InFlight {
    open: AtomicUsize,
    none_left: Notify,
}

impl InFlight {
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A WebSocket is closed when its record is written.
    pub fn closed(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none_left.notify_waiters();
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Returns when the count is zero.
    pub async fn none(&self) {
        loop {
            let none_left = self.none_left.notified();
            if self.count() == 0 {
                return;
            }
            none_left.await;
        }
    }
}
