//! Bounded queue of log lines and the thread that writes them.
//!
//! Logging never blocks: if journald stalls or stderr is not read, lines are dropped, counted and
//! reported. Records use [`crate::writer`], which loses none.

use std::{
    io::{self, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::sink::Sink;

/// Capacity of the queue, in lines.
pub const BOUND: usize = 4096;
/// Maximum length of a line in bytes; the rest is cut off.
const LONGEST: usize = 8192;

/// The log of the process; it has one subscriber, too.
static LOG: OnceLock<LogQueue> = OnceLock::new();

/// Sending half of the queue.
#[derive(Debug, Clone)]
pub struct LogQueue {
    queue: SyncSender<(Level, String)>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Destination of the lines.
pub(crate) enum Output {
    /// tracing-journald, called in the writer thread.
    Journald(Dispatch),
    /// Any stream.
    Stream(Box<dyn Write + Send>),
}

impl LogQueue {
    /// Starts the writer thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(output: Output, bound: usize) -> io::Result<Self> {
        let (queue, receiver) = sync_channel(bound);
        let counts = Arc::new(Counts::default());
        let thread_counts = Arc::clone(&counts);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || run(&receiver, output, &thread_counts))?;
        Ok(Self { queue, counts })
    }

    /// Makes this the log of the process, for [`drain`] and [`dropped`].
    pub(crate) fn install(&self) {
        let _ = LOG.set(self.clone());
    }

    fn push(&self, level: Level, line: String) {
        match self.queue.try_send((level, line)) {
            Ok(()) => self.counts.accepted.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.counts.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn wait_until_written(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.counts.written.load(Ordering::Acquire) < self.counts.accepted.load(Ordering::Acquire)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits up to `timeout` until the log lines of the process are written. For the exit of a program.
pub fn drain(timeout: Duration) {
    if let Some(log) = LOG.get() {
        log.wait_until_written(timeout);
    }
}

/// Log lines dropped since the start of the process because the queue was full.
#[must_use]
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.counts.dropped.load(Ordering::Relaxed))
}

fn run(queue: &Receiver<(Level, String)>, mut output: Output, counts: &Counts) {
    let mut reported = 0;
    loop {
        match queue.recv_timeout(Duration::from_secs(1)) {
            Ok((level, line)) => {
                output.write(level, &line);
                counts.written.fetch_add(1, Ordering::Release);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > reported {
            output.write(
                Level::WARN,
                &format!("{} log lines dropped: the log queue was full", dropped - reported),
            );
            reported = dropped;
        }
    }
}

impl Output {
    pub(crate) fn new(sink: Sink, identifier: &str) -> io::Result<Self> {
        use tracing_subscriber::layer::SubscriberExt;
        Ok(match sink {
            Sink::Stderr => Self::Stream(Box::new(io::stderr())),
            Sink::Journald => {
                let layer = tracing_journald::layer()?.with_syslog_identifier(identifier.to_owned());
                Self::Journald(Dispatch::new(tracing_subscriber::registry().with(layer)))
            }
        })
    }

    fn write(&mut self, level: Level, line: &str) {
        match self {
            // With stderr closed the error cannot be reported.
            Self::Stream(stream) => drop(writeln!(stream, "{line}")),
            Self::Journald(journald) => tracing::dispatcher::with_default(journald, || match level {
                Level::ERROR => tracing::error!("{line}"),
                Level::WARN => tracing::warn!("{line}"),
                Level::INFO => tracing::info!("{line}"),
                Level::DEBUG => tracing::debug!("{line}"),
                Level::TRACE => tracing::trace!("{line}"),
            }),
        }
    }
}

/// A line being formatted; queued on drop.
#[derive(Debug)]
pub struct LogLine {
    queue: LogQueue,
    level: Level,
    text: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LONGEST.saturating_sub(self.text.len());
        self.text.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        let more = if self.text.len() == LONGEST { "…" } else { "" };
        self.queue.push(self.level, format!("{}{more}", text.trim_end()));
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: self.clone(), level: Level::INFO, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LogLine {
        LogLine { queue: self.clone(), level: *meta.level(), text: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixStream,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_keep_their_order_and_can_be_awaited() {
        let kept = Kept::default();
        let queue = LogQueue::start(Output::Stream(Box::new(kept.clone())), BOUND).unwrap();
        for n in 0..100 {
            let mut line = queue.make_writer();
            writeln!(line, "line {n}").unwrap();
        }
        queue.wait_until_written(Duration::from_secs(10));
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_long_line_is_cut() {
        let kept = Kept::default();
        let queue = LogQueue::start(Output::Stream(Box::new(kept.clone())), BOUND).unwrap();
        writeln!(queue.make_writer(), "{}", "x".repeat(60_000)).unwrap();
        queue.wait_until_written(Duration::from_secs(10));
        let expected = format!("{}…\n", "x".repeat(LONGEST));
        assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_stream_that_is_not_read_drops_lines_without_blocking() {
        let (reader, stream) = UnixStream::pair().unwrap();
        let queue = LogQueue::start(Output::Stream(Box::new(stream)), 10).unwrap();
        let long = "x".repeat(100_000);
        // Far more than the stream and the queue hold: a blocking push would never return.
        for _ in 0..200 {
            queue.push(Level::INFO, long.clone());
        }
        let (accepted, dropped) =
            (queue.counts.accepted.load(Ordering::Relaxed), queue.counts.dropped.load(Ordering::Relaxed));
        assert_eq!(accepted + dropped, 200);
        assert!(dropped > 100, "{dropped}");
        drop(reader);
    }
}
