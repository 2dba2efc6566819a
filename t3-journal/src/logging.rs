//! Chooses between journald and stderr, and installs the `tracing` subscriber, whose lines go out
//! through [`crate::log_queue`]. Writes no record.

use std::{io::IsTerminal, str::FromStr};

use crate::{
    log_queue::{BOUND, Lines, Output},
    sink::Sink,
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Where to write, as asked by `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// journald when stderr is connected to it (`JOURNAL_STREAM`), else stderr.
    #[default]
    Auto,
    /// journald.
    Journald,
    /// Readable lines on stderr.
    Stderr,
}

/// Not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a place to log to; known: auto journald stderr")]
pub struct UnknownMode(pub String);

impl FromStr for Mode {
    type Err = UnknownMode;
    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "auto" => Ok(Self::Auto),
            "journald" => Ok(Self::Journald),
            "stderr" => Ok(Self::Stderr),
            _ => Err(UnknownMode(text.to_owned())),
        }
    }
}

impl Mode {
    /// Decides. systemd sets `JOURNAL_STREAM=dev:inode` for what it connects to the journal; a
    /// child that redirected its stderr still has the variable, so the numbers are compared
    /// (systemd.exec(5)).
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

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter makes no sense.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// No socket for journald, or no thread for the lines.
    #[error("start the log: {0}")]
    Start(#[from] std::io::Error),
    /// A subscriber is there already.
    #[error("install the log subscriber: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Whether [`init`] would take this filter.
///
/// # Errors
/// [`InitError::Filter`] when it makes no sense.
pub fn check_filter(filter: &str) -> Result<(), InitError> {
    parsed(filter).map(drop)
}

fn parsed(filter: &str) -> Result<EnvFilter, InitError> {
    EnvFilter::try_new(filter).map_err(|source| InitError::Filter { filter: filter.to_owned(), source })
}

/// Installs the subscriber of the process. `filter` in `tracing_subscriber::EnvFilter` syntax,
/// `info` for example.
///
/// # Errors
/// [`InitError`] when the filter is wrong or a subscriber is installed already.
pub fn init(identifier: &str, sink: Sink, filter: &str) -> Result<(), InitError> {
    let filter = parsed(filter)?;
    let lines = Lines::start(Output::of(sink, identifier)?, BOUND)?;
    lines.keep();
    let format = tracing_subscriber::fmt::layer().with_target(false).with_writer(lines);
    let layer = match sink {
        // journald has the time and the level in fields of its own.
        Sink::Journald => format.without_time().with_level(false).with_ansi(false).boxed(),
        Sink::Stderr => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
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
    fn an_unknown_mode_is_named() {
        assert_eq!(
            "journal".parse::<Mode>().unwrap_err().to_string(),
            "\"journal\" is not a place to log to; known: auto journald stderr"
        );
    }
}
