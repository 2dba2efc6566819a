//! Not written yet.
use crate::cli::TestArgs;
use anyhow::{Result, bail};
use std::process::ExitCode;
pub fn run(_args: &TestArgs) -> Result<ExitCode> {
    bail!("not written yet")
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tier {
    Lint,
    Unit,
    Host,
    Fuzz,
    Vm,
}
