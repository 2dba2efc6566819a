//! Paths of the programs under test.

use std::path::{Path, PathBuf};

use crate::error::{Result, TestError};

/// Environment variable with the directory to search first.
pub const DIR_VARIABLE: &str = "T3_BIN_DIR";

/// The target folder, also for files that tests install.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from)
}

/// Finds a binary of this workspace: in `$T3_BIN_DIR`, next to the running executable (tests run
/// one folder below), in `$CARGO_TARGET_DIR/debug`, in the workspace's `target/debug`.
///
/// # Errors
/// [`TestError::Missing`] with the searched folders.
pub fn find(name: &str) -> Result<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::var_os(DIR_VARIABLE).map(PathBuf::from).into_iter().collect();
    if let Ok(here) = std::env::current_exe() {
        places.extend(here.ancestors().skip(1).take(2).map(Path::to_path_buf));
    }
    places.extend(std::env::var_os("CARGO_TARGET_DIR").map(|dir| Path::new(&dir).join("debug")));
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"));
    places.iter().map(|place| place.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        TestError::Missing {
            what: format!("the program {name}"),
            remedy: format!(
                "run `cargo xtask build`, or set {DIR_VARIABLE}; searched {}",
                places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
            ),
        }
    })
}

/// Finds a program of the distribution, also in the sbin folders, which may not be in PATH.
///
/// # Errors
/// [`TestError::Missing`] with the package to install.
pub fn find_system(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| TestError::Missing {
            what: format!("the program {name}"),
            remedy: format!("apt-get install {name}"),
        })
}
