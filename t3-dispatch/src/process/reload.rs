//! Reload of the routing table, when its file changes and on SIGHUP.
//!
//! An invalid table or a missing file changes nothing: the previous table stays in use. Each state
//! of the file is logged once. Open sessions are not affected, even if their user is no longer in
//! the table.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    metrics::ReloadResult,
    process::{
        file_watch::{FileWatch, POLL_INTERVAL},
        systemd::SystemdNotifier,
    },
    routing::{
        table::TableError,
        table_file::{TableChange, TableFile},
    },
    server::app::App,
};

/// Limit of the time for which a read of the file delays SIGHUP.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of threads that wait for a file system that does not answer. The path can lead
/// to another one in the meantime.
const MAX_LATE: usize = 16;

/// Reloads the routing table.
pub struct Reloader {
    app: Arc<App>,
    path: PathBuf,
    file: TableFile,
    /// Reads that have timed out and not ended. Their results are not used.
    late: Vec<JoinHandle<(TableFile, TableChange)>>,
    /// The last read has timed out: the next table is loaded even if it is unchanged.
    stalled: bool,
    /// The ports that dispatch listens on.
    listening: Vec<u16>,
    /// Ports at which serve's address would reach dispatch itself.
    own: Vec<u16>,
    /// Ports of all tables so far: open sessions to a removed serve still need kernel evidence.
    serves: BTreeSet<u16>,
    notifier: Arc<SystemdNotifier>,
}

impl Reloader {
    /// Returns a reloader that is not running yet.
    #[must_use]
    pub fn new(
        app: Arc<App>,
        file: TableFile,
        listening: Vec<u16>,
        own: Vec<u16>,
        notifier: Arc<SystemdNotifier>,
    ) -> Self {
        let serves = app.table().ports().into_iter().collect();
        let path = file.path().to_owned();
        Self { app, path, file, late: Vec::new(), stalled: false, listening, own, serves, notifier }
    }

    /// Reloads after each change of the file and on each request. Runs until the sender is dropped.
    pub async fn run(mut self, mut requests: mpsc::Receiver<()>) {
        let mut watch = FileWatch::new(&self.path, Some(POLL_INTERVAL)).await;
        // The file may have changed between the first read and the watch.
        self.check(false).await;
        loop {
            tokio::select! {
                () = watch.changed() => self.check(false).await,
                request = requests.recv() => {
                    let Some(()) = request else { return };
                    self.notifier.reloading();
                    self.check(true).await;
                    self.notifier.ready();
                }
            }
        }
    }

    /// Reads the file, on a thread where a stalled file system blocks no other task. With `forced`,
    /// an unchanged file is loaded again.
    async fn check(&mut self, forced: bool) {
        self.late.retain(|read| !read.is_finished());
        if self.late.len() >= MAX_LATE {
            return;
        }
        let (mut file, forced) = (self.file.clone(), forced || self.stalled);
        let mut reading = tokio::task::spawn_blocking(move || {
            let change = file.check(forced);
            (file, change)
        });
        match timeout(READ_TIMEOUT, &mut reading).await {
            Ok(Ok((file, change))) => {
                self.file = file;
                self.stalled = false;
                self.apply(change);
            }
            // A panic stops reloading, but not the process.
            Ok(Err(_)) => tracing::error!("reading routing table {} failed", self.path.display()),
            Err(_) => {
                self.late.push(reading);
                // Logged once per stall.
                if !std::mem::replace(&mut self.stalled, true) {
                    self.fail(&TableError::Timeout { path: self.path.clone(), limit: READ_TIMEOUT });
                }
            }
        }
    }

    fn fail(&self, error: &TableError) {
        self.app.metrics.table_reload(ReloadResult::Failed);
        self.notifier.table_failed(error);
        tracing::error!("{error}; keeping the previous table");
    }

    fn apply(&mut self, change: TableChange) {
        let path = self.path.display();
        let change = match change {
            TableChange::Table(table) => match table.check_ports(&self.own, &self.path) {
                Ok(()) => TableChange::Table(table),
                Err(error) => TableChange::Invalid(error),
            },
            other => other,
        };
        match change {
            TableChange::Unchanged => {}
            TableChange::Table(table) => {
                let before = self.app.table();
                let changes = table.changes(&before);
                let logins = table.len();
                self.serves.extend(table.ports());
                let serves = self.serves.iter().copied().collect();
                self.app.evidence.watch(self.listening.clone(), serves, &table.port_users());
                self.app.pool.retain(|route| table.has(route));
                *self.app.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
                self.app.metrics.table_reload(ReloadResult::Ok);
                self.notifier.table_loaded();
                // Logged only once the table is in use.
                tracing::info!("routing table {path}: {logins} logins ({changes})");
                if logins == 0 {
                    tracing::warn!("routing table {path} is empty: every request gets 403");
                }
            }
            TableChange::Invalid(error) => self.fail(&error),
        }
    }
}
