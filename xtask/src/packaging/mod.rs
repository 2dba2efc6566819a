//! Debian packages from finished programs.
//!
//! The contents are listed in the `[package.metadata.deb]` of each crate. Here: the programs, their
//! man pages and completions, the licences of their libraries, cargo-deb and lintian. Equal input
//! gives equal bytes: times are those of the last commit.

mod dbgsym;
pub mod deb;
mod libraries;
mod licences;
mod linked;
pub mod lintian;
mod musl;
mod repeat;
mod sbom;
mod sbom_rules;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use libraries::write_sbom;

use crate::tools::apt_packages::{self, PackageSet};
use crate::tools::arch::Arch;
use crate::tools::{paths, progress, toolchain};

/// Crates that become packages, each with the program of its name; then further programs
/// that the package contains.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("t3-dispatch", &["t3-mint-answer"]),
    ("t3-trace", &["t3-trace-daemon"]),
    ("t3-probe", &[]),
    ("t3-otlp", &[]),
];

/// (name, file)
pub type Programs = [(String, PathBuf)];

/// Which packages to make.
#[derive(Clone, Debug)]
pub struct Plan {
    pub arch: Arch,
    /// Debian revision, after the version of the crates.
    pub revision: String,
    /// Larger files in less time, without packages of debug information.
    pub is_quick: bool,
}

/// Names of all packages, without those of debug information.
pub fn names() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|(name, _)| *name)
}

/// Names of all programs in the packages.
pub fn program_names() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().flat_map(|(name, more)| std::iter::once(*name).chain(more.iter().copied()))
}

/// Makes the packages for guests: a folder with them, and one with a later revision of the same.
pub fn for_guests(programs: &Programs) -> Result<[PathBuf; 2]> {
    apt_packages::ensure(PackageSet::Package)?;
    let dirs = [paths::target().join("package/guests/first"), paths::target().join("package/guests/later")];
    for (dir, revision) in dirs.iter().zip(["1", "2"]) {
        let plan = Plan { arch: Arch::Amd64, revision: revision.to_owned(), is_quick: true };
        stage(programs, &plan)?;
        let made = make(dir, &plan)?;
        if revision == "1" {
            lintian::check(&made)?;
            repeat::check(programs, &made, &plan)?;
        }
    }
    Ok(dirs)
}

/// Makes the packages in `to` and checks them; also that a second run gives the same bytes.
pub fn checked(programs: &Programs, to: &Path, plan: &Plan) -> Result<Vec<PathBuf>> {
    apt_packages::ensure(PackageSet::Package)?;
    stage(programs, plan)?;
    let by = plan.arch.emulator().map(|name| format!(" under {name}")).unwrap_or_default();
    progress::note(&format!("{} programs start{by} and state their version", program_names().count()));
    let made = make(to, plan)?;
    for deb in &made {
        let size = fs::metadata(deb).map_or(0, |found| found.len());
        progress::note(&format!("{} ({} KiB)", paths::short(deb), size / 1024));
    }
    lintian::check(&made)?;
    repeat::check(programs, &made, plan)?;
    Ok(made)
}

/// Puts the contents of the packages where cargo-deb finds them.
fn stage(programs: &Programs, plan: &Plan) -> Result<()> {
    for (name, more) in PACKAGES {
        staging::program(name, find(programs, name)?, plan)?;
        for helper in more {
            staging::helper(name, helper, find(programs, helper)?, plan)?;
        }
        libraries::stage(name, &staging::dir(name), plan.arch)?;
    }
    Ok(())
}

/// Makes the packages from the staged contents, in `to`.
fn make(to: &Path, plan: &Plan) -> Result<Vec<PathBuf>> {
    let cargo_deb = toolchain::ensure_cargo_deb()?;
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    progress::step(&format!(
        "making the Debian packages for {}, revision {}",
        plan.arch.debian(),
        plan.revision
    ));
    let mut made = Vec::new();
    for (name, _) in PACKAGES {
        made.push(deb::make(&cargo_deb, name, to, plan)?);
        if !plan.is_quick {
            made.extend(dbgsym::make(name, to, plan)?);
        }
    }
    Ok(made)
}

fn find<'a>(programs: &'a Programs, name: &str) -> Result<&'a Path> {
    let found = programs.iter().find(|(found, _)| found == name);
    Ok(found.with_context(|| format!("the program {name} was not built"))?.1.as_path())
}
