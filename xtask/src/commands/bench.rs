//! `cargo xtask bench`: builds the programs of the packages and runs `t3-bench` of t3-testkit,
//! which prints its results.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::{cargo, programs, progress};

const PACKAGE: &str = "t3-testkit";
const PROGRAM: &str = "t3-bench";
/// Option of the program: the t3-dispatch to measure.
const DISPATCH: &str = "--dispatch";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Options for the benchmark program, after `--`.
    #[arg(last = true)]
    pub rest: Vec<String>,
}

pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    apt_packages::ensure(PackageSet::Bench)?;
    let programs = programs::release(Arch::Amd64)?;
    let Some(program) = cargo::binary(PACKAGE, PROGRAM, true)? else {
        bail!("{PACKAGE} has no program `{PROGRAM}`");
    };
    progress::step("measuring");
    let mut command = Command::new(&program);
    if !selects_dispatch(&args.rest) {
        command.arg(DISPATCH).arg(programs.join("t3-dispatch"));
    }
    let status =
        command.args(&args.rest).status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the options name another t3-dispatch than that of the package.
fn selects_dispatch(rest: &[String]) -> bool {
    rest.iter().any(|option| {
        option.strip_prefix(DISPATCH).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    })
}

#[cfg(test)]
mod tests {
    use super::selects_dispatch;

    #[test]
    fn another_program_replaces_that_of_the_package() {
        for (options, expected) in [
            (&["--quick"][..], false),
            (&["--contestant", "dispatch"], false),
            (&["--dispatch-stored"], false),
            (&["--quick", "--dispatch", "/x"], true),
            (&["--dispatch=/x"], true),
        ] {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(selects_dispatch(&options), expected, "{options:?}");
        }
    }
}
