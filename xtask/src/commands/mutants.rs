//! `cargo xtask mutants`: changes the verdict module in one place after another and runs its tests.
//! A change that no test notices is a finding; `.cargo/mutants.toml` lists the accepted ones, each
//! with its reason.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::tools::{cargo, paths, progress, toolchain};

#[derive(Debug, Args)]
pub struct MutantsArgs {
    /// Mutate only functions whose mutant matches this regular expression.
    #[arg(long, value_name = "REGEX")]
    pub only: Option<String>,
}

pub fn run(args: &MutantsArgs) -> Result<ExitCode> {
    let program = toolchain::ensure_cargo_mutants()?;
    progress::step("mutating t3-record/src/verdict");
    let mut command = cargo::plain(&program);
    command.args(["mutants", "--package", "t3-record", "--file", "t3-record/src/verdict/*.rs"]);
    command.args(["--no-shuffle", "--jobs", "2", "--output"]).arg(paths::target());
    if let Some(regex) = &args.only {
        command.args(["--re", regex]);
    }
    command.args(["--", "--lib", "--test", "properties"]);
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
