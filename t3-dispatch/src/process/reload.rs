//! Keeps the routing table of the running dispatch the one that its file holds: reads it when the
//! file changes and when it is asked to.
//!
//! A table that cannot be used changes nothing, and neither does a file that is gone: the last good
//! one goes on. Each state of the file is said once, however many events it took to get there.
//! Sessions are never looked at: one whose user is gone from the table goes on.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    metrics::Tried,
    process::{
        file_watch::{LOOK_EVERY, Watch},
        systemd::Teller,
    },
    routing::table_file::{Look, TableFile},
    server::app::App,
};

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
        let mut watch = Watch::new(self.file.path(), Some(LOOK_EVERY));
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
        let path = self.file.path().display();
        match look {
            Look::Same => {}
            Look::Table(table) => {
                let before = self.app.table();
                let changes = table.changes(&before);
                let logins = table.len();
                self.serves.extend(table.ports());
                self.app.evidence.watch(self.listening.clone(), self.serves.iter().copied().collect());
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
                tracing::error!("{error}; keeping the previous table");
            }
        }
    }
}
