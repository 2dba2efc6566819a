//! The project's programs for the guests: static, so that one build runs on every release.

use std::path::PathBuf;

use anyhow::Result;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::{cargo, ebpf, paths, progress, toolchain};

/// Crates whose programs a guest gets.
const PROGRAMS_OF: [&str; 6] =
    ["t3-trace", "t3-trace-daemon", "t3-dispatch", "t3-probe", "t3-otlp", "t3-testkit"];

/// Builds the programs; returns their names and files.
pub fn build() -> Result<Vec<(String, PathBuf)>> {
    ebpf::build(Arch::Amd64)?;
    // t3-trace has parts in C (TLS).
    apt_packages::ensure(PackageSet::Release)?;
    toolchain::ensure_target(toolchain::MUSL)?;
    progress::step("compiling the programs for the guests (static)");
    let mut command = cargo::cargo();
    command.args(["build", "--bins", "--target", toolchain::MUSL]);
    // A separate folder: the first build takes minutes and would block other cargo commands.
    command.env("CARGO_TARGET_DIR", paths::target().join("guest-build"));
    for name in PROGRAMS_OF {
        command.args(["-p", name]);
    }
    // Emulation makes everything about ten times slower: optimise a little, leave out debug info.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    let made = cargo::artifacts("programs for the guests", command)?;
    Ok(made
        .into_iter()
        .filter(|made| made.kind == "bin")
        .map(|made| (made.target, made.executable))
        .collect())
}
