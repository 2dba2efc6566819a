//! Lintian, the package checker of Debian. Errors fail; overrides with reasons are in the packages.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::tools::progress;
use crate::tools::run::run_quiet;

const LIMIT: Duration = Duration::from_secs(300);

/// Runs lintian over the packages; warnings are printed, errors fail.
pub fn check(debs: &[PathBuf]) -> Result<()> {
    progress::step("lintian");
    let mut lintian = Command::new("lintian");
    // Containers build as root.
    lintian.args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"]).args(debs);
    let finished = run_quiet("lintian", lintian, LIMIT)?;
    for line in finished.output.lines().filter(|line| !line.trim().is_empty()) {
        progress::note(line);
    }
    if !finished.ok() {
        let what = if finished.status.is_some() { "found errors in the packages" } else { "did not finish" };
        bail!("lintian {what} ({})", finished.how());
    }
    Ok(())
}
