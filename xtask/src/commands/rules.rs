//! `cargo xtask rules`: the rules of this repository alone, which the lint tier checks too.

use std::process::ExitCode;

use anyhow::Result;

use crate::tiers::lint;

pub fn run() -> Result<ExitCode> {
    let step = lint::rules_step()?;
    Ok(if step.counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
