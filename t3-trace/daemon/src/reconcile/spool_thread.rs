//! Thread that writes the changes of the ledger to the spool, so that a slow disk delays no
//! session.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use super::{
    entry::{self, Entry},
    spool::{Spool, SpoolError},
};

/// Time between two syncs to the disk: what a power loss can cost.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two log messages about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

enum Change {
    Put(String, Vec<u8>),
    Remove(String),
    Cursor(String),
    /// Everything before it is on disk.
    Sync(Sender<()>),
}

/// What an earlier daemon left in the spool.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) entries: Vec<(String, Entry)>,
    pub(crate) cursor: Option<String>,
}

/// Handle of the thread.
#[derive(Debug)]
pub(crate) struct SpoolThread {
    changes: Sender<Change>,
}

impl SpoolThread {
    /// Opens the spool and starts the thread; without a spool, records survive only as long as this
    /// process, and the reason is logged.
    pub(crate) fn start(dir: &Path, size: u64) -> (Option<Self>, Restored) {
        let (spool, stored) = match Spool::open(dir, size) {
            Ok(opened) => opened,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    dir = %dir.display(),
                    "cannot use the spool: {error:#}; records that journald does not take are lost if t3-trace ends"
                );
                return (None, Restored::default());
            }
        };
        if let Some(damage) = spool.damage() {
            tracing::warn!(dir = %dir.display(), "the spool is damaged: {damage}");
        }
        let restored = Restored { entries: decoded(stored), cursor: spool.cursor().map(str::to_owned) };
        let (changes, queue) = mpsc::channel();
        let started = std::thread::Builder::new().name("spool".to_owned()).spawn(move || run(spool, &queue));
        match started {
            Ok(_) => (Some(Self { changes }), restored),
            Err(error) => {
                tracing::error!("cannot start the thread of the spool: {error}");
                (None, restored)
            }
        }
    }

    /// Stores an entry.
    pub(crate) fn put(&self, conn: String, entry: &Entry) {
        match entry::encode(entry) {
            Ok(bytes) => self.send(Change::Put(conn, bytes)),
            Err(error) => tracing::error!(conn, "cannot encode an entry of the spool: {error}"),
        }
    }

    /// Removes an entry.
    pub(crate) fn remove(&self, conn: String) {
        self.send(Change::Remove(conn));
    }

    /// Stores the position in the journal.
    pub(crate) fn set_cursor(&self, cursor: String) {
        self.send(Change::Cursor(cursor));
    }

    /// Waits until all changes are on disk, up to `timeout`.
    pub(crate) fn sync(&self, timeout: Duration) {
        let (done, wait) = mpsc::channel();
        self.send(Change::Sync(done));
        let _ = wait.recv_timeout(timeout);
    }

    fn send(&self, change: Change) {
        // Fails only if the thread panicked.
        let _ = self.changes.send(change);
    }
}

fn decoded(stored: BTreeMap<String, Vec<u8>>) -> Vec<(String, Entry)> {
    let decode = |(conn, bytes): (String, Vec<u8>)| match entry::decode(&bytes) {
        Ok(entry) => Some((conn, entry)),
        Err(error) => {
            tracing::warn!(conn, "cannot decode an entry of the spool: {error}; leaving it out");
            None
        }
    };
    stored.into_iter().filter_map(decode).collect()
}

fn run(mut spool: Spool, queue: &Receiver<Change>) {
    let mut trouble = Trouble::default();
    let mut synced_at = Instant::now();
    let mut is_dirty = false;
    loop {
        let next = if is_dirty {
            queue.recv_timeout(SYNC_INTERVAL.saturating_sub(synced_at.elapsed()))
        } else {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let mut waiting = Vec::new();
        let is_last = matches!(next, Err(RecvTimeoutError::Disconnected));
        // All that is queued goes to the kernel in one write.
        for change in next.ok().into_iter().chain(queue.try_iter()) {
            is_dirty = true;
            let done = match change {
                Change::Put(conn, bytes) => spool.put(&conn, &bytes),
                Change::Remove(conn) => spool.remove(&conn),
                Change::Cursor(cursor) => spool.set_cursor(&cursor),
                Change::Sync(done) => {
                    waiting.push(done);
                    Ok(())
                }
            };
            trouble.log(done);
        }
        trouble.log(spool.flush());
        if is_last || !waiting.is_empty() || synced_at.elapsed() >= SYNC_INTERVAL {
            trouble.log(spool.sync());
            (synced_at, is_dirty) = (Instant::now(), false);
        }
        for done in waiting {
            let _ = done.send(());
        }
        if is_last {
            return;
        }
    }
}

#[derive(Default)]
struct Trouble {
    logged_at: Option<Instant>,
    since: u64,
}

impl Trouble {
    fn log(&mut self, done: Result<(), SpoolError>) {
        let Err(error) = done else { return };
        self.since += 1;
        if self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            let error = anyhow::Error::from(error);
            tracing::error!(failures = self.since, "cannot write the spool: {error:#}");
            (self.logged_at, self.since) = (Some(Instant::now()), 0);
        }
    }
}
