//! `cargo xtask package`: static programs, and from them the Debian packages `t3-dispatch`,
//! `t3-trace` and `t3-probe`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packaging::{self, lintian};
use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::{guest_programs, paths, programs, progress, toolchain};

#[derive(Debug, Args)]
pub struct PackageArgs {
    /// Debian revision of the packages, after the version of the crates.
    #[arg(long, default_value = "1", value_name = "REVISION", value_parser = revision)]
    pub revision: String,
    /// Use the programs that vm-test runs in its guests: quick, not for an installation.
    #[arg(long)]
    pub guests: bool,
}

/// Accepts a Debian revision (deb-version(7)); it becomes part of a file name.
fn revision(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+.~".contains(c);
    if !text.is_empty() && text.chars().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("expected letters, digits, plus, dot and tilde, got {text:?}"))
}

pub fn run(args: &PackageArgs) -> Result<ExitCode> {
    apt_packages::ensure(PackageSet::Package)?;
    let programs = if args.guests { guest_programs::build()? } else { released()? };
    packaging::stage(&programs)?;
    let to = paths::target().join(if args.guests { "package/guests" } else { "package" });
    let made = packaging::make(&to, &args.revision, args.guests)?;
    for deb in &made {
        let size = fs::metadata(deb).map_or(0, |found| found.len());
        progress::note(&format!("{} ({} KiB)", paths::short(deb), size / 1024));
    }
    lintian::check(&made)?;
    Ok(ExitCode::SUCCESS)
}

/// The programs of `cargo xtask build --release`.
fn released() -> Result<Vec<(String, PathBuf)>> {
    programs::build(true)?;
    let dir = paths::cargo_target().join(toolchain::MUSL).join(toolchain::DIST);
    Ok(packaging::program_names().map(|name| (name.to_owned(), dir.join(name))).collect())
}
