//! Shutdown signal and its listeners. Set once, never reset; a second stop signal forces the exit.
//!
//! A relay checks the signal on every poll (one atomic load) and registers a waker; a watch channel
//! per session would take a lock on every message.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;
use t3_record::evidence::Shutdown;
use tokio::sync::watch;

#[derive(Debug)]
pub struct ShutdownSignal {
    reason: OnceLock<Shutdown>,
    wakers: Mutex<(u64, HashMap<u64, Arc<AtomicWaker>>)>,
    forced: AtomicBool,
    keeps: AtomicBool,
    hands_over: AtomicBool,
    phase: watch::Sender<Phase>,
}

/// Phase of the process, as its tasks see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Forced,
}

impl Default for ShutdownSignal {
    fn default() -> Self {
        Self {
            reason: OnceLock::new(),
            wakers: Mutex::default(),
            forced: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            hands_over: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Running),
        }
    }
}

impl ShutdownSignal {
    /// Triggers the shutdown. The first reason is kept.
    pub fn trigger(&self, shutdown: Shutdown) {
        let _ = self.reason.set(shutdown);
        self.notify(Phase::Draining);
    }

    /// As [`ShutdownSignal::trigger`], but sessions that the next process can continue go on until
    /// [`ShutdownSignal::hand_over`].
    pub fn trigger_restart(&self, shutdown: Shutdown) {
        self.keeps.store(true, Ordering::Release);
        self.trigger(shutdown);
    }

    /// Leaves the sessions to the next process.
    pub fn hand_over(&self) {
        self.hands_over.store(true, Ordering::Release);
        self.notify(Phase::Draining);
    }

    /// Forces the exit without draining. Records are still written.
    pub fn force(&self) {
        self.forced.store(true, Ordering::Release);
        self.notify(Phase::Forced);
    }

    fn notify(&self, phase: Phase) {
        self.phase.send_modify(|current| *current = phase.max(*current));
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in wakers.1.values() {
            waker.wake();
        }
    }

    /// Returns the reason once the shutdown was triggered.
    #[must_use]
    pub fn triggered(&self) -> Option<Shutdown> {
        self.reason.get().copied()
    }

    /// Returns when the shutdown is triggered.
    pub async fn wait(&self) {
        // The sender is owned by self: the channel cannot close during this borrow.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Returns when the exit is forced.
    pub async fn wait_for_force(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= Phase::Forced).await;
    }

    /// Returns a listener for a task that is polled.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Listener {
        let waker = Arc::new(AtomicWaker::new());
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.0 += 1;
        let id = wakers.0;
        wakers.1.insert(id, Arc::clone(&waker));
        drop(wakers);
        Listener { signal: Arc::clone(self), waker, id }
    }

    /// Returns the memory of a table that had more listeners.
    pub fn shrink(&self) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        let left = wakers.1.len();
        wakers.1.shrink_to(2 * left);
    }
}

/// Wakes one task on each change of the signal.
#[derive(Debug)]
pub struct Listener {
    signal: Arc<ShutdownSignal>,
    waker: Arc<AtomicWaker>,
    id: u64,
}

impl Listener {
    /// Returns the reason of a triggered shutdown; otherwise registers the task to be woken.
    #[must_use]
    pub fn poll(&self, cx: &Context<'_>) -> Option<Shutdown> {
        self.waker.register(cx.waker());
        self.signal.triggered()
    }

    /// Returns whether the exit is forced; otherwise registers the task to be woken.
    #[must_use]
    pub fn poll_forced(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.signal.forced.load(Ordering::Acquire)
    }
}

impl Listener {
    /// Whether the next process continues sessions.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.signal.keeps.load(Ordering::Acquire)
    }

    /// Whether sessions are left to the next process now.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.signal.hands_over.load(Ordering::Acquire)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.signal.wakers.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_listener_that_is_left_after_shrinking_is_woken() {
        let signal = Arc::new(ShutdownSignal::default());
        let capacity = || signal.wakers.lock().unwrap().1.capacity();
        let left = signal.subscribe();
        drop((0..1_000).map(|_| signal.subscribe()).collect::<Vec<_>>());
        assert!(capacity() >= 1_000);
        signal.shrink();
        assert!(capacity() < 10, "{}", capacity());
        let shutdown = Shutdown { signal: Some(15), at: 7 };
        let waiting = tokio::spawn(std::future::poll_fn(move |cx| match left.poll(cx) {
            Some(shutdown) => Poll::Ready(shutdown),
            None => Poll::Pending,
        }));
        tokio::task::yield_now().await;
        signal.trigger(shutdown);
        assert_eq!(waiting.await.unwrap(), shutdown);
    }
}
