//! `cargo xtask build`: the eBPF object first, then the programs that embed it.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::BuildArgs;
use crate::tools::apt_packages::User;
use crate::tools::{apt_packages, cargo, ebpf, paths, progress, run, toolchain};

/// The crates whose programs are shipped.
const SHIPPED: [&str; 3] = ["t3-trace", "t3-dispatch", "t3-probe"];

/// Runs the command.
pub fn run(args: &BuildArgs) -> Result<ExitCode> {
    ebpf::build()?;
    if args.ebpf_only {
        return Ok(ExitCode::SUCCESS);
    }
    programs(args.release)?;
    Ok(ExitCode::SUCCESS)
}

fn programs(release: bool) -> Result<()> {
    let mut command = cargo::cargo();
    command.arg("build");
    let mut dir = paths::cargo_target();
    if release {
        apt_packages::ensure(User::Release)?;
        toolchain::ensure_musl()?;
        command.args(["--target", toolchain::MUSL]);
        dir.push(toolchain::MUSL);
        for name in SHIPPED {
            command.args(["-p", name]);
        }
        command.arg("--release");
    }
    dir.push(if release { "release" } else { "debug" });
    progress::step(if release {
        "compiling the programs, optimised and static"
    } else {
        "compiling the programs"
    });
    let finished = run::must("programs", command)?;
    for name in SHIPPED {
        progress::note(&format!("{} ({})", paths::short(&dir.join(name)), progress::took(finished.time)));
    }
    Ok(())
}
