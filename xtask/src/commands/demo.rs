//! `cargo xtask demo`: builds everything and runs t3-testkit's `t3-demo`, as root if possible,
//! because kernel events need root.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tools::programs;
use crate::tools::{cargo, progress, sudo};

const PACKAGE: &str = "t3-testkit";
const PROGRAM: &str = "t3-demo";

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the stack running for a browser, until Ctrl-C.
    #[arg(long)]
    pub hold: bool,
}

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    programs::build(false)?;
    let Some(program) = cargo::binary(PACKAGE, PROGRAM, false)? else {
        bail!("{PACKAGE} has no program `{PROGRAM}`");
    };
    let mut command = match sudo::command(&program) {
        Some(command) => command,
        None => {
            progress::note("no root and no `sudo -n`: the demo runs without kernel evidence (kernel=off)");
            Command::new(&program)
        }
    };
    if args.hold {
        command.arg("--hold");
    }
    progress::step(if args.hold { "the demo, until Ctrl-C" } else { "the demo, about a minute" });
    // Replaces xtask: Ctrl-C then reaches only the demo, which stops its programs before the prompt
    // returns.
    Err(command.exec()).with_context(|| format!("cannot start {}", program.display()))
}
