//! The cursor file: position in the journal up to which everything was accepted.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} cursor file {}: {source}; see --cursor-file", path.display())]
pub struct CursorError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Reads the file; `None` if it does not exist or is empty.
///
/// # Errors
/// [`CursorError`].
pub fn read(path: &Path) -> Result<Option<String>, CursorError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CursorError { verb: "read", path: path.to_owned(), source }),
    }
}

/// Replaces the file: a crash leaves the old or the new position.
///
/// # Errors
/// [`CursorError`].
pub fn write(path: &Path, cursor: &str) -> Result<(), CursorError> {
    let failed = |source| CursorError { verb: "write", path: path.to_owned(), source };
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new).map_err(failed)?;
    file.write_all(format!("{cursor}\n").as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        assert_eq!(read(&path).unwrap(), None);
        for cursor in ["s=1;i=2", "s=1;i=3"] {
            write(&path, cursor).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(cursor));
        }
        let error = write(&dir.path().join("missing/cursor"), "x").unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write cursor file ") && error.ends_with("see --cursor-file"),
            "{error}"
        );
    }
}
