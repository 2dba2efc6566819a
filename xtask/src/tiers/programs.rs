//! Test programs of the workspace: compiled once, selected by name, run one by one in the folder of
//! their crate. `cargo test` does not run them, so that only the finished program gets root and
//! each has a timeout.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;

use crate::tools::cargo::{self, Artifact};
use crate::tools::run::run_checked;
use crate::tools::{paths, progress};

/// Compiles all test programs.
pub fn compile() -> Result<Vec<Artifact>> {
    progress::step("compiling the tests");
    let mut command = cargo::cargo();
    command.args(["test", "--no-run", "--workspace", "--exclude", cargo::EBPF_CRATE]);
    let made = cargo::artifacts("compiling the tests", command)?;
    // Tests start programs of other crates; `cargo test` builds only those of the same crate.
    let mut bins = cargo::cargo();
    bins.args(["build", "--bins", "--workspace", "--exclude", cargo::EBPF_CRATE]);
    run_checked("compiling the programs", bins)?;
    Ok(made.into_iter().filter(|made| made.is_test).collect())
}

/// Whether a test program needs root and the host for itself.
pub fn needs_host(artifact: &Artifact) -> bool {
    artifact.kind == "test" && (artifact.target.starts_with("host_") || artifact.target.ends_with("_host"))
}

/// Name of a program in the report.
pub fn label(artifact: &Artifact) -> String {
    match artifact.kind.as_str() {
        "test" => format!("{} {}", artifact.package, artifact.target),
        kind => format!("{} ({kind} {})", artifact.package, artifact.target),
    }
}

/// Prepares `command` (the program, or something that runs it) as cargo would.
pub fn in_its_crate(mut command: Command, artifact: &Artifact) -> Command {
    command.current_dir(&artifact.dir).env("CARGO_MANIFEST_DIR", &artifact.dir);
    command.env("T3_BIN_DIR", paths::cargo_target().join("debug"));
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        command.env("RUST_BACKTRACE", OsStr::new("1"));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::needs_host;
    use crate::tools::cargo::Artifact;

    #[test]
    fn host_programs_are_selected_by_name() {
        let named = |target: &str, kind: &str| {
            needs_host(&Artifact {
                package: "p".to_owned(),
                target: target.to_owned(),
                kind: kind.to_owned(),
                is_test: true,
                executable: "/x".into(),
                dir: "/".into(),
            })
        };
        assert!(named("host_journald", "test") && named("trace_host", "test"));
        assert!(!named("ghost", "test") && !named("host_x", "bin"));
    }
}
