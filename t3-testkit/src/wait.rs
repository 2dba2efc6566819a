//! Polls a condition until it holds or a deadline passes, in place of fixed sleeps.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::error::{Result, TestError};

/// Environment variable with a factor for all timeouts; an emulated guest is ten times slower.
pub const TIMEOUT_FACTOR_VARIABLE: &str = "T3_TIMEOUT_FACTOR";

/// A timeout multiplied by the factor of this host.
#[must_use]
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        let factor = std::env::var(TIMEOUT_FACTOR_VARIABLE).ok().and_then(|factor| factor.parse().ok());
        factor.unwrap_or(1).clamp(1, 100)
    });
    limit * *factor
}

/// Interval between two checks.
const STEP: Duration = Duration::from_millis(10);

/// Polls until `look` returns a value.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let limit = scaled(limit);
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
