//! The routing table's file and its last known state.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::routing::table::{Table, TableError};

/// State of the file at the last check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileState {
    Content(String),
    Unreadable(io::ErrorKind, Option<i32>),
}

/// The routing table's file, with its last known state.
#[derive(Debug, Clone)]
pub struct TableFile {
    path: PathBuf,
    state: FileState,
}

/// Result of a check of the file.
#[derive(Debug)]
pub enum TableChange {
    Unchanged,
    Table(Table),
    Invalid(TableError),
}

impl TableFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file for the first time.
    ///
    /// # Errors
    /// [`TableError`]; t3-dispatch does not start without a table.
    pub fn open(path: PathBuf) -> Result<(Self, Table), TableError> {
        let text = Table::read(&path)?;
        let table = Table::parse(&text, &path)?;
        Ok((Self { path, state: FileState::Content(text) }, table))
    }

    /// Checks whether the file changed; with `force`, parses it even if unchanged.
    pub fn check(&mut self, force: bool) -> TableChange {
        let read = Table::read(&self.path);
        let state = match &read {
            Ok(text) => FileState::Content(text.clone()),
            Err(TableError::Read { source, .. }) => {
                FileState::Unreadable(source.kind(), source.raw_os_error())
            }
            Err(_) => FileState::Unreadable(io::ErrorKind::InvalidData, None),
        };
        if state == self.state && !force {
            return TableChange::Unchanged;
        }
        self.state = state;
        match read.and_then(|text| Table::parse(&text, &self.path)) {
            Ok(table) => TableChange::Table(table),
            Err(error) => TableChange::Invalid(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_check_reports_only_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dispatch.json");
        let good = r#"{"ann": {"os_user": "ann", "port": 1}}"#;
        assert!(matches!(TableFile::open(path.clone()), Err(TableError::Read { .. })));
        fs::write(&path, good).unwrap();
        let (mut file, table) = TableFile::open(path.clone()).unwrap();
        assert_eq!(table.len(), 1);
        assert!(matches!(file.check(false), TableChange::Unchanged));
        fs::write(&path, good).unwrap();
        assert!(matches!(file.check(false), TableChange::Unchanged), "written, but with the same content");
        assert!(matches!(file.check(true), TableChange::Table(_)), "forced");

        fs::write(&path, "{").unwrap();
        assert!(matches!(file.check(false), TableChange::Invalid(TableError::Content { .. })));
        assert!(matches!(file.check(false), TableChange::Unchanged), "the same mistake is reported once");
        fs::write(&path, "{\n").unwrap();
        assert!(matches!(file.check(false), TableChange::Invalid(_)), "another mistake");

        fs::remove_file(&path).unwrap();
        assert!(matches!(file.check(false), TableChange::Invalid(TableError::Read { .. })));
        assert!(matches!(file.check(false), TableChange::Unchanged));
        fs::write(&path, good).unwrap();
        assert!(matches!(file.check(false), TableChange::Table(table) if table.len() == 1));
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(file.check(false), TableChange::Invalid(TableError::Read { .. })));
    }
}
