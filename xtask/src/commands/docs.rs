//! `cargo xtask docs`: updates every generated page and file of the repository.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::tiers::docs;
use crate::tools::{programs, sudo};

#[derive(Debug, Args)]
pub struct DocsArgs {
    /// Compare only, without the pages that need root (the host tier compares those).
    #[arg(long)]
    pub check: bool,
}

pub fn run(args: &DocsArgs) -> Result<ExitCode> {
    let steps = if args.check {
        docs::check()?
    } else {
        // The pages that need root show t3-trace with its eBPF programs loaded.
        if sudo::root() != sudo::Root::No {
            programs::build()?;
        }
        docs::update()?
    };
    let ok = steps.iter().all(|step| step.counts.failed == 0);
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
