//! `cargo xtask bench`: builds with optimisation and runs `t3-bench` of t3-testkit, which prints
//! its results.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::run::run_checked;
use crate::tools::{cargo, ebpf, progress};

const PACKAGE: &str = "t3-testkit";
const PROGRAM: &str = "t3-bench";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Options for the benchmark program, after `--`.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    apt_packages::ensure(PackageSet::Bench)?;
    ebpf::build()?;
    progress::step("compiling with optimisation");
    let mut command = cargo::cargo();
    command.args(["build", "--release", "-p", "t3-trace", "-p", "t3-dispatch"]);
    run_checked("programs", command)?;
    let Some(program) = cargo::binary(PACKAGE, PROGRAM, true)? else {
        bail!("{PACKAGE} has no program `{PROGRAM}`");
    };
    progress::step("measuring");
    let status = Command::new(&program)
        .args(&args.rest)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
