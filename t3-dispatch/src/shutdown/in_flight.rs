//! Count of open work that a shutdown waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Count of work that ends: WebSockets without a record, HTTP connections.
#[derive(Debug, Default)]
pub struct InFlight {
    open: AtomicUsize,
    none_left: Notify,
}

impl InFlight {
    /// Adds one.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes one. A WebSocket is removed when its record is written.
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
