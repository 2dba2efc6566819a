//! Debian packages from finished programs.
//!
//! The contents are listed in the `[package.metadata.deb]` of each crate. Here: the programs, their
//! man pages and completions, cargo-deb and lintian. Equal input gives equal bytes: times are those
//! of the last commit.

mod deb;
pub mod lintian;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::{paths, progress, toolchain};

/// Crates that become packages, each with the program of its name; then further programs
/// that the package contains.
const PACKAGES: [(&str, &[&str]); 3] =
    [("t3-dispatch", &["t3-mint-answer"]), ("t3-trace", &["t3-trace-daemon"]), ("t3-probe", &[])];

/// (name, file)
pub type Programs = [(String, PathBuf)];

/// Names of all programs in the packages.
pub fn program_names() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().flat_map(|(name, more)| std::iter::once(*name).chain(more.iter().copied()))
}

/// Makes the packages for guests: a folder with them, and one with a later revision of the same.
pub fn for_guests(programs: &Programs) -> Result<[PathBuf; 2]> {
    apt_packages::ensure(PackageSet::Package)?;
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

/// Puts the contents of the packages where cargo-deb finds them.
pub fn stage(programs: &Programs) -> Result<()> {
    for (name, more) in PACKAGES {
        staging::program(name, find(programs, name)?)?;
        for helper in more {
            staging::helper(name, helper, find(programs, helper)?)?;
        }
    }
    Ok(())
}

/// Makes the packages from the staged contents, in `to`. `quick`: larger files in less time.
pub fn make(to: &Path, revision: &str, quick: bool) -> Result<Vec<PathBuf>> {
    let cargo_deb = toolchain::ensure_cargo_deb()?;
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    progress::step(&format!("making the Debian packages, revision {revision}"));
    PACKAGES.iter().map(|(name, _)| deb::make(&cargo_deb, name, to, revision, quick)).collect()
}

fn find<'a>(programs: &'a Programs, name: &str) -> Result<&'a Path> {
    let found = programs.iter().find(|(found, _)| found == name);
    Ok(found.with_context(|| format!("the program {name} was not built"))?.1.as_path())
}
