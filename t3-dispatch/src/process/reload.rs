//! Reload of the routing table, when its file changes and on SIGHUP.
//!
//! An invalid table or a missing file changes nothing: the previous table stays in use. Each state
//! of the file is logged once. Open sessions are not affected, even if their user is no longer in
//! the table.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    metrics::ReloadResult,
    process::{
        file_watch::{FileWatch, POLL_INTERVAL},
        systemd::SystemdNotifier,
    },
    routing::table_file::{TableChange, TableFile},
    server::app::App,
};

/// Reloads the routing table.
pub struct Reloader {
    app: Arc<App>,
    file: TableFile,
    /// The ports that dispatch listens on.
    listening: Vec<u16>,
    /// Ports of all tables so far: open sessions to a removed serve still need kernel evidence.
    serves: BTreeSet<u16>,
    notifier: Arc<SystemdNotifier>,
}

impl Reloader {
    /// Returns a reloader that is not running yet.
    #[must_use]
    pub fn new(app: Arc<App>, file: TableFile, listening: Vec<u16>, notifier: Arc<SystemdNotifier>) -> Self {
        let serves = app.table().ports().into_iter().collect();
        Self { app, file, listening, serves, notifier }
    }

    /// Reloads after each change of the file and on each request. Runs until the sender is dropped.
    pub async fn run(mut self, mut requests: mpsc::Receiver<()>) {
        let mut watch = FileWatch::new(self.file.path(), Some(POLL_INTERVAL));
        // The file may have changed between the first read and the watch.
        self = self.check(false).await;
        loop {
            tokio::select! {
                () = watch.changed() => self = self.check(false).await,
                request = requests.recv() => {
                    let Some(()) = request else { return };
                    self.notifier.reloading();
                    self = self.check(true).await;
                    self.notifier.ready();
                }
            }
        }
    }

    /// Reads the file, on a thread where a stalled file system blocks no other task. With `forced`,
    /// an unchanged file is loaded again.
    async fn check(mut self, forced: bool) -> Self {
        let checked = tokio::task::spawn_blocking(move || {
            let change = self.file.check(forced);
            self.apply(change);
            self
        });
        match checked.await {
            Ok(reloader) => reloader,
            // A panic stops reloading, but not the process.
            Err(_) => std::future::pending().await,
        }
    }

    fn apply(&mut self, change: TableChange) {
        let path = self.file.path().display();
        match change {
            TableChange::Unchanged => {}
            TableChange::Table(table) => {
                let before = self.app.table();
                let changes = table.changes(&before);
                let logins = table.len();
                self.serves.extend(table.ports());
                self.app.evidence.watch(self.listening.clone(), self.serves.iter().copied().collect());
                self.app.pool.retain(|route| table.has(route));
                *self.app.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
                self.app.metrics.table_reload(ReloadResult::Ok);
                self.notifier.table_loaded();
                // Logged only once the table is in use.
                tracing::info!("routing table {path}: {logins} logins ({changes})");
            }
            TableChange::Invalid(error) => {
                self.app.metrics.table_reload(ReloadResult::Failed);
                self.notifier.table_failed(&error);
                tracing::error!("{error}; keeping the previous table");
            }
        }
    }
}
