//! Keeps the routing table of the running dispatch the one that its file holds: reads it when the
//! file changes and when it is asked to.
//!
//! A table that cannot be used changes nothing, and neither does a file that is gone: the last good
//! one goes on. Each state of the file is said once, however many events it took to get there.
//! Sessions are never looked at: one whose user is gone from the table goes on.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    metrics::Tried,
    process::{
        file_watch::{LOOK_EVERY, Watch},
        systemd::Teller,
    },
    routing::table::{Table, TableError},
    server::app::App,
};

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

/// What reloads.
pub struct Reloader {
    app: Arc<App>,
    file: TableFile,
    /// The ports that dispatch listens on.
    listening: Vec<u16>,
    /// The ports of all serves there ever were: sessions to one that is gone from the table still
    /// want their evidence.
    serves: BTreeSet<u16>,
    teller: Arc<Teller>,
}

impl Reloader {
    /// Nothing happens before [`Reloader::follow`].
    #[must_use]
    pub fn new(app: Arc<App>, file: TableFile, listening: Vec<u16>, teller: Arc<Teller>) -> Self {
        let serves = app.table().ports().into_iter().collect();
        Self { app, file, listening, serves, teller }
    }

    /// Reloads when the file changes and whenever `asked`, for ever.
    pub async fn follow(mut self, mut asked: mpsc::Receiver<()>) {
        let mut watch = Watch::new(&self.file.path, Some(LOOK_EVERY));
        // It can have changed between the first reading and the watch.
        self = self.look(false).await;
        loop {
            tokio::select! {
                () = watch.changed() => self = self.look(false).await,
                word = asked.recv() => {
                    let Some(()) = word else { return };
                    self.teller.reloading();
                    self = self.look(true).await;
                    self.teller.ready();
                }
            }
        }
    }

    /// One look, where a file system that stands still holds nobody up.
    async fn look(mut self, anyway: bool) -> Self {
        let looked = tokio::task::spawn_blocking(move || {
            let look = self.file.look(anyway);
            self.take(look);
            self
        });
        match looked.await {
            Ok(reloader) => reloader,
            // A panic there ends the reloading, as one here would.
            Err(_) => std::future::pending().await,
        }
    }

    fn take(&mut self, look: Look) {
        let path = self.file.path.display();
        match look {
            Look::Same => {}
            Look::Table(table) => {
                let before = self.app.table();
                let changes = table.changes(&before);
                let logins = table.len();
                self.serves.extend(table.ports());
                self.app.trace.watch(self.listening.clone(), self.serves.iter().copied().collect());
                self.app.pool.keep(|route| table.has(route));
                *self.app.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
                self.app.metrics.reloaded(Tried::Ok);
                self.teller.table_is_good();
                // Said only once it holds.
                tracing::info!("routing table {path}: {logins} logins ({changes})");
            }
            Look::Bad(error) => {
                self.app.metrics.reloaded(Tried::Failed);
                self.teller.table_is_bad(&error);
                tracing::error!("{error}; keeping the table from before");
            }
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
