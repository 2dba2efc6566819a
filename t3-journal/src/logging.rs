//! Choice between journald and stderr, and the `tracing` subscriber, which writes through
//! [`crate::log_queue`]. Writes no records.

use std::{io::IsTerminal, str::FromStr};

use crate::{
    log_queue::{BOUND, LogQueue, Output},
    sink::Sink,
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Value of `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// journald if stderr is connected to it (`JOURNAL_STREAM`), else stderr.
    #[default]
    Auto,
    /// journald.
    Journald,
    /// Readable lines on stderr.
    Stderr,
}

/// A word that is not a log target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log target {0:?}; expected one of: auto, journald, stderr")]
pub struct UnknownLogTarget(pub String);

impl FromStr for LogTarget {
    type Err = UnknownLogTarget;
    fn from_str(text: &str) -> Result<Self, UnknownLogTarget> {
        match text {
            "auto" => Ok(Self::Auto),
            "journald" => Ok(Self::Journald),
            "stderr" => Ok(Self::Stderr),
            _ => Err(UnknownLogTarget(text.to_owned())),
        }
    }
}

impl LogTarget {
    /// Returns the sink. systemd sets `JOURNAL_STREAM=dev:inode` for a stderr that it connects to
    /// the journal; a child that redirected its stderr still has the variable, so device and inode
    /// are compared (systemd.exec(5)).
    #[must_use]
    pub fn resolve(self) -> Sink {
        match self {
            Self::Journald => Sink::Journald,
            Self::Stderr => Sink::Stderr,
            Self::Auto => {
                let stream = std::env::var("JOURNAL_STREAM").ok();
                let stderr = rustix::fs::fstat(std::io::stderr()).ok().map(|s| (s.st_dev, s.st_ino));
                match (stream.as_deref().and_then(device_inode), stderr) {
                    (Some(journal), Some(stderr)) if journal == stderr => Sink::Journald,
                    _ => Sink::Stderr,
                }
            }
        }
    }
}

fn device_inode(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Invalid filter.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// Error of the parser.
        source: tracing_subscriber::filter::ParseError,
    },
    /// No socket to journald, or no thread.
    #[error("cannot start the log: {0}")]
    Start(#[from] std::io::Error),
    /// A subscriber is installed already.
    #[error("cannot install the log subscriber: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Checks a filter as [`init`] does.
///
/// # Errors
/// [`InitError::Filter`] if it is invalid.
pub fn check_filter(filter: &str) -> Result<(), InitError> {
    parsed(filter).map(drop)
}

fn parsed(filter: &str) -> Result<EnvFilter, InitError> {
    EnvFilter::try_new(filter).map_err(|source| InitError::Filter { filter: filter.to_owned(), source })
}

/// Installs the subscriber of the process. `filter` has the syntax of
/// `tracing_subscriber::EnvFilter`, for example `info`.
///
/// # Errors
/// [`InitError`] if the filter is invalid or a subscriber is installed already.
pub fn init(identifier: &str, sink: Sink, filter: &str) -> Result<(), InitError> {
    let filter = parsed(filter)?;
    let queue = LogQueue::start(Output::new(sink, identifier)?, BOUND)?;
    queue.install();
    let format = tracing_subscriber::fmt::layer().with_target(false).with_writer(queue);
    let layer = match sink {
        // journald has separate fields for time and level.
        Sink::Journald => format.without_time().with_level(false).with_ansi(false).boxed(),
        Sink::Stderr => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = std::io::stderr().is_terminal() && !no_color;
            format.with_ansi(colour).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_stream_is_read_strictly() {
        assert_eq!(device_inode("8:1234"), Some((8, 1234)));
        for text in ["", "8", "8:", ":1", "a:b", "8:1:2"] {
            assert_eq!(device_inode(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_log_target_is_named() {
        assert_eq!(
            "journal".parse::<LogTarget>().unwrap_err().to_string(),
            "unknown log target \"journal\"; expected one of: auto, journald, stderr"
        );
    }
}
