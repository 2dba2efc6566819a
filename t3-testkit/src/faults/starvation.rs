//! Lack of CPU of the host, measured by a thread that should run every [`TICK`].
//!
//! A fault that stops dispatch or t3-trace does not stop this thread, so that a wrong record is not
//! excused by the fault itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const TICK: Duration = Duration::from_millis(10);
/// A delay that a busy but sufficient host does not have.
const LATE: Duration = Duration::from_millis(150);

#[derive(Debug, Default)]
struct Shared {
    worst_ms: AtomicU64,
    stopping: AtomicBool,
}

/// The running measurement; stops on drop.
#[derive(Debug)]
pub(super) struct Starvation {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Starvation {
    pub(super) fn measure() -> Self {
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !own.stopping.load(Ordering::Relaxed) {
                let due = Instant::now() + TICK;
                std::thread::sleep(TICK);
                let late = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
                own.worst_ms.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Whether the host lacked CPU so far.
    pub(super) fn was_found(&self) -> bool {
        Duration::from_millis(self.shared.worst_ms.load(Ordering::Relaxed)) >= LATE
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
