//! Peers from npm packages: folders in `peers/` with a lock file, installed once below the target
//! folder. Not part of the build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::binaries;

/// The folder of a peer; installs it if necessary.
pub fn installed(name: &str) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let folder = binaries::target().join("peers").join(name);
    let lock = fs::read(sources.join("package-lock.json"))
        .map_err(|error| format!("cannot read package-lock.json: {error}"))?;
    // Concurrent tests wait for one installation.
    let peers = binaries::target().join("peers");
    let waits =
        fs::create_dir_all(&peers).and_then(|()| fs::File::create(peers.join(format!("{name}.lock"))));
    let turn = waits.and_then(|file| file.lock().map(|()| file));
    let _turn = turn.map_err(|error| format!("cannot lock {}: {error}", peers.display()))?;
    // Written last, to detect a changed lock file or an incomplete installation.
    let done = folder.join("installed.json");
    let installed = fs::read(&done).is_ok_and(|installed| installed == lock);
    if !installed {
        let _ = fs::remove_dir_all(&folder);
    }
    copy(&sources, &folder).map_err(|error| format!("cannot copy {}: {error}", sources.display()))?;
    if !installed {
        // No package needs its install scripts.
        run("npm", &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"], &folder)?;
        fs::write(&done, lock).map_err(|error| format!("cannot write {}: {error}", done.display()))?;
    }
    folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))
}

/// Runs a program in a folder until it exits.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot start {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<_> = why.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
    lines.reverse();
    Err(format!("`{program} {}` failed: {}", arguments.join(" "), lines.join(" / ")))
}

/// Copies the files of a folder, without subfolders.
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
