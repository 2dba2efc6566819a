//! Not written yet.
use crate::cli::DemoArgs;
use anyhow::{Result, bail};
use std::process::ExitCode;
pub fn run(_args: &DemoArgs) -> Result<ExitCode> {
    bail!("not written yet")
}
