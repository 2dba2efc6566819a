//! One run of cargo-deb: `[package.metadata.deb]` and the staged files of a crate become a package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Plan;
use crate::tools::run::{run_checked, stdout_of};
use crate::tools::{cargo, paths};

/// Makes the package of a crate in `to`, and deletes older packages of the crate there.
pub fn make(cargo_deb: &Path, name: &str, to: &Path, plan: &Plan) -> Result<PathBuf> {
    let file = to.join(file_name(name, &version(name)?, plan));
    let mut command = cargo::plain(cargo_deb);
    command.args(["--package", name, "--target", plan.arch.target(), "--no-build", "--no-strip"]);
    command.args(["--no-dbgsym", "--deb-revision", &plan.revision]).arg("--output").arg(&file);
    if plan.is_quick {
        command.arg("--fast");
    }
    if let Some(time) = source_time() {
        command.env("SOURCE_DATE_EPOCH", time);
    }
    delete_others(to, name, &file, plan)?;
    run_checked("cargo-deb", command)?;
    Ok(file)
}

/// File name by the convention of Debian.
pub fn file_name(name: &str, version: &str, plan: &Plan) -> String {
    format!("{name}_{version}-{}_{}.deb", plan.revision, plan.arch.debian())
}

/// The crate's version.
pub fn version(name: &str) -> Result<String> {
    let packages = metadata()?["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = packages.iter().find(|package| package["name"] == name);
    let version = found.and_then(|package| package["version"].as_str());
    Ok(version.with_context(|| format!("cargo metadata does not list the crate {name}"))?.to_owned())
}

/// Crates of the workspace; cargo runs once.
fn metadata() -> Result<&'static Value> {
    static METADATA: OnceLock<Value> = OnceLock::new();
    if let Some(metadata) = METADATA.get() {
        return Ok(metadata);
    }
    let text = stdout_of(cargo::cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata = serde_json::from_str(&text).context("cannot read the output of cargo metadata")?;
    Ok(METADATA.get_or_init(|| metadata))
}

/// Time of all files of the packages in Unix seconds: `SOURCE_DATE_EPOCH`, else the time of the
/// last commit. `None` outside of a git checkout, where cargo-deb uses the time of the build.
pub fn source_time() -> Option<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Some(time);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(paths::root());
    let text = stdout_of(&mut git).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Deletes packages of the same name and architecture but `keep`.
pub fn delete_others(dir: &Path, name: &str, keep: &Path, plan: &Plan) -> Result<()> {
    let end = format!("_{}.deb", plan.arch.debian());
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let ours = found.starts_with(&format!("{name}_")) && found.ends_with(&end);
        if ours && entry.path() != keep {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Plan, delete_others, file_name};
    use crate::tools::arch::Arch;
    use std::fs;

    const PLAN: Plan = Plan { arch: Arch::Arm64, revision: String::new(), is_quick: false };

    #[test]
    fn the_file_name_follows_debian() {
        let plan = |arch| Plan { arch, revision: "2".to_owned(), is_quick: false };
        assert_eq!(file_name("t3-trace", "0.1.0", &plan(Arch::Amd64)), "t3-trace_0.1.0-2_amd64.deb");
        assert_eq!(file_name("t3-trace", "0.1.0", &plan(Arch::Arm64)), "t3-trace_0.1.0-2_arm64.deb");
    }

    #[test]
    fn only_other_packages_of_the_same_name_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ["a_1-1_arm64.deb", "a_1-2_arm64.deb", "a_1-1_amd64.deb", "a-b_1-1_arm64.deb", "a_1-1.txt"];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        delete_others(dir.path(), "a", &dir.path().join("a_1-2_arm64.deb"), &PLAN).unwrap();
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, true, true, true, true]);
    }
}
