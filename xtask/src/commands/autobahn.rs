//! `cargo xtask autobahn`: the WebSocket conformance suite of the Autobahn project, as in the host
//! tier, with its summary shown.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tiers::programs::in_its_crate;
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::{cargo, programs, progress, sudo};
use crate::vm::autobahn_image;

/// The test program.
const PROGRAM: &str = "host_autobahn";

#[derive(Debug, Args)]
pub struct AutobahnArgs {
    /// Maximum number of messages in each of the 216 compression cases; 1000 takes a quarter of an
    /// hour.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub messages: u32,
}

pub fn run(args: &AutobahnArgs) -> Result<ExitCode> {
    apt_packages::ensure(PackageSet::Host)?;
    autobahn_image::ensure()?;
    programs::build()?;
    let mut compile = cargo::cargo();
    compile.args(["test", "--no-run", "-p", "t3-testkit", "--test", PROGRAM]);
    let made = cargo::artifacts(&format!("compiling {PROGRAM}"), compile)?;
    let Some(program) = made.into_iter().find(|made| made.is_test && made.target == PROGRAM) else {
        bail!("t3-testkit has no test program `{PROGRAM}`");
    };
    let Some(mut command) = sudo::command(&program.executable) else {
        bail!("the suite needs root for chroot, or sudo without a password");
    };
    command.args(["--nocapture"]).env("CI", "true").env("T3_AUTOBAHN_MESSAGES", args.messages.to_string());
    progress::step("the suite, twice at the same time, some minutes");
    let mut command = in_its_crate(command, &program);
    let status = command.status().with_context(|| format!("cannot start {PROGRAM}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
