//! The programs that are shipped: the eBPF object first, then the crates that embed it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::run::run_checked;
use crate::tools::{cargo, ebpf, paths, progress, remap, toolchain};

/// Crates whose programs are shipped.
const SHIPPED: [&str; 5] = ["t3-trace", "t3-trace-daemon", "t3-dispatch", "t3-probe", "t3-otlp"];

/// Builds the eBPF object and the whole workspace for development.
pub fn build() -> Result<()> {
    ebpf::build(Arch::HOST)?;
    let mut command = cargo::cargo();
    command.arg("build");
    progress::step("compiling the programs");
    let finished = run_checked("programs", command)?;
    note(&paths::cargo_target().join("debug"), &progress::took(finished.time));
    Ok(())
}

/// Builds the eBPF object and the programs, optimised and static; returns their folder. They do not
/// depend on the folders in which they were built.
pub fn release(arch: Arch) -> Result<PathBuf> {
    ebpf::build(arch)?;
    apt_packages::ensure(match arch {
        Arch::Amd64 => PackageSet::Release,
        Arch::Arm64 => PackageSet::Arm64,
    })?;
    let target = arch.target();
    toolchain::ensure_target(target)?;
    let mut command = cargo::cargo();
    command
        .args(["build", "--profile", toolchain::DIST, "--locked", "--target", target])
        .envs(arch.variables());
    remap::apply(&mut command, target)?;
    for name in SHIPPED {
        command.args(["-p", name]);
    }
    progress::step(&format!("compiling the programs, optimised and static, for {target}"));
    let finished = run_checked("programs", command)?;
    let dir = paths::cargo_target().join(target).join(toolchain::DIST);
    note(&dir, &progress::took(finished.time));
    Ok(dir)
}

fn note(dir: &Path, took: &str) {
    for name in SHIPPED {
        progress::note(&format!("{} ({took})", paths::short(&dir.join(name))));
    }
}
