//! `cargo xtask package`: static programs, and from them the Debian packages `t3-dispatch` and
//! `t3-trace`.
//!
//! What goes where stands in each crate's `[package.metadata.deb]`. Here: the programs, what they
//! print about themselves (man pages, completions), cargo-deb, and lintian's opinion. The same
//! input makes the same bytes: times come from the last commit.

mod deb;
mod lintian;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cli::{BuildArgs, PackageArgs};
use crate::commands::build;
use crate::commands::vm_test;
use crate::tools::apt_packages::User;
use crate::tools::{apt_packages, paths, progress, toolchain};

/// The crates that become packages, each with the program of its name, and what else of its
/// programs goes in.
const PACKAGES: [(&str, &[&str]); 2] = [("t3-dispatch", &["t3-mint-answer"]), ("t3-trace", &[])];

/// Programs, by name.
pub type Programs = [(String, PathBuf)];

/// Runs the command.
pub fn run(args: &PackageArgs) -> Result<ExitCode> {
    apt_packages::ensure(User::Package)?;
    let programs = if args.guests { vm_test::programs()? } else { released()? };
    stage(&programs)?;
    let to = paths::target().join(if args.guests { "package/guests" } else { "package" });
    let made = make(&to, &args.revision, args.guests)?;
    for deb in &made {
        let size = fs::metadata(deb).map_or(0, |found| found.len());
        progress::note(&format!("{} ({} KiB)", paths::short(deb), size / 1024));
    }
    lintian::check(&made)?;
    Ok(ExitCode::SUCCESS)
}

/// The packages for guests, from programs that are there: a folder with the packages, and one with
/// the same in a later revision.
pub fn for_guests(programs: &Programs) -> Result<[PathBuf; 2]> {
    apt_packages::ensure(User::Package)?;
    stage(programs)?;
    let mut dirs =
        [paths::target().join("package/guests/first"), paths::target().join("package/guests/later")];
    for (dir, revision) in dirs.iter_mut().zip(["1", "2"]) {
        let made = make(dir, revision, true)?;
        if revision == "1" {
            lintian::check(&made)?;
        }
    }
    Ok(dirs)
}

/// Puts all that goes into the packages where cargo-deb finds it.
fn stage(programs: &Programs) -> Result<()> {
    for (name, more) in PACKAGES {
        staging::program(name, find(programs, name)?)?;
        for helper in more {
            staging::helper(name, helper, find(programs, helper)?)?;
        }
    }
    Ok(())
}

/// Makes the packages of what is staged, in `to`. Quick: larger files in less time.
fn make(to: &Path, revision: &str, quick: bool) -> Result<Vec<PathBuf>> {
    let cargo_deb = toolchain::ensure_cargo_deb()?;
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    progress::step(&format!("making the Debian packages, revision {revision}"));
    PACKAGES.iter().map(|(name, _)| deb::make(&cargo_deb, name, to, revision, quick)).collect()
}

fn find<'a>(programs: &'a Programs, name: &str) -> Result<&'a Path> {
    let found = programs.iter().find(|(found, _)| found == name);
    Ok(found.with_context(|| format!("the program {name} was not built"))?.1.as_path())
}

/// The programs of `cargo xtask build --release`.
fn released() -> Result<Vec<(String, PathBuf)>> {
    build::run(&BuildArgs { release: true, ebpf_only: false })?;
    let dir = paths::cargo_target().join(toolchain::MUSL).join("release");
    let names = PACKAGES.iter().flat_map(|(name, more)| std::iter::once(name).chain(*more));
    Ok(names.map(|name| ((*name).to_owned(), dir.join(name))).collect())
}
