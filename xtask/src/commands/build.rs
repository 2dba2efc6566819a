//! `cargo xtask build`: the eBPF object, then the programs that embed it.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::tools::arch::Arch;
use crate::tools::{ebpf, programs};

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Static, optimised programs for x86_64-unknown-linux-musl.
    #[arg(long)]
    pub release: bool,
    /// Stop after the eBPF object.
    #[arg(long)]
    pub ebpf_only: bool,
}

pub fn run(args: &BuildArgs) -> Result<ExitCode> {
    if args.ebpf_only {
        ebpf::build(Arch::HOST)?;
    } else {
        if args.release {
            programs::release(Arch::Amd64)?;
        } else {
            programs::build()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
