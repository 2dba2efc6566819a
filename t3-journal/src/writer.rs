//! Writer of records: one thread and one bounded queue; a datagram is sent again until journald
//! accepts it.
//!
//! Keeps the order and never blocks the caller. A record is dropped only if the queue is full;
//! drops are counted and logged.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::sink::Sink;

/// journald's native socket.
pub const JOURNALD_SOCKET: &str = "/run/systemd/journal/socket";

/// Records queued while journald is unavailable; at 1.5 KiB each about 100 MiB.
pub const DEFAULT_BOUND: usize = 65_536;

const RETRY: Duration = Duration::from_millis(100);

/// Fields of one journald entry.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// Result of writing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// journald accepted the record, or it is on stderr.
    Written,
    /// Lost, because the queue was full.
    Dropped,
}

/// Counts since the start of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records accepted by journald.
    pub written: u64,
    /// Records lost because the queue was full.
    pub dropped: u64,
    /// Records not yet accepted by journald.
    pub waiting: u64,
}

struct Entry {
    fields: Fields,
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
    stopping: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    bound: usize,
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
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), bound });
        let output = match sink {
            Sink::Journald => Output::Journald { socket: UnixDatagram::unbound()?, path: socket.to_owned() },
            Sink::Stderr => Output::Stderr,
        };
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || run(&thread_shared, identifier, &output))?;
        Ok(Self { shared })
    }

    /// Queues a record. The receiver gets the outcome; it need not be awaited.
    pub fn write(&self, fields: Fields) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        let mut queue = self.shared.lock();
        if queue.entries.len() >= self.shared.bound {
            queue.dropped += 1;
            drop(queue);
            let _ = done.send(Outcome::Dropped);
            return outcome;
        }
        queue.accepted += 1;
        queue.entries.push_back(Entry { fields, done });
        drop(queue);
        self.shared.changed.notify_all();
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

    /// Counts of all records so far; each record is in exactly one of the three.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = self.shared.lock();
        Stats { written: queue.written, dropped: queue.dropped, waiting: queue.accepted - queue.written }
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

enum Output {
    Journald { socket: UnixDatagram, path: PathBuf },
    Stderr,
}

fn run(shared: &Shared, identifier: &str, output: &Output) {
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
        output.send(identifier, &entry.fields);
        if dropped > reported {
            tracing::error!(
                records = dropped - reported,
                "records lost: the queue was full while journald was unavailable"
            );
            reported = dropped;
        }
        // Counted before the outcome is sent, so that the receiver finds it counted; `sending`
        // stays set until then, for `flush`.
        shared.lock().written += 1;
        let _ = entry.done.send(Outcome::Written);
        shared.lock().sending = false;
        shared.changed.notify_all();
    }
}

impl Output {
    /// Sends the record; retries until journald accepts it.
    fn send(&self, identifier: &str, fields: &Fields) {
        match self {
            Self::Stderr => {
                let message =
                    fields.iter().find(|(name, _)| name == "MESSAGE").map_or("", |(_, value)| value);
                // With stderr closed the error cannot be reported.
                let _ = writeln!(io::stderr().lock(), "{message}");
            }
            Self::Journald { socket, path } => {
                let all = fields
                    .iter()
                    .map(|(name, value)| (name.as_ref(), value.as_str()))
                    .chain(std::iter::once(("SYSLOG_IDENTIFIER", identifier)));
                let datagram = t3_record::journal::datagram(all);
                let mut reported = false;
                // While journald is stopped and systemd holds its socket, send blocks, as intended;
                // if the socket is missing, send fails and is retried.
                while let Err(error) = socket.send_to(&datagram, path) {
                    if !reported {
                        let _ = writeln!(
                            io::stderr().lock(),
                            "cannot send records to journald ({}): {error}; keeping them",
                            path.display()
                        );
                        reported = true;
                    }
                    std::thread::sleep(RETRY);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize) -> Fields {
        vec![("MESSAGE".into(), format!("record {n}"))]
    }

    fn message(datagram: &[u8]) -> String {
        let text = String::from_utf8_lossy(datagram);
        text.lines().find_map(|line| line.strip_prefix("MESSAGE=")).unwrap_or_default().to_owned()
    }

    #[test]
    fn records_wait_for_journald_and_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let writer = Writer::start_with("test", Sink::Journald, &path, 100).unwrap();
        let mut outcomes: Vec<_> = (0..40).map(|n| writer.write(entry(n))).collect();
        assert_eq!(writer.flush(Duration::from_millis(50)), 40);
        assert_eq!(writer.stats(), Stats { written: 0, dropped: 0, waiting: 40 });

        let journald = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 4096];
        for n in 0..40 {
            let length = journald.recv(&mut buffer).unwrap();
            assert_eq!(message(&buffer[..length]), format!("record {n}"));
        }
        assert_eq!(writer.flush(Duration::from_secs(10)), 0);
        assert!(outcomes.iter_mut().all(|o| o.try_recv() == Ok(Outcome::Written)));
        assert_eq!(writer.stats(), Stats { written: 40, dropped: 0, waiting: 0 });
    }

    #[test]
    fn records_above_the_bound_are_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
        let outcomes: Vec<_> = (0..20).map(|n| writer.write(entry(n))).collect();
        let dropped = writer.dropped();
        // The thread may be sending one in addition to the five in the queue.
        assert!((14..=15).contains(&dropped), "{dropped}");
        let notified = outcomes
            .into_iter()
            .filter_map(|mut o| o.try_recv().ok())
            .filter(|o| *o == Outcome::Dropped)
            .count();
        assert_eq!(notified as u64, dropped);
        assert_eq!(writer.stats(), Stats { written: 0, dropped, waiting: 20 - dropped });
    }

    #[test]
    fn a_value_with_a_newline_stays_one_field() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
        drop(writer.write(vec![("T3_X".into(), "a\nT3_FORGED=1".into())]));
        let mut buffer = [0; 4096];
        let length = journald.recv(&mut buffer).unwrap();
        let mut expected = b"T3_X\n".to_vec();
        expected.extend_from_slice(&13u64.to_le_bytes());
        expected.extend_from_slice(b"a\nT3_FORGED=1\nSYSLOG_IDENTIFIER=test\n");
        assert_eq!(&buffer[..length], expected);
    }
}
