//! Errors of the set-up of a test, as opposed to its findings: what was attempted, and on what.

use std::{io, time::Duration};

/// Error of the set-up of a test.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A system call or a file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, and on what.
        what: String,
        source: io::Error,
    },
    /// A condition did not become true in time.
    #[error("{what} did not happen within {:.1} s", after.as_secs_f32())]
    Timeout { what: String, after: Duration },
    /// A result that the protocol or the set-up does not allow.
    #[error("{what}: {got}")]
    Unexpected {
        /// What was expected.
        what: String,
        got: String,
    },
    /// This host or user lacks something.
    #[error("{what} is missing: {remedy}")]
    Missing { what: String, remedy: String },
}

pub type Result<T, E = TestError> = std::result::Result<T, E>;

/// Adds what was attempted to an [`io::Error`].
pub trait Attempt<T> {
    /// Names what was attempted; `what` is called only on failure.
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| TestError::Io { what: what(), source: source.into() })
    }
}
