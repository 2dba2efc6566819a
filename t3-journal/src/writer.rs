//! The writer of records: one thread, one bounded queue, in order, and a datagram is tried again
//! until journald has taken it.
//!
//! Never blocks the caller and never drops a record while there is room; what did not fit is
//! counted and said.

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

/// How many records wait at most while journald is away: at 1.5 KiB each about 100 MiB.
pub const DEFAULT_BOUND: usize = 65_536;

const RETRY: Duration = Duration::from_millis(100);

/// One journald entry's fields.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// journald has it (or stderr took the line).
    Written,
    /// The queue was full: it is lost, and counted.
    Dropped,
}

/// What a writer has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records that are out.
    pub written: u64,
    /// Records lost to a full queue.
    pub dropped: u64,
    /// Records that wait for journald.
    pub waiting: u64,
}

struct Entry {
    fields: Fields,
    told: oneshot::Sender<Outcome>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// The thread holds one entry that journald has not taken yet.
    in_hand: bool,
    taken: u64,
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

/// A handle on the writer; cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    /// Starts the writer's thread. `identifier` becomes `SYSLOG_IDENTIFIER`; more than `bound`
    /// records do not wait.
    ///
    /// # Errors
    /// When the thread or the socket cannot be made. A journald that is away is no error.
    pub fn start(identifier: &'static str, sink: Sink, bound: usize) -> io::Result<Self> {
        let path = std::env::var_os("T3_JOURNALD_SOCKET")
            .map_or_else(|| PathBuf::from(JOURNALD_SOCKET), PathBuf::from);
        Self::start_with(identifier, sink, &path, bound)
    }

    /// [`Writer::start`] with another socket.
    ///
    /// # Errors
    /// When the thread or the socket cannot be made.
    pub fn start_with(identifier: &'static str, sink: Sink, socket: &Path, bound: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), bound });
        let output = match sink {
            Sink::Journald => Output::Journald { socket: UnixDatagram::unbound()?, path: socket.to_owned() },
            Sink::Stderr => Output::Stderr,
        };
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || run(&theirs, identifier, &output))?;
        Ok(Self { shared })
    }

    /// Hands a record over. The receiver tells when it is written; it need not be awaited.
    pub fn write(&self, fields: Fields) -> oneshot::Receiver<Outcome> {
        let (told, outcome) = oneshot::channel();
        let mut queue = self.shared.lock();
        if queue.entries.len() >= self.shared.bound {
            queue.dropped += 1;
            drop(queue);
            let _ = told.send(Outcome::Dropped);
            return outcome;
        }
        queue.taken += 1;
        queue.entries.push_back(Entry { fields, told });
        drop(queue);
        self.shared.changed.notify_all();
        outcome
    }

    /// Records lost to a full queue since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Records that wait for journald.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let queue = self.shared.lock();
        queue.entries.len() + usize::from(queue.in_hand)
    }

    /// What has become of all records so far: each that was handed over is in exactly one of the
    /// three counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queue = self.shared.lock();
        Stats { written: queue.written, dropped: queue.dropped, waiting: queue.taken - queue.written }
    }

    /// Blocks until everything is written, at most for `patience`. Returns how many records are
    /// left.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let mut queue = self.shared.lock();
        loop {
            let left = queue.entries.len() + usize::from(queue.in_hand);
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
        // The thread and this handle are the last two: nobody can write any more.
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
                queue.in_hand = true;
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
                "records lost: journald was away for longer than the queue holds"
            );
            reported = dropped;
        }
        // Counted before it is told, so that whoever is told finds it counted; and in hand until it
        // is told, for `flush`.
        shared.lock().written += 1;
        let _ = entry.told.send(Outcome::Written);
        shared.lock().in_hand = false;
        shared.changed.notify_all();
    }
}

impl Output {
    /// Returns when the record is out; tries for as long as it takes.
    fn send(&self, identifier: &str, fields: &Fields) {
        match self {
            Self::Stderr => {
                let message =
                    fields.iter().find(|(name, _)| name == "MESSAGE").map_or("", |(_, value)| value);
                // Nobody is left to tell when stderr itself is closed.
                let _ = writeln!(io::stderr().lock(), "{message}");
            }
            Self::Journald { socket, path } => {
                let all = fields
                    .iter()
                    .map(|(name, value)| (name.as_ref(), value.as_str()))
                    .chain(std::iter::once(("SYSLOG_IDENTIFIER", identifier)));
                let datagram = t3_record::journal::datagram(all);
                let mut told = false;
                // A send to a stopped journald whose socket systemd holds blocks here, which is
                // what we want; when the socket itself is gone the send fails, and is tried again.
                while let Err(error) = socket.send_to(&datagram, path) {
                    if !told {
                        let _ = writeln!(
                            io::stderr().lock(),
                            "journald does not take records ({}): {error}; keeping them",
                            path.display()
                        );
                        told = true;
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
    fn records_wait_for_a_journald_that_is_away_and_keep_their_order() {
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
    fn beyond_the_bound_a_record_is_dropped_told_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
        let outcomes: Vec<_> = (0..20).map(|n| writer.write(entry(n))).collect();
        let dropped = writer.dropped();
        // One may be in the thread's hand beside the five that wait.
        assert!((14..=15).contains(&dropped), "{dropped}");
        let told = outcomes
            .into_iter()
            .filter_map(|mut o| o.try_recv().ok())
            .filter(|o| *o == Outcome::Dropped)
            .count();
        assert_eq!(told as u64, dropped);
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
