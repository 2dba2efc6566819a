//! `cargo xtask package`: static programs, and from them the Debian packages.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packaging::{self, Plan};
use crate::tools::arch::Arch;
use crate::tools::{guest_programs, paths, programs};

#[derive(Debug, Args)]
pub struct PackageArgs {
    /// Debian revision of the packages, after the version of the crates.
    #[arg(long, default_value = "1", value_name = "REVISION", value_parser = revision)]
    pub revision: String,
    /// Architecture of the packages.
    #[arg(long, default_value = "amd64")]
    pub arch: Arch,
    /// Use the programs that vm-test runs in its guests: quick, not for an installation.
    #[arg(long, conflicts_with = "arch")]
    pub guests: bool,
}

/// Accepts a Debian revision (deb-version(7)); it becomes part of a file name.
pub fn revision(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+.~".contains(c);
    if !text.is_empty() && text.chars().all(is_allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("expected letters, digits, plus, dot and tilde, got {text:?}"))
}

pub fn run(args: &PackageArgs) -> Result<ExitCode> {
    let programs = if args.guests { guest_programs::build()? } else { released(args.arch)? };
    let to = paths::target().join(if args.guests { "package/guests" } else { "package" });
    let plan = Plan { arch: args.arch, revision: args.revision.clone(), is_quick: args.guests };
    packaging::checked(&programs, &to, &plan)?;
    Ok(ExitCode::SUCCESS)
}

/// The programs of `cargo xtask build --release`.
pub fn released(arch: Arch) -> Result<Vec<(String, PathBuf)>> {
    let dir = programs::release(arch)?;
    Ok(packaging::program_names().map(|name| (name.to_owned(), dir.join(name))).collect())
}
