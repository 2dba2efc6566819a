//! One run of cargo-deb: `[package.metadata.deb]` and the staged files of a crate become a package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tools::run::{run_checked, stdout_of};
use crate::tools::{cargo, paths};

/// Makes the package of a crate in `to`, and deletes older packages of the crate there.
pub fn make(cargo_deb: &Path, name: &str, to: &Path, revision: &str, quick: bool) -> Result<PathBuf> {
    let file = to.join(file_name(name, &version(name)?, revision));
    let mut command = cargo::plain(cargo_deb);
    command.args(["--package", name, "--no-build", "--no-strip", "--no-dbgsym", "--deb-revision", revision]);
    command.arg("--output").arg(&file);
    if quick {
        command.arg("--fast");
    }
    if let Some(time) = time_of_the_last_commit() {
        command.env("SOURCE_DATE_EPOCH", time);
    }
    delete_others(to, name, &file)?;
    run_checked("cargo-deb", command)?;
    Ok(file)
}

/// File name by the convention of Debian.
fn file_name(name: &str, version: &str, revision: &str) -> String {
    format!("{name}_{version}-{revision}_amd64.deb")
}

/// The crate's version.
fn version(name: &str) -> Result<String> {
    let metadata = stdout_of(cargo::cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = packages.iter().find(|package| package["name"] == name);
    let version = found.and_then(|package| package["version"].as_str());
    Ok(version.with_context(|| format!("cargo metadata does not list the crate {name}"))?.to_owned())
}

/// In Unix seconds; `None` outside of a git checkout, where cargo-deb uses the time of the build.
fn time_of_the_last_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(paths::root());
    let text = stdout_of(&mut git).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn delete_others(dir: &Path, name: &str, keep: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let ours = found.starts_with(&format!("{name}_")) && found.ends_with(".deb");
        if ours && entry.path() != keep {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{delete_others, file_name};
    use std::fs;

    #[test]
    fn the_file_name_follows_debian() {
        assert_eq!(file_name("t3-trace", "0.1.0", "2"), "t3-trace_0.1.0-2_amd64.deb");
    }

    #[test]
    fn only_other_packages_of_the_same_name_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a_1-1_amd64.deb", "a_1-2_amd64.deb", "a-b_1-1_amd64.deb", "a_1-1.txt"];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        delete_others(dir.path(), "a", &dir.path().join("a_1-2_amd64.deb")).unwrap();
        let left = names.map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false, true, true, true]);
    }
}
