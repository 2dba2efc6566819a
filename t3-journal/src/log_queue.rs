//! Log lines on their way out: one thread, one bounded queue. Whoever logs never waits: a journald
//! that stands still, or a stderr that nobody reads, costs lines, which are counted and said, and
//! never the event loop.
//!
//! Carries log lines only; records have the [`crate::writer`], which loses none.

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

/// How many lines wait at most.
pub const BOUND: usize = 4096;

/// The process has one log, as it has one subscriber.
static LOG: OnceLock<Lines> = OnceLock::new();

/// Where the lines go in.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: SyncSender<(Level, String)>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// What a line is written to.
pub(crate) enum Output {
    /// tracing-journald, in the writing thread.
    Journald(Dispatch),
    /// Any stream.
    Stream(Box<dyn Write + Send>),
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(crate) fn start(output: Output, bound: usize) -> io::Result<Self> {
        let (queue, lines) = sync_channel(bound);
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || run(&lines, output, &theirs))?;
        Ok(Self { queue, counts })
    }

    /// Makes it the process's log, which [`drain`] empties.
    pub(crate) fn keep(&self) {
        let _ = LOG.set(self.clone());
    }

    fn push(&self, level: Level, line: String) {
        match self.queue.try_send((level, line)) {
            Ok(()) => self.counts.taken.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.counts.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn wait_until_written(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.counts.written.load(Ordering::Acquire) < self.counts.taken.load(Ordering::Acquire)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits until the process's log lines are written, at most for `patience`. For the end of a
/// program.
pub fn drain(patience: Duration) {
    if let Some(log) = LOG.get() {
        log.wait_until_written(patience);
    }
}

/// Log lines of the process left out since the start, because they came faster than they could be
/// written.
#[must_use]
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.counts.dropped.load(Ordering::Relaxed))
}

fn run(lines: &Receiver<(Level, String)>, mut output: Output, counts: &Counts) {
    let mut told = 0;
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok((level, line)) => {
                output.write(level, &line);
                counts.written.fetch_add(1, Ordering::Release);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > told {
            output.write(
                Level::WARN,
                &format!(
                    "{} log lines were left out: they came faster than they could be written",
                    dropped - told
                ),
            );
            told = dropped;
        }
    }
}

impl Output {
    pub(crate) fn of(sink: Sink, identifier: &str) -> io::Result<Self> {
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
            // Nobody is left to tell when stderr itself is closed.
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

/// One line being formatted; it is handed over when it is dropped.
#[derive(Debug)]
pub struct Line {
    lines: Lines,
    level: Level,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        self.lines.push(self.level, text.trim_end().to_owned());
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { lines: self.clone(), level: Level::INFO, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { lines: self.clone(), level: *meta.level(), text: Vec::new() }
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
    fn lines_come_out_in_order_and_can_be_waited_for() {
        let kept = Kept::default();
        let lines = Lines::start(Output::Stream(Box::new(kept.clone())), BOUND).unwrap();
        for n in 0..100 {
            let mut line = lines.make_writer();
            writeln!(line, "line {n}").unwrap();
        }
        lines.wait_until_written(Duration::from_secs(10));
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_stream_that_nobody_reads_costs_lines_and_not_the_caller() {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let lines = Lines::start(Output::Stream(Box::new(ours)), 10).unwrap();
        let long = "x".repeat(100_000);
        // Far more than the stream and the queue hold: this would block for ever if it could.
        for _ in 0..200 {
            lines.push(Level::INFO, long.clone());
        }
        let (taken, dropped) =
            (lines.counts.taken.load(Ordering::Relaxed), lines.counts.dropped.load(Ordering::Relaxed));
        assert_eq!(taken + dropped, 200);
        assert!(dropped > 100, "{dropped}");
        drop(theirs);
    }
}
