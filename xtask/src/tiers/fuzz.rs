//! Fuzz targets, a minute each: the binaries of the crate in `fuzz/`, a separate workspace.
//!
//! Built with the pinned compiler and the coverage of libFuzzer, without cargo-fuzz: nothing to
//! install, and no address sanitizer, because the fuzzed code has no unsafe blocks. Seeds are in
//! `fuzz/seeds/TARGET`; new inputs go to `target/fuzz/corpus/TARGET`, failing inputs to
//! `target/fuzz/TARGET-*`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{CannotRun, whole};
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::report::Step;
use crate::tools::{cargo, paths, progress};

/// With an explicit target, build scripts and macros are not instrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions";
const SECONDS: u32 = 60;

/// Runs the tier.
pub fn steps() -> Result<Vec<Step>> {
    let manifest = paths::root().join("fuzz/Cargo.toml");
    if !manifest.is_file() {
        progress::note("no fuzz targets");
        return Ok(Vec::new());
    }
    apt_packages::ensure(PackageSet::Fuzz).map_err(|error| CannotRun(format!("{error:#}")))?;
    let target_dir = paths::target().join("fuzz");
    progress::step("compiling the fuzz targets");
    let mut build = cargo::cargo();
    build.args(["build", "--release", "--bins", "--target", TARGET, "--manifest-path"]).arg(&manifest);
    build.env("CARGO_TARGET_DIR", &target_dir).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS);
    build.env_remove("CARGO_ENCODED_RUSTFLAGS");
    let made = cargo::artifacts("fuzz targets", build)?;
    let mut steps = Vec::new();
    for target in made.iter().filter(|made| made.kind == "bin") {
        let corpus = target_dir.join("corpus").join(&target.target);
        let seeds = paths::root().join("fuzz/seeds").join(&target.target);
        std::fs::create_dir_all(&corpus)?;
        let mut run = Command::new(&target.executable);
        run.arg(format!("-max_total_time={SECONDS}")).args(["-timeout=10", "-rss_limit_mb=2048"]);
        run.arg(format!("-artifact_prefix={}/{}-", target_dir.display(), target.target)).arg(&corpus);
        if seeds.is_dir() {
            // libFuzzer writes to the first folder only.
            run.arg(&seeds);
        }
        let name = format!("fuzzing {}", target.target);
        steps.push(whole(&name, run, Duration::from_secs(u64::from(SECONDS) + 60))?);
    }
    if steps.is_empty() {
        bail!("fuzz/ has no targets; the tier would test nothing");
    }
    Ok(steps)
}
