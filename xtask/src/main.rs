//! The project's commands, started as `cargo xtask COMMAND`.
//!
//! Folders from top to bottom, each imports only those after it: `cli`, `commands`, `tiers`, `vm`
//! and `packaging`, `tools`. Commands print one line per step; the output of a program is shown
//! when it fails. Nothing here is shipped.

mod cli;
mod commands;
mod packaging;
mod tiers;
mod tools;
mod vm;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::commands::{
    autobahn, bench, build, demo, docs, faults, mutants, package, release, rules, soak, test, trial, vm_test,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Build(args) => build::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Rules => rules::run(),
        Command::Mutants(args) => mutants::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
        Command::Faults(args) => faults::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Try(args) => trial::run(&args),
        Command::Autobahn(args) => autobahn::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
