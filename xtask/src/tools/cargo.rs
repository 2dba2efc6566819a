//! Cargo commands without the variables that `cargo run` sets for xtask: they would make build
//! scripts run again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::tools::paths;
use crate::tools::run::{run_split_checked, stdout_of};

/// The crate that only compiles for the BPF target.
pub const EBPF_CRATE: &str = "t3-trace-ebpf";

/// `cargo` in the workspace root.
pub fn cargo() -> Command {
    plain(&std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from))
}

/// `program` in the workspace root, without the variables that cargo set for xtask.
pub fn plain(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::root()).env_remove("LD_LIBRARY_PATH");
    if std::env::var_os("CI").is_some() {
        // Built once: incremental compilation only costs time.
        command.env("CARGO_INCREMENTAL", "0");
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "CARGO_PRIMARY_PACKAGE"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// A program built by cargo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its crate.
    pub package: String,
    /// Name of the target: a binary, a test file or a library.
    pub target: String,
    /// `bin`, `lib`, `test`.
    pub kind: String,
    /// Built with `--test`.
    pub is_test: bool,
    /// The file to run.
    pub executable: PathBuf,
    /// The crate's folder, where cargo would run it.
    pub dir: PathBuf,
}

/// Runs a `cargo` command that builds, and returns the executables.
pub fn artifacts(what: &str, mut command: Command) -> Result<Vec<Artifact>> {
    command.arg("--message-format=json-render-diagnostics");
    let finished = run_split_checked(what, command)?;
    Ok(parse_artifacts(&finished.stdout))
}

/// Reads cargo's JSON messages; other lines are diagnostics and are skipped.
pub fn parse_artifacts(output: &str) -> Vec<Artifact> {
    output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
            Some(Artifact {
                package: dir.file_name()?.to_string_lossy().into_owned(),
                target: message["target"]["name"].as_str()?.to_owned(),
                kind: message["target"]["kind"][0].as_str()?.to_owned(),
                is_test: message["profile"]["test"].as_bool()?,
                executable: message["executable"].as_str()?.into(),
                dir,
            })
        })
        .collect()
}

/// Builds a binary of a crate for this host; `None` when the crate does not have it.
pub fn binary(package: &str, name: &str, release: bool) -> Result<Option<PathBuf>> {
    let metadata = stdout_of(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("cannot read the output of cargo metadata")?;
    if !has_binary(&metadata, package, name) {
        return Ok(None);
    }
    let mut command = cargo();
    command.args(["build", "-p", package, "--bin", name]);
    if release {
        command.arg("--release");
    }
    let made = artifacts(&format!("building {name}"), command)?;
    Ok(made.into_iter().find(|made| made.target == name && !made.is_test).map(|made| made.executable))
}

/// Whether `cargo metadata` lists this binary.
pub fn has_binary(metadata: &Value, package: &str, name: &str) -> bool {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages.iter().filter(|found| found["name"] == package).any(|found| {
        let targets = found["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        targets.iter().any(|target| target["name"] == name && target["kind"][0] == "bin")
    })
}

#[cfg(test)]
mod tests {
    use super::{has_binary, parse_artifacts};
    use serde_json::json;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let lib = json!({"reason": "compiler-artifact", "manifest_path": "/w/t3-record/Cargo.toml", "executable": null,
            "target": {"name": "t3_record", "kind": ["lib"]}, "profile": {"test": false}});
        let test = json!({"reason": "compiler-artifact", "manifest_path": "/w/t3-record/Cargo.toml",
            "executable": "/w/target/debug/deps/host_x-1", "target": {"name": "host_x", "kind": ["test"]},
            "profile": {"test": true}});
        let text = format!(
            "   Compiling t3-record\n{lib}\nwarning: odd\n{test}\n{{\"reason\":\"build-finished\"}}\n"
        );
        let found = parse_artifacts(&text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].target, "host_x");
        assert_eq!(found[0].package, "t3-record");
        assert!(found[0].is_test);
    }

    #[test]
    fn a_binary_is_found_by_package_and_name() {
        let metadata = json!({"packages": [{"name": "t3-testkit", "targets": [
            {"name": "t3_testkit", "kind": ["lib"]}, {"name": "t3-demo", "kind": ["bin"]}]}]});
        assert!(has_binary(&metadata, "t3-testkit", "t3-demo"));
        assert!(!has_binary(&metadata, "t3-testkit", "t3-bench"));
        assert!(!has_binary(&metadata, "t3-trace", "t3-demo"));
    }
}
