//! Peers made of npm packages: each is a folder in `peers/` with a lock file, installed once below
//! the target folder. Never part of the build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::binaries;

/// The folder a peer runs from, installed first if need be.
///
/// # Errors
/// What npm or the file system said.
pub fn installed(name: &str) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let folder = binaries::target().join("peers").join(name);
    let lock =
        fs::read(sources.join("package-lock.json")).map_err(|error| format!("no lock file: {error}"))?;
    // Tests that run at the same time wait for one installation.
    let peers = binaries::target().join("peers");
    let waits =
        fs::create_dir_all(&peers).and_then(|()| fs::File::create(peers.join(format!("{name}.lock"))));
    let turn = waits.and_then(|file| file.lock().map(|()| file));
    let _turn = turn.map_err(|error| format!("locking {} failed: {error}", peers.display()))?;
    // Written last: a folder with another lock, or half an installation, is not what is asked for.
    let done = folder.join("installed.json");
    let installed = fs::read(&done).is_ok_and(|installed| installed == lock);
    if !installed {
        let _ = fs::remove_dir_all(&folder);
    }
    copy(&sources, &folder).map_err(|error| format!("copying {} failed: {error}", sources.display()))?;
    if !installed {
        // No scripts of packages: none of them needs what it would do here.
        run("npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"], &folder)?;
        fs::write(&done, lock).map_err(|error| format!("writing {} failed: {error}", done.display()))?;
    }
    folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))
}

/// Runs a program in a folder, to its end.
///
/// # Errors
/// It does not start or fails, with its last words.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<_> = why.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
    lines.reverse();
    Err(format!("`{program} {}` failed: {}", arguments.join(" "), lines.join(" / ")))
}

/// The files of a folder; not what is below it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
