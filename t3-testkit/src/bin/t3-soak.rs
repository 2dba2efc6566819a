//! `t3-soak`: thousands of concurrent WebSockets; checks one record for each.

use std::process::ExitCode;

use clap::Parser as _;
use t3_testkit::soak;

fn main() -> anyhow::Result<ExitCode> {
    let right = soak::run(&soak::options::Options::parse())?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
