//! Destination of records and log lines, once decided.

/// Where to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// journald's native socket.
    Journald,
    /// Readable lines on stderr.
    Stderr,
}
