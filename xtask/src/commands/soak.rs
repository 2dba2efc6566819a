//! `cargo xtask soak`: builds the programs as the packages contain them and runs `t3-soak` of
//! t3-testkit with them, as root, because kernel events need root.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::{cargo, programs, progress, sudo};

const PACKAGE: &str = "t3-testkit";
const PROGRAM: &str = "t3-soak";
/// Time after the last session until memory is compared with that of the start, in seconds.
const SETTLE: u64 = 130;
/// As in the unit.
const ENVIRONMENT: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Number of sessions, all open at the same time.
    #[arg(long, default_value_t = 9_000, value_name = "N")]
    pub sessions: u32,
    /// Time for which they are held, in seconds.
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub seconds: u64,
    /// Options for the program, after `--`.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

pub fn run(args: &SoakArgs) -> Result<ExitCode> {
    apt_packages::ensure(PackageSet::Host)?;
    let programs = programs::release(Arch::Amd64)?;
    let Some(program) = cargo::binary(PACKAGE, PROGRAM, true)? else {
        bail!("{PACKAGE} has no program `{PROGRAM}`");
    };
    let Some(mut command) = sudo::command(&program) else {
        bail!("{PROGRAM} needs root, or sudo without a password, for its private journald and for t3-trace");
    };
    command.env("T3_BIN_DIR", programs).env(ENVIRONMENT.0, ENVIRONMENT.1);
    let options = [("--sessions", args.sessions.into()), ("--seconds", args.seconds), ("--settle", SETTLE)];
    for (name, value) in options {
        command.arg(name).arg(value.to_string());
    }
    progress::step(&format!("{} sessions for {} s", args.sessions, args.seconds));
    let status =
        command.args(&args.rest).status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
