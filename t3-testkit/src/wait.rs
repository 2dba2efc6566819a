//! Waiting without guessing: polls a condition until it holds or a deadline passes. Never sleeps "long enough".

use std::time::{Duration, Instant};

use crate::error::{Result, TestError};

/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);

/// Polls until `look` gives a value.
///
/// # Errors
/// [`TestError::Timeout`] naming `what` when it gave none within `limit`.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(TestError::Timeout { what: what.to_owned(), after: limit });
        }
        std::thread::sleep(STEP);
    }
}
