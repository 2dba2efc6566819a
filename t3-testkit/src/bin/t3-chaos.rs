//! `t3-chaos`: tens of thousands of WebSockets with random ends; checks one record for each.

use std::process::ExitCode;

use clap::Parser as _;
use t3_testkit::chaos;

fn main() -> anyhow::Result<ExitCode> {
    let right = chaos::run(&chaos::options::Options::parse())?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
