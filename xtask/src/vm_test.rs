//! Not written yet.
use crate::cli::VmTestArgs;
use anyhow::{Result, bail};
use std::process::ExitCode;
pub fn run(_args: &VmTestArgs) -> Result<ExitCode> {
    bail!("not written yet")
}
