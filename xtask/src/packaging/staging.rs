//! Built contents of a package: the program without debug information, and the man pages and
//! completions that it prints. They are in `target/package/stage/NAME`, where
//! `[package.metadata.deb]` expects them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::tools::paths;
use crate::tools::run::{run_checked, stdout_of};

/// (shell, prefix and suffix of the program's name in the file name)
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];

/// Folder of the staged files of a package.
pub fn dir(name: &str) -> PathBuf {
    paths::target().join("package/stage").join(name)
}

/// Prepares everything of `program`.
pub fn program(name: &str, program: &Path) -> Result<()> {
    let dir = dir(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let [man, completions] = ["man", "completions"].map(|part| dir.join(part));
    for part in [&man, &completions] {
        fs::create_dir_all(part).with_context(|| format!("cannot create {}", part.display()))?;
    }
    let staged = stripped(&dir.join(name), program)?;
    stdout_of(itself(&staged).args(["man", "--to"]).arg(&man))?;
    if !man.join(format!("{name}.8")).is_file() {
        bail!("`{name} man --to DIR` did not write {name}.8");
    }
    for (shell, before, after) in SHELLS {
        let text = stdout_of(itself(&staged).args(["completions", shell]))?;
        let file = completions.join(shell).join(format!("{before}{name}{after}"));
        fs::create_dir_all(file.parent().unwrap_or(&completions))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Another program in the package of `name`.
pub fn helper(name: &str, helper: &str, program: &Path) -> Result<()> {
    stripped(&dir(name).join(helper), program).map(drop)
}

fn stripped(to: &Path, program: &Path) -> Result<PathBuf> {
    let mut strip = Command::new("strip");
    // Function names stay, for backtraces in the journal.
    strip.args(["--strip-debug", "-o"]).arg(to).arg(program);
    run_checked("strip", strip)?;
    Ok(to.to_owned())
}

/// Runs the program without the `T3_` variables of the build environment.
fn itself(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("T3_") {
            command.env_remove(&name);
        }
    }
    command
}
