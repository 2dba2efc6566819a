//! Destination of records and log lines.

/// Destination of records and log lines, after [`crate::LogTarget::resolve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// journald's native socket.
    Journald,
    /// Readable lines on stderr.
    Stderr,
}
