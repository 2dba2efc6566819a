//! `cargo xtask demo`: builds everything and runs t3-testkit's `t3-demo`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::commands::testkit_program;
use crate::tools::progress;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the stack running for a browser, until Ctrl-C.
    #[arg(long)]
    pub hold: bool,
}

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut command = testkit_program::command("t3-demo")?;
    if args.hold {
        command.arg("--hold");
    }
    progress::step(if args.hold { "the demo, until Ctrl-C" } else { "the demo, about a minute" });
    Err(command.exec()).context("cannot start the demo")
}
