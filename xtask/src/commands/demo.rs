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
    /// Show endings without t3-dispatch: sessions through this proxy, or `direct` to serve.
    #[arg(long, value_name = "NAME", conflicts_with = "hold",
          value_parser = ["direct", "nginx", "haproxy", "traefik", "caddy", "envoy"])]
    pub proxy: Option<String>,
}

pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let mut command = testkit_program::command("t3-demo")?;
    if args.hold {
        command.arg("--hold");
    }
    if let Some(proxy) = &args.proxy {
        command.args(["--proxy", proxy]);
    }
    progress::step(if args.hold { "the demo, until Ctrl-C" } else { "the demo, about a minute" });
    Err(command.exec()).context("cannot start the demo")
}
