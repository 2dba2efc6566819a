//! Not written yet.
use crate::cli::BenchArgs;
use anyhow::{Result, bail};
use std::process::ExitCode;
pub fn run(_args: &BenchArgs) -> Result<ExitCode> {
    bail!("not written yet")
}
