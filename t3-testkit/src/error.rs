//! What can go wrong in a test's surroundings (as opposed to what a test finds out): each says what
//! was attempted and on what.

use std::{io, time::Duration};

/// The test could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A system call or a file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, and on what.
        what: String,
        /// What came back.
        source: io::Error,
    },
    /// Something awaited did not come.
    #[error("{what} did not happen within {:.1} s", after.as_secs_f32())]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// Something else came than the protocol or the set-up allows.
    #[error("{what}: {got}")]
    Unexpected {
        /// What was expected.
        what: String,
        /// What came.
        got: String,
    },
    /// This machine or user lacks something.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What.
        what: String,
        /// What to do about it.
        remedy: String,
    },
}

/// Result of the test kit's functions.
pub type Result<T, E = TestError> = std::result::Result<T, E>;

/// Adds what was attempted to an [`io::Error`].
pub trait Attempt<T> {
    /// Says what was attempted; called only on failure.
    ///
    /// # Errors
    /// The error it was called on, as [`TestError::Io`].
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| TestError::Io { what: what(), source: source.into() })
    }
}
