//! Prerequisites of tests: without them a test is skipped, and fails where `CI` is set.

use std::fmt::Display;

use crate::{
    error::{Result, TestError},
    sys,
};

/// Root, which a private journald, t3-trace's kernel programs and namespaces need.
pub fn root() -> Result<()> {
    if sys::is_root() {
        return Ok(());
    }
    Err(TestError::Missing { what: "root".to_owned(), remedy: "run as root".to_owned() })
}

/// Returns the prerequisite; `None`, after a line on stderr, if the test has to be skipped.
///
/// # Panics
/// It is missing in CI, where no test may be skipped.
pub fn or_skip<T, E: Display>(test: &str, found: Result<T, E>) -> Option<T> {
    found
        .inspect_err(|why| {
            assert!(std::env::var_os("CI").is_none(), "CI must run {test}: {why}");
            eprintln!("SKIPPED {test}: {why}");
        })
        .ok()
}
