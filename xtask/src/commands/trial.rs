//! `cargo xtask try`: builds everything and runs t3-testkit's `t3-try`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::commands::testkit_program;

#[derive(Debug, Args)]
pub struct TryArgs {
    /// Address of the backend on this host, such as `http://127.0.0.1:8080`.
    #[arg(value_name = "URL")]
    pub backend: String,
    /// Port of the address to open; 0 selects a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
}

pub fn run(args: &TryArgs) -> Result<ExitCode> {
    let mut command = testkit_program::command("t3-try")?;
    command.arg("--port").arg(args.port.to_string()).arg("--").arg(&args.backend);
    Err(command.exec()).context("cannot start t3-try")
}
