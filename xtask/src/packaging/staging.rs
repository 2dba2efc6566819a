//! Built contents of a package: the program without debug information, that information for the
//! package NAME-dbgsym, and the man pages and completions that the program prints. They are in
//! `target/package/stage/NAME`, where `[package.metadata.deb]` expects them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Plan, dbgsym, deb};
use crate::tools::arch::Arch;
use crate::tools::run::{run_checked, stdout_of};
use crate::tools::{paths, remap};

/// (shell, prefix and suffix of the program's name in the file name)
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];

/// Folder of the staged files of a package.
pub fn dir(name: &str) -> PathBuf {
    paths::target().join("package/stage").join(name)
}

/// Prepares everything of `program`.
pub fn program(name: &str, program: &Path, plan: &Plan) -> Result<()> {
    let dir = dir(name);
    for old in [&dir, &dbgsym::tree(name)] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let [man, completions] = ["man", "completions"].map(|part| dir.join(part));
    for part in [&man, &completions] {
        fs::create_dir_all(part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let staged = dir.join(name);
    stripped(name, &staged, program, plan)?;
    let arch = plan.arch;
    stdout_of(itself(&staged, arch).args(["man", "--to"]).arg(&man))?;
    if !man.join(format!("{name}.8")).is_file() {
        bail!("`{name} man --to DIR` did not write {name}.8");
    }
    for (shell, before, after) in SHELLS {
        let text = stdout_of(itself(&staged, arch).args(["completions", shell]))?;
        let file = completions.join(shell).join(format!("{before}{name}{after}"));
        fs::create_dir_all(file.parent().unwrap_or(&completions))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Another program in the package of `name`.
pub fn helper(name: &str, helper: &str, program: &Path, plan: &Plan) -> Result<()> {
    stripped(name, &dir(name).join(helper), program, plan)
}

fn stripped(name: &str, to: &Path, program: &Path, plan: &Plan) -> Result<()> {
    let mut strip = Command::new(plan.arch.binutils("strip"));
    // Function names stay, for backtraces in the journal.
    strip.args(["--strip-debug", "-o"]).arg(to).arg(program);
    run_checked("strip", strip)?;
    let text = stdout_of(itself(to, plan.arch).arg("--version"))?;
    let version = deb::version(name)?;
    if !states(&text, &version) {
        bail!("{} --version: expected {version}, got {text:?}", to.display());
    }
    if !plan.is_quick {
        remap::check(program)?;
    }
    dbgsym::add(name, program, plan)
}

/// Whether the output of `--version` has this version as a word.
fn states(text: &str, version: &str) -> bool {
    text.split_whitespace().any(|word| word == version)
}

/// Runs the program without the `T3_` variables of the build environment.
fn itself(program: &Path, arch: Arch) -> Command {
    let mut command = match arch.emulator() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("T3_") {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::states;

    #[test]
    fn the_version_is_a_whole_word() {
        assert!(states("t3-trace 0.1.0\n", "0.1.0"));
        for text in ["t3-trace 0.1.01", "t3-trace 10.1.0", ""] {
            assert!(!states(text, "0.1.0"), "{text}");
        }
    }
}
