//! `cargo xtask release`: everything of a release in one folder, `target/package/release`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::commands::package;
use crate::packaging::{self, Plan, deb};
use crate::tools::arch::Arch;
use crate::tools::run::stdout_of;
use crate::tools::{paths, progress, toolchain};

const CHECKSUMS: &str = "SHA256SUMS";

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Debian revision of the packages, after the version of the crates.
    #[arg(long, default_value = "1", value_name = "REVISION", value_parser = package::revision)]
    pub revision: String,
    /// Architectures of the packages.
    #[arg(long, value_delimiter = ',', default_value = "amd64,arm64")]
    pub arch: Vec<Arch>,
    /// Also with changes that are not committed: nobody can build the same packages again.
    #[arg(long)]
    pub allow_dirty: bool,
}

pub fn run(args: &ReleaseArgs) -> Result<ExitCode> {
    let commit = commit(args.allow_dirty)?;
    let to = paths::target().join("package/release");
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    for arch in &args.arch {
        let programs = package::released(*arch)?;
        let plan = Plan { arch: *arch, revision: args.revision.clone(), is_quick: false };
        packaging::checked(&programs, &to, &plan)?;
        for name in packaging::names() {
            packaging::write_sbom(name, &to, &args.revision, *arch)?;
        }
    }
    for name in ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(paths::root().join(name), to.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    fs::write(
        to.join("BUILD"),
        build_text(&commit, &toolchain::rustc_version()?, deb::source_time().as_deref()),
    )?;
    write_checksums(&to)?;
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "--quiet", CHECKSUMS]).current_dir(&to);
    stdout_of(&mut check)?;
    progress::note(&format!("{} ({} files)", paths::short(&to), fs::read_dir(&to)?.count()));
    Ok(ExitCode::SUCCESS)
}

/// Commit of the work tree.
fn commit(allow_dirty: bool) -> Result<String> {
    let git = |args: &[&str]| stdout_of(Command::new("git").args(args).current_dir(paths::root()));
    let changes = git(&["status", "--porcelain"])?;
    if !changes.is_empty() && !allow_dirty {
        bail!("changes are not committed; commit them, or use --allow-dirty:\n{}", changes.trim_end());
    }
    let dirty = if changes.is_empty() { "" } else { " with changes" };
    Ok(format!("{}{dirty}", git(&["rev-parse", "HEAD"])?.trim()))
}

/// What another build needs for the same bytes.
fn build_text(commit: &str, rustc: &str, time: Option<&str>) -> String {
    format!("commit {commit}\n{rustc}\nSOURCE_DATE_EPOCH={}\n", time.unwrap_or("unknown"))
}

/// Writes SHA256SUMS, sorted by name, for `sha256sum --check`.
fn write_checksums(dir: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name != CHECKSUMS);
    names.sort();
    let sums = stdout_of(Command::new("sha256sum").arg("--").args(&names).current_dir(dir))?;
    Ok(fs::write(dir.join(CHECKSUMS), sums)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_cover_every_other_file_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "SHA256SUMS"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        write_checksums(dir.path()).unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let sums = fs::read_to_string(dir.path().join("SHA256SUMS")).unwrap();
        assert_eq!(sums, format!("{empty}  a\n{empty}  b\n"));
    }

    #[test]
    fn the_build_file_has_what_a_second_build_needs() {
        let text = build_text("0a1b", "rustc 1.95.0 (59807616e 2026-04-14)", Some("1700000000"));
        assert_eq!(text, "commit 0a1b\nrustc 1.95.0 (59807616e 2026-04-14)\nSOURCE_DATE_EPOCH=1700000000\n");
    }
}
