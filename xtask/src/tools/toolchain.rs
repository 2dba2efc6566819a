//! Additions to the compiler: rust-src, the musl target, bpf-linker, cargo-deb and cargo-deny.
//!
//! bpf-linker reads LLVM bitcode, so it needs the same LLVM as the compiler that wrote it. The
//! toolchain ships that LLVM as a shared library; bpf-linker is built against it (no headers
//! needed) and finds it through its rpath. A stamp next to the binary names the toolchain; another
//! toolchain causes a new build.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::run::{self, run_checked, stdout_of};
use crate::tools::{cargo, paths, progress};

/// The static target of release builds and guests.
pub const MUSL: &str = "x86_64-unknown-linux-musl";
/// Cargo's profile for the programs of the packages.
pub const DIST: &str = "dist";
const BPF_LINKER_VERSION: &str = "0.13.0";
const CARGO_DEB_VERSION: &str = "3.8.0";
const CARGO_MUTANTS_VERSION: &str = "27.1.0";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Adds the source of the standard library, from which the BPF target is built.
pub fn ensure_rust_src() -> Result<()> {
    if sysroot()?.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        return Ok(());
    }
    progress::step("adding rust-src to the toolchain");
    rustup(&["component", "add", "rust-src"])
}

/// Adds a target.
pub fn ensure_target(target: &str) -> Result<()> {
    if target_dir(target)?.is_dir() {
        return Ok(());
    }
    progress::step(&format!("adding {target} to the toolchain"));
    rustup(&["target", "add", target])
}

/// Folder of a target: its standard library is in `lib`.
pub fn target_dir(target: &str) -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(target))
}

/// The licences of the Rust standard library, a page of the toolchain.
pub fn library_copyright() -> Result<PathBuf> {
    Ok(sysroot()?.join("share/doc/rust/COPYRIGHT-library.html"))
}

/// Sources of the standard library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibrarySource {
    /// Their folder, if rust-src is installed; `/rustc/COMMIT` in the compiled library.
    pub dir: PathBuf,
    /// Commit of the compiler.
    pub commit: String,
}

/// Where rustc finds the sources of the standard library.
pub fn library_source() -> Result<LibrarySource> {
    // rustc finds itself through symbolic links.
    let sysroot = fs::canonicalize(sysroot()?).context("cannot find the toolchain")?;
    let version = rustc(&["-vV"])?;
    let commit = commit_hash(&version).context("rustc -vV does not state its commit")?;
    Ok(LibrarySource { dir: sysroot.join("lib/rustlib/src/rust"), commit: commit.to_owned() })
}

fn commit_hash(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("commit-hash: "))
}

/// Version and commit of the compiler.
pub fn rustc_version() -> Result<String> {
    Ok(rustc(&["-V"])?.trim().to_owned())
}

fn rustup(args: &[&str]) -> Result<()> {
    if !run::exists("rustup") {
        bail!(
            "rustup is not installed; install it, or add to this toolchain what `rustup {}` adds",
            args.join(" ")
        );
    }
    let mut command = cargo::plain(Path::new("rustup"));
    command.args(args);
    run_checked("rustup", command).map(drop)
}

/// Builds bpf-linker unless it exists and matches the compiler; returns its folder, for PATH.
pub fn ensure_bpf_linker() -> Result<PathBuf> {
    let tools = paths::tools();
    let bin = tools.join("bin");
    let stamp_file = tools.join("bpf-linker.stamp");
    let sysroot = sysroot()?;
    let stamp = stamp(&rustc(&["-vV"])?, &sysroot);
    let fits = fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp);
    if fits && runs(&bin.join("bpf-linker")) {
        return Ok(bin);
    }
    let llvm = find_llvm(&sysroot.join("lib"))?;
    progress::step(&format!(
        "building bpf-linker {BPF_LINKER_VERSION} against the compiler's LLVM (once, a minute or two)"
    ));
    let prefix = tools.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&llvm.library, &link).with_context(|| format!("cannot link {}", link.display()))?;

    let build_dir = tools.join("build");
    let mut command = cargo::cargo();
    command
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{}", llvm.major), "--root"])
        .arg(&tools)
        .env("LLVM_PREFIX", &prefix)
        .env("CARGO_TARGET_DIR", &build_dir)
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", sysroot.join("lib").display()))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run_checked("bpf-linker", command)?;
    if !runs(&bin.join("bpf-linker")) {
        bail!("bpf-linker was built but does not start; remove {} and try again", paths::short(&tools));
    }
    fs::write(&stamp_file, stamp)?;
    // Only the binary is used later.
    let _ = fs::remove_dir_all(build_dir);
    Ok(bin)
}

/// Returns cargo-deb, after installing it if it is missing.
pub fn ensure_cargo_deb() -> Result<PathBuf> {
    ensure_tool("cargo-deb", CARGO_DEB_VERSION, &[])
}

/// Returns cargo-mutants, after installing it if it is missing.
pub fn ensure_cargo_mutants() -> Result<PathBuf> {
    ensure_tool("cargo-mutants", CARGO_MUTANTS_VERSION, &[])
}

/// Returns cargo-deny, after installing it if it is missing.
pub fn ensure_cargo_deny() -> Result<PathBuf> {
    ensure_tool("cargo-deny", CARGO_DENY_VERSION, &["--no-default-features"])
}

fn ensure_tool(name: &str, version: &str, features: &[&str]) -> Result<PathBuf> {
    let tools = paths::tools();
    let program = tools.join("bin").join(name);
    // A program that is only a subcommand of cargo takes its options after the subcommand.
    let subcommand = name.strip_prefix("cargo-").filter(|_| name == "cargo-mutants");
    let version_of = |program: &Path| {
        let mut command = cargo::plain(program);
        command.args(subcommand).arg("--version");
        stdout_of(&mut command)
    };
    let installed = version_of(&program);
    if installed.is_ok_and(|found| found.split_whitespace().last() == Some(version)) {
        return Ok(program);
    }
    progress::step(&format!("installing {name} {version} (once, about a minute)"));
    let build_dir = tools.join(format!("build-{name}"));
    let mut command = cargo::cargo();
    // It runs for a few seconds: optimising takes longer than it saves.
    command.args(["install", name, "--version", version, "--locked", "--force", "--debug"]).args(features);
    // Debug information would be most of the program.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_TARGET_DIR", &build_dir);
    command.arg("--root").arg(&tools);
    run_checked(name, command)?;
    if version_of(&program).is_err() {
        bail!("{name} was built but does not start; remove {} and try again", paths::short(&program));
    }
    let _ = fs::remove_dir_all(build_dir);
    Ok(program)
}

fn runs(program: &Path) -> bool {
    stdout_of(cargo::plain(program).arg("--version")).is_ok()
}

/// Everything a bpf-linker binary depends on, one line each.
fn stamp(rustc_version: &str, sysroot: &Path) -> String {
    format!("bpf-linker {BPF_LINKER_VERSION}\n{}\n{}\n", rustc_version.trim(), sysroot.display())
}

/// The compiler's LLVM.
#[derive(Debug, PartialEq, Eq)]
struct Llvm {
    library: PathBuf,
    major: u32,
}

fn find_llvm(lib: &Path) -> Result<Llvm> {
    let entries = fs::read_dir(lib).with_context(|| format!("cannot list {}", lib.display()))?;
    for entry in entries {
        let entry = entry?;
        if let Some(major) = llvm_major(&entry.file_name().to_string_lossy()) {
            return Ok(Llvm { library: entry.path(), major });
        }
    }
    bail!("no libLLVM.so.* in {}: bpf-linker needs a toolchain from rustup, which ships one", lib.display())
}

/// `libLLVM.so.22.1-rust-1.95.0-stable` is LLVM 22; other names are not the library (one is a
/// linker script).
fn llvm_major(name: &str) -> Option<u32> {
    name.strip_prefix("libLLVM.so.")?.split('.').next()?.parse().ok()
}

fn rustc(args: &[&str]) -> Result<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(program);
    stdout_of(command.args(args).current_dir(paths::root()))
}

fn sysroot() -> Result<PathBuf> {
    Ok(PathBuf::from(rustc(&["--print", "sysroot"])?.trim()))
}

#[cfg(test)]
mod tests {
    use super::{commit_hash, llvm_major, stamp};
    use std::path::Path;

    #[test]
    fn only_the_llvm_library_matches() {
        assert_eq!(llvm_major("libLLVM.so.22.1-rust-1.95.0-stable"), Some(22));
        assert_eq!(llvm_major("libLLVM-22-rust-1.95.0-stable.so"), None);
        assert_eq!(llvm_major("librustc_driver-6108105cd7e839cf.so"), None);
    }

    #[test]
    fn the_commit_of_the_compiler_is_read() {
        let version = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1\n";
        assert_eq!(commit_hash(version), Some("59807616e1"));
        assert_eq!(commit_hash("rustc 1.95.0\n"), None);
    }

    #[test]
    fn another_compiler_changes_the_stamp() {
        let here = stamp("rustc 1.95.0", Path::new("/a"));
        assert_ne!(here, stamp("rustc 1.96.0", Path::new("/a")));
        assert_ne!(here, stamp("rustc 1.95.0", Path::new("/b")));
    }
}
