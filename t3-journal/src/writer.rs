//! Writer of records: sends each to journald at once if journald takes it without waiting, else
//! from one thread and one bounded queue, again until journald accepts it.
//!
//! Keeps the order and never blocks the caller. A record is dropped only if the queue is full, and
//! set aside only if it can never be sent; both are counted and logged.

mod socket;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::socket::{JournalSocket, SendError, Wait};
use crate::sink::Sink;

/// journald's native socket.
pub const JOURNALD_SOCKET: &str = "/run/systemd/journal/socket";

/// Records queued while journald is unavailable; at 1.5 KiB each about 100 MiB.
pub const DEFAULT_BOUND: usize = 65_536;

const RETRY: Duration = Duration::from_millis(100);
/// Bytes of a record in the message about it.
const SHORTENED: usize = 300;

/// Fields of one journald entry.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// Result of writing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// journald accepted the record, or it is on stderr.
    Written,
    /// Lost, because the queue was full.
    Dropped,
    /// Set aside, because it can never be sent.
    Rejected,
}

/// Counts since the start of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records accepted by journald.
    pub written: u64,
    /// Records lost because the queue was full.
    pub dropped: u64,
    /// Records set aside because they can never be sent.
    pub rejected: u64,
    /// Records not yet accepted by journald.
    pub waiting: u64,
}

struct Entry {
    /// The datagram for journald, or the line for stderr.
    bytes: Vec<u8>,
    done: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// The thread is sending one entry.
    sending: bool,
    accepted: u64,
    written: u64,
    dropped: u64,
    rejected: u64,
    stopping: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    bound: usize,
    identifier: &'static str,
    output: Output,
}

enum Output {
    Journald(JournalSocket),
    Stderr,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handle of the writer; cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    /// Starts the writer thread. `identifier` becomes `SYSLOG_IDENTIFIER`; `bound` is the capacity
    /// of the queue in records.
    ///
    /// # Errors
    /// When the thread or the socket cannot be created. An unavailable journald is not an error.
    pub fn start(identifier: &'static str, sink: Sink, bound: usize) -> io::Result<Self> {
        let path = std::env::var_os("T3_JOURNALD_SOCKET")
            .map_or_else(|| PathBuf::from(JOURNALD_SOCKET), PathBuf::from);
        Self::start_with(identifier, sink, &path, bound)
    }

    /// As [`Writer::start`], with the path of journald's socket.
    ///
    /// # Errors
    /// When the thread or the socket cannot be created.
    pub fn start_with(identifier: &'static str, sink: Sink, socket: &Path, bound: usize) -> io::Result<Self> {
        let output = match sink {
            Sink::Journald => Output::Journald(JournalSocket::new(socket)?),
            Sink::Stderr => Output::Stderr,
        };
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { queue, changed, bound, identifier, output });
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new().name("records".to_owned()).spawn(move || run(&thread_shared))?;
        Ok(Self { shared })
    }

    /// Sends a record, or queues it if journald does not take it at once. The receiver gets the
    /// outcome; it need not be awaited.
    pub fn write(&self, fields: Fields) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        let bytes = self.shared.output.encode(self.shared.identifier, &fields);
        let mut queue = self.shared.lock();
        // The lock is held while it is sent, so that no later record overtakes it.
        if queue.entries.is_empty()
            && !queue.sending
            && let Output::Journald(socket) = &self.shared.output
        {
            let error = match socket.send(&bytes, Wait::Never) {
                Ok(()) => None,
                Err(SendError::Permanent(error)) => Some(error),
                Err(SendError::Temporary(_)) => {
                    self.shared.enqueue(queue, Entry { bytes, done });
                    return outcome;
                }
            };
            queue.accepted += 1;
            let result = queue.count(error.is_none());
            drop(queue);
            if let Some(error) = error {
                report_rejected(&bytes, error);
            }
            let _ = done.send(result);
            return outcome;
        }
        self.shared.enqueue(queue, Entry { bytes, done });
        outcome
    }

    /// Records lost since the start because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Records not yet accepted by journald.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let queue = self.shared.lock();
        queue.entries.len() + usize::from(queue.sending)
    }

    /// Counts of all records so far; each record is in exactly one of the four.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = self.shared.lock();
        let Queue { accepted, written, dropped, rejected, .. } = *queue;
        Stats { written, dropped, rejected, waiting: accepted - written - rejected }
    }

    /// Blocks up to `timeout` until all records are written. Returns the number of records left.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        let mut queue = self.shared.lock();
        loop {
            let left = queue.entries.len() + usize::from(queue.sending);
            let now = Instant::now();
            if left == 0 || now >= deadline {
                return left;
            }
            queue = self
                .shared
                .changed
                .wait_timeout(queue, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Only the thread and this handle are left, so no further record can be queued.
        if Arc::strong_count(&self.shared) <= 2 {
            self.shared.lock().stopping = true;
            self.shared.changed.notify_all();
        }
    }
}

impl Shared {
    fn enqueue(&self, mut queue: std::sync::MutexGuard<'_, Queue>, entry: Entry) {
        if queue.entries.len() >= self.bound {
            queue.dropped += 1;
            drop(queue);
            let _ = entry.done.send(Outcome::Dropped);
            return;
        }
        queue.accepted += 1;
        queue.entries.push_back(entry);
        drop(queue);
        self.changed.notify_all();
    }
}

impl Queue {
    /// Counts a record that was sent or set aside.
    fn count(&mut self, sent: bool) -> Outcome {
        if sent {
            self.written += 1;
            Outcome::Written
        } else {
            self.rejected += 1;
            Outcome::Rejected
        }
    }
}

fn run(shared: &Shared) {
    let mut reported = 0;
    loop {
        let mut queue = shared.lock();
        let entry = loop {
            if let Some(entry) = queue.entries.pop_front() {
                queue.sending = true;
                break entry;
            }
            if queue.stopping {
                return;
            }
            queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        let dropped = queue.dropped;
        drop(queue);
        let sent = shared.output.send(&entry.bytes);
        if dropped > reported {
            tracing::error!(
                records = dropped - reported,
                "records lost: the queue was full while journald was unavailable"
            );
            reported = dropped;
        }
        // Counted before the outcome is sent, so that the receiver finds it counted; `sending`
        // stays set until then, for `flush`.
        let outcome = shared.lock().count(sent);
        let _ = entry.done.send(outcome);
        shared.lock().sending = false;
        shared.changed.notify_all();
    }
}

impl Output {
    fn encode(&self, identifier: &str, fields: &Fields) -> Vec<u8> {
        match self {
            Self::Stderr => {
                let message = fields.iter().find(|(name, _)| name == "MESSAGE");
                message.map_or_else(Vec::new, |(_, value)| value.clone().into_bytes())
            }
            Self::Journald(_) => {
                let own = fields.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
                let all = own.chain(std::iter::once(("SYSLOG_IDENTIFIER", identifier)));
                t3_record::journal::datagram(all)
            }
        }
    }

    /// Sends the record; retries until journald accepts it. Returns `false` if it can never be
    /// sent.
    fn send(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Stderr => {
                let line = [bytes, b"\n"].concat();
                // With stderr closed the error cannot be reported.
                let _ = io::stderr().lock().write_all(&line);
                true
            }
            Self::Journald(socket) => {
                let mut reported = false;
                // While journald is stopped and systemd holds its socket, send blocks, as intended;
                // if the socket is missing, send fails and is retried.
                loop {
                    match socket.send(bytes, Wait::ForRoom) {
                        Ok(()) => return true,
                        Err(SendError::Permanent(error)) => {
                            report_rejected(bytes, error);
                            return false;
                        }
                        Err(SendError::Temporary(error)) if !reported => {
                            let path = socket.path().display();
                            let _ = writeln!(
                                io::stderr().lock(),
                                "cannot send records to journald ({path}): {error}; keeping them"
                            );
                            reported = true;
                        }
                        Err(SendError::Temporary(_)) => {}
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }
}

/// Logs a record that was set aside, shortened. Its MESSAGE is its first field.
fn report_rejected(bytes: &[u8], error: rustix::io::Errno) {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(SHORTENED)]);
    tracing::error!(length = bytes.len(), "cannot send a record to journald: {error}; left out: {start:?}");
}
