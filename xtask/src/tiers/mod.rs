//! The test tiers, one file each.

mod dependencies;
pub mod docs;
pub mod fuzz;
pub mod host;
pub mod lint;
pub mod programs;
pub mod rules;
pub mod tier;
pub mod timed;
pub mod unit;
pub mod vm;

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::tools::progress;
use crate::tools::report::{Counts, Step};
use crate::tools::run::{run_quiet, show_failure};

/// Reason why a tier cannot run on this host; not an error of the project.
#[derive(Debug)]
pub struct CannotRun(pub String);

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotRun {}

/// Runs a command that counts as one test; prints its output only when it fails.
fn whole(name: &str, command: Command, limit: Duration) -> Result<Step> {
    progress::step(name);
    let finished = run_quiet(name, command, limit)?;
    if !finished.ok() {
        show_failure(name, &finished);
    }
    let step = Step::new(name, finished.ok(), Counts::one(finished.ok()), finished.time);
    step.say();
    Ok(step)
}

/// Runs a test program, which counts its tests itself.
fn counted(name: &str, command: Command, limit: Duration) -> Result<Step> {
    counted_with_output(name, command, limit).map(|(step, _)| step)
}

/// Like [`counted`], and returns the output.
fn counted_with_output(name: &str, command: Command, limit: Duration) -> Result<(Step, String)> {
    let finished = run_quiet(name, command, limit)?;
    if !finished.ok() {
        show_failure(name, &finished);
    }
    let mut step = Step::new(name, finished.ok(), Counts::read(&finished.output), finished.time);
    if !finished.ok() {
        let why = failed_tests(&finished.output).unwrap_or_else(|| finished.how());
        step = step.because(why).with_reasons_of(&finished.output);
    }
    // Most binaries have no tests; a line for each would hide the others.
    if !step.counts.is_empty() {
        step.say();
    }
    Ok((step, finished.output))
}

/// The names in `test NAME ... FAILED` lines.
fn failed_tests(output: &str) -> Option<String> {
    let name = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
    let names: Vec<String> = output.lines().filter_map(name).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::failed_tests;

    #[test]
    fn failed_tests_are_named() {
        let text = "test a::b ... ok\ntest a::c ... FAILED\ntest d ... FAILED\n";
        assert_eq!(failed_tests(text).as_deref(), Some("a::c, d"));
        assert_eq!(failed_tests("test a ... ok"), None);
    }
}
