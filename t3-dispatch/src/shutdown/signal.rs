//! Shutdown signal and its listeners. Set once, never reset; a second signal forces the exit.
//!
//! A relay looks at it each time it runs (one atomic load) and leaves a waker here; a watch channel
//! per session would cost each of them a lock on every message.

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

/// Shutdown signal.
#[derive(Debug)]
pub struct Stop {
    said: OnceLock<Shutdown>,
    sleepers: Mutex<(u64, HashMap<u64, Arc<AtomicWaker>>)>,
    hurried: AtomicBool,
    said_to_tasks: watch::Sender<Word>,
}

/// Phase seen by tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    None,
    Stop,
    Hurry,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            said: OnceLock::new(),
            sleepers: Mutex::default(),
            hurried: AtomicBool::new(false),
            said_to_tasks: watch::Sender::new(Word::None),
        }
    }
}

impl Stop {
    /// Triggers the shutdown. The first reason is kept.
    pub fn say(&self, shutdown: Shutdown) {
        let _ = self.said.set(shutdown);
        self.tell(Word::Stop);
    }

    /// Forces the exit without draining. Records are still written.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.tell(Word::Hurry);
    }

    fn tell(&self, word: Word) {
        self.said_to_tasks.send_modify(|said| *said = word.max(*said));
        let sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        for sleeper in sleepers.1.values() {
            sleeper.wake();
        }
    }

    /// Who said it, if anybody.
    #[must_use]
    pub fn said(&self) -> Option<Shutdown> {
        self.said.get().copied()
    }

    /// Returns when it is said.
    pub async fn wait(&self) {
        // The sender lives in self: the channel cannot close under this borrow.
        let _ = self.said_to_tasks.subscribe().wait_for(|said| *said >= Word::Stop).await;
    }

    /// Returns when nobody is to wait any more.
    pub async fn wait_for_hurry(&self) {
        let _ = self.said_to_tasks.subscribe().wait_for(|said| *said >= Word::Hurry).await;
    }

    /// A place to sleep in until it is said.
    #[must_use]
    pub fn enrol(self: &Arc<Self>) -> Listener {
        let waker = Arc::new(AtomicWaker::new());
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        sleepers.0 += 1;
        let id = sleepers.0;
        sleepers.1.insert(id, Arc::clone(&waker));
        drop(sleepers);
        Listener { stop: Arc::clone(self), waker, id }
    }
}

/// One that will be woken by the word.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<Stop>,
    waker: Arc<AtomicWaker>,
    id: u64,
}

impl Listener {
    /// Whether it was said; if not, the task is woken when it is.
    #[must_use]
    pub fn poll(&self, cx: &Context<'_>) -> Option<Shutdown> {
        self.waker.register(cx.waker());
        self.stop.said()
    }

    /// Whether nobody is to wait any more; if not, the task is woken when it is so.
    #[must_use]
    pub fn poll_hurry(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.stop.hurried.load(Ordering::Acquire)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.sleepers.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.id);
    }
}
