//! The project's programs for the guests: static, so that one build runs on every release.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::{cargo, ebpf, paths, progress, toolchain};

/// Crates whose programs a guest gets.
const PROGRAMS_OF: [&str; 6] =
    ["t3-trace", "t3-trace-daemon", "t3-dispatch", "t3-probe", "t3-otlp", "t3-testkit"];

/// Test programs that a guest gets, too, of a crate: kernel functions that this host may not have.
const TESTS_OF: [(&str, &str); 2] =
    [("t3-trace-daemon", "websocket_host"), ("t3-trace-host", "guest_websockets")];

/// Builds the programs; returns their names and files.
pub fn build() -> Result<Vec<(String, PathBuf)>> {
    ebpf::build(Arch::Amd64)?;
    // t3-trace has parts in C (TLS).
    apt_packages::ensure(PackageSet::Release)?;
    toolchain::ensure_target(toolchain::MUSL)?;
    progress::step("compiling the programs for the guests (static)");
    let mut command = static_build("build");
    command.arg("--bins");
    for name in PROGRAMS_OF {
        command.args(["-p", name]);
    }
    let made = cargo::artifacts("programs for the guests", command)?;
    let programs = made.into_iter().filter(|made| made.kind == "bin");
    let mut programs: Vec<_> = programs.map(|made| (made.target, made.executable)).collect();
    for (name, test) in TESTS_OF {
        let mut command = static_build("test");
        command.args(["--no-run", "-p", name, "--test", test]);
        let made = cargo::artifacts("tests for the guests", command)?;
        let tests = made.into_iter().filter(|made| made.kind == "test" && made.target == test);
        programs.extend(tests.map(|made| (made.target, made.executable)));
    }
    Ok(programs)
}

fn static_build(subcommand: &str) -> Command {
    let mut command = cargo::cargo();
    command.args([subcommand, "--target", toolchain::MUSL]);
    // A separate folder: the first build takes minutes and would block other cargo commands.
    command.env("CARGO_TARGET_DIR", paths::target().join("guest-build"));
    // Emulation makes everything about ten times slower: optimise a little, leave out debug info.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    command
}
