//! The routing table's file and its last known state.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::routing::table::{Table, TableError};

/// The file as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Content(String),
    Unreadable(io::ErrorKind, Option<i32>),
}

/// The routing table's file, and what is known of it.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    seen: Seen,
}

/// What a look at the file brought.
#[derive(Debug)]
pub enum Look {
    /// Nothing that was not known.
    Same,
    /// A table.
    Table(Table),
    /// Nothing of use.
    Bad(TableError),
}

impl TableFile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it for the first time.
    ///
    /// # Errors
    /// [`TableError`]: without a table there is nothing to start with.
    pub fn open(path: PathBuf) -> Result<(Self, Table), TableError> {
        let text = Table::read(&path)?;
        let table = Table::parse(&text, &path)?;
        Ok((Self { path, seen: Seen::Content(text) }, table))
    }

    /// Looks whether it is another one; `anyway`: reads it also when it is not.
    pub fn look(&mut self, anyway: bool) -> Look {
        let read = Table::read(&self.path);
        let seen = match &read {
            Ok(text) => Seen::Content(text.clone()),
            Err(TableError::Read { source, .. }) => Seen::Unreadable(source.kind(), source.raw_os_error()),
            Err(TableError::Content { .. }) => Seen::Unreadable(io::ErrorKind::InvalidData, None),
        };
        if seen == self.seen && !anyway {
            return Look::Same;
        }
        self.seen = seen;
        match read.and_then(|text| Table::parse(&text, &self.path)) {
            Ok(table) => Look::Table(table),
            Err(error) => Look::Bad(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_look_tells_only_what_was_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dispatch.json");
        let good = r#"{"ann": {"os_user": "ann", "port": 1}}"#;
        assert!(matches!(TableFile::open(path.clone()), Err(TableError::Read { .. })));
        fs::write(&path, good).unwrap();
        let (mut file, table) = TableFile::open(path.clone()).unwrap();
        assert_eq!(table.len(), 1);
        assert!(matches!(file.look(false), Look::Same));
        fs::write(&path, good).unwrap();
        assert!(matches!(file.look(false), Look::Same), "written, but with the same content");
        assert!(matches!(file.look(true), Look::Table(_)), "asked for");

        fs::write(&path, "{").unwrap();
        assert!(matches!(file.look(false), Look::Bad(TableError::Content { .. })));
        assert!(matches!(file.look(false), Look::Same), "the same mistake is said once");
        fs::write(&path, "{\n").unwrap();
        assert!(matches!(file.look(false), Look::Bad(_)), "another mistake");

        fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(false), Look::Bad(TableError::Read { .. })));
        assert!(matches!(file.look(false), Look::Same));
        fs::write(&path, good).unwrap();
        assert!(matches!(file.look(false), Look::Table(table) if table.len() == 1));
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(file.look(false), Look::Bad(TableError::Read { .. })));
    }
}
