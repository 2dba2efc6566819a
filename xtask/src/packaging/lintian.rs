//! Debian's own opinion of the packages. Errors fail; an override stands in the package, with its
//! reason.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::tools::progress;
use crate::tools::run::run_quiet;

const LIMIT: Duration = Duration::from_secs(300);

/// Runs lintian over the packages; warnings are shown, errors are errors.
pub fn check(debs: &[PathBuf]) -> Result<()> {
    progress::step("lintian");
    let mut lintian = Command::new("lintian");
    // Root builds in containers; the wish not to be is a person's.
    lintian.args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"]).args(debs);
    let finished = run_quiet("lintian", lintian, LIMIT)?;
    for line in finished.output.lines().filter(|line| !line.trim().is_empty()) {
        progress::note(line);
    }
    if !finished.ok() {
        bail!("lintian found errors in the packages ({})", finished.how());
    }
    Ok(())
}
