//! The project's commands, started as `cargo xtask COMMAND`: build, test, vm-test, faults, demo,
//! autobahn, soak, package, bench.
//!
//! One file per command, all flags in `cli`. Commands say in one line what they are doing, show a
//! failing program's output and keep a passing one's to a line. Nothing here is part of what is
//! shipped.

mod cli;
mod commands;
mod packaging;
mod tiers;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::commands::{bench, build, demo, faults, soak, test, vm_test};
use crate::vm::autobahn_image;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Build(args) => build::run(&args),
        Command::Test(args) => test::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Autobahn(args) => autobahn_image::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Package(args) => packaging::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
