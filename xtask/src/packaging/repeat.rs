//! Check that packing again gives the same bytes: file times, order and umask must not matter.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Plan, Programs, make, stage};
use crate::tools::{paths, progress};

/// Stages and packs again in another folder, and compares with `made`.
pub fn check(programs: &Programs, made: &[PathBuf], plan: &Plan) -> Result<()> {
    let again = paths::target().join("package/again");
    if again.exists() {
        fs::remove_dir_all(&again)?;
    }
    stage(programs, plan)?;
    let second = make(&again, plan)?;
    let different: Vec<_> =
        made.iter().filter(|first| !second.iter().any(|file| same(first, file))).collect();
    if !different.is_empty() || made.len() != second.len() {
        bail!(
            "packing again in {} gave other bytes: {different:?}; compare with diffoscope",
            paths::short(&again)
        );
    }
    progress::note("packing again gave the same bytes");
    fs::remove_dir_all(&again).with_context(|| format!("cannot delete {}", again.display()))
}

/// Same name and same bytes.
fn same(a: &Path, b: &Path) -> bool {
    a.file_name() == b.file_name()
        && fs::read(a).ok().is_some_and(|bytes| fs::read(b).is_ok_and(|b| b == bytes))
}

#[cfg(test)]
mod tests {
    use super::same;
    use std::fs;

    #[test]
    fn only_equal_bytes_under_the_same_name_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = |place: &str, name: &str, bytes: &str| {
            let path = dir.path().join(place).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        };
        let first = file("1", "a.deb", "x");
        assert!(same(&first, &file("2", "a.deb", "x")));
        assert!(!same(&first, &file("3", "a.deb", "y")));
        assert!(!same(&first, &file("4", "b.deb", "x")));
        assert!(!same(&dir.path().join("5"), &dir.path().join("5")));
    }
}
