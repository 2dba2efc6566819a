//! Replaces the folders of this build in the programs: two builds of one commit give equal bytes.
//!
//! With rust-src installed, rustc names the sources of the standard library by their place in the
//! toolchain; the name that it gets here is the one in the compiled library, and without rust-src.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::{paths, toolchain};

/// Options of gcc: a constant for the time of the compilation, which mimalloc has in a message.
const NO_TIME: &str = " -Wno-builtin-macro-redefined -D__DATE__=\"-\" -D__TIME__=\"-\"";
/// Separates the flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

/// (folder of this build, its name in the programs). The later entry of two that match counts, in
/// rustc as in gcc.
fn folders() -> Result<Vec<(PathBuf, String)>> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let library = toolchain::library_source()?;
    Ok(vec![
        (cargo_home, "/cargo".to_owned()),
        (library.dir, format!("/rustc/{}", library.commit)),
        (paths::root().to_owned(), "/build".to_owned()),
        (paths::cargo_target(), "/build/target".to_owned()),
    ])
}

/// Options of rustc.
pub fn rustc_flags() -> Result<Vec<String>> {
    let option = |(from, to): (PathBuf, String)| format!("--remap-path-prefix={}={to}", from.display());
    Ok(folders()?.into_iter().map(option).collect())
}

/// Adds the options to a cargo command that builds for `target`.
pub fn apply(command: &mut Command, target: &str) -> Result<()> {
    let inherited = std::env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let inherited = inherited.map(|flags| flags.split(SEPARATOR).map(str::to_owned).collect());
    let plain = || std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<String> =
        inherited.unwrap_or_else(|| plain().split_whitespace().map(str::to_owned).collect());
    flags.extend(rustc_flags()?);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    // Read by the crate cc, for parts in C.
    let name = format!("CFLAGS_{}", target.replace('-', "_"));
    let mut c_flags = std::env::var_os(&name).unwrap_or_default();
    for (from, to) in folders()? {
        let mut option = OsString::from(" -ffile-prefix-map=");
        option.push(from);
        option.push(format!("={to}"));
        c_flags.push(option);
    }
    c_flags.push(NO_TIME);
    command.env(name, c_flags);
    Ok(())
}

/// Checks that a program contains none of the folders.
///
/// # Errors
/// It contains one: a build in another folder would give other bytes.
pub fn check(program: &Path) -> Result<()> {
    for (from, to) in folders()? {
        if from.is_absolute() && from != Path::new(&to) && contains(program, &from)? {
            bail!("{} contains the folder {} of this build", program.display(), from.display());
        }
    }
    Ok(())
}

fn contains(file: &Path, text: &Path) -> Result<bool> {
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C")
        .args(["--quiet", "--no-messages", "--text", "--fixed-strings", "-e"])
        .arg(text)
        .arg(file);
    match grep.status().context("cannot start grep")?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("cannot search in {}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_this_build_are_replaced_and_other_flags_kept() {
        let mut command = Command::new("cargo");
        apply(&mut command, "x86_64-unknown-linux-musl").unwrap();
        let value = |name: &str| {
            let found = command.get_envs().find(|(found, _)| *found == name);
            found.and_then(|(_, value)| value).unwrap().to_string_lossy().into_owned()
        };
        let root = paths::root().display();
        let rust = value("CARGO_ENCODED_RUSTFLAGS");
        assert!(
            rust.split(SEPARATOR).any(|flag| flag == format!("--remap-path-prefix={root}=/build")),
            "{rust}"
        );
        let library = toolchain::library_source().unwrap();
        let option = format!("--remap-path-prefix={}=/rustc/{}", library.dir.display(), library.commit);
        assert!(rust.split(SEPARATOR).any(|flag| flag == option), "{rust}");
        let c = value("CFLAGS_x86_64_unknown_linux_musl");
        assert!(c.contains(&format!("-ffile-prefix-map={root}=/build")), "{c}");
        assert!(c.ends_with(" -D__DATE__=\"-\" -D__TIME__=\"-\""), "{c}");
    }

    #[test]
    fn a_folder_of_this_build_in_a_program_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, b"\x7fELF\0/build/t3-trace/src/main.rs\0").unwrap();
        check(&program).unwrap();
        let text = format!("\x7fELF\0{}/t3-trace/src/main.rs\0", paths::root().display());
        std::fs::write(&program, text).unwrap();
        assert!(check(&program).unwrap_err().to_string().contains("of this build"));
        assert!(check(&dir.path().join("missing")).is_err());
    }
}
