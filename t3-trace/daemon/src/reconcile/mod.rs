//! Exactly one `ws close` per session, whatever is killed: which sessions have no record, and the
//! passes over the journal that decide it.

mod boot_moment;
mod dispatch_id;
mod entry;
mod journal_view;
mod ledger;
#[cfg(test)]
mod model;
mod pass;
pub mod scan;
pub mod spool;
mod spool_thread;
mod store;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use t3_journal::{Fields, Outcome};
use t3_record::{
    CloseRecord, Reconciled,
    evidence::Nanos,
    reconcile::{Moment, UnclosedSession, mark},
    wire::{FromTrace, JournalState, Session},
};
use t3_trace_host::{clock::monotonic, journal_trust::Trust};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use self::{
    dispatch_id::Host, entry::Kept, journal_view::Journalctl, ledger::Write, pass::Finished, scan::ScanError,
    store::Store,
};
use crate::locked::lock;

/// Time between passes while records wait to be found in the journal.
const INTERVAL: Duration = Duration::from_secs(60);
/// Time until a written record is searched for; doubled up to [`INTERVAL`] while some do not
/// arrive or the journal cannot be read.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// A record that is written so much later than it was made says so.
const LATE_US: u64 = 10_000_000;

/// The rest of the daemon, as the reconciler needs it.
pub(crate) trait Daemon: Send + Sync + 'static {
    /// Whose entries in the journal count.
    fn trust(&self) -> Trust;

    /// dispatch has registered the session, and its end is handled with evidence.
    fn is_registered(&self, conn: &str) -> bool;

    /// A successor of the ended dispatch with this pid may still register its kept sessions.
    fn is_awaited(&self, pid: u32) -> bool;

    /// Hands an entry to the writer.
    fn write(&self, fields: Fields) -> oneshot::Receiver<Outcome>;

    /// Sends a message to the subscribers.
    fn publish(&self, message: FromTrace);

    /// Sends the counts to dispatch and the subscribers.
    fn publish_counts(&self, counts: JournalState);
}

/// Keeps account of sessions without a record, and writes what is missing.
pub(crate) struct Reconciler {
    store: Mutex<Store>,
    host: Host,
    due: Notify,
    requests: Mutex<Vec<oneshot::Sender<Report>>>,
    /// The counts that dispatch and the subscribers have.
    published: Mutex<JournalState>,
}

/// Answer to a request to reconcile now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Sessions of an ended dispatch that got their record.
    pub(crate) reconciled: u64,
    /// Records written because they had not arrived.
    pub(crate) rewritten: u64,
    /// Sessions that are still open.
    pub(crate) open: u64,
    /// Those of them whose dispatch has ended and whose successor is awaited.
    pub(crate) awaited: u64,
    /// Why the journal could not be read.
    pub(crate) error: Option<String>,
}

impl Reconciler {
    /// Opens the spool in `dir`; `None`: nothing is kept on disk.
    pub(crate) fn new(dir: Option<&Path>, size: u64) -> Self {
        Self {
            store: Mutex::new(Store::open(dir, size)),
            host: Host::this(),
            due: Notify::new(),
            requests: Mutex::default(),
            published: Mutex::default(),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// dispatch registered a session; before its 101 it needs no record of t3-trace.
    pub(crate) fn opened(&self, session: &Session, pid: Option<u32>) {
        if let Some(opened_at) = session.opened_at {
            let (unclosed, dispatch) = (self.unclosed(session, opened_at), self.host.dispatch(pid));
            self.store().opened(unclosed, dispatch, session.kept);
        }
    }

    /// A successor ends the session with its own record. Returns false if it is unknown.
    pub(crate) fn handed_over(&self, conn: &str, pid: Option<u32>) -> bool {
        self.store().handed_over(conn, self.host.dispatch(pid))
    }

    /// Identity of a session with its wall-clock time.
    fn unclosed(&self, session: &Session, opened_at: Nanos) -> UnclosedSession {
        let now = self.host.now().at;
        UnclosedSession {
            conn: session.conn.clone(),
            user: session.user.clone(),
            ip: session.ip.clone(),
            ray: session.ray.clone(),
            opened: Moment {
                wall_us: now.wall_us.saturating_sub(now.monotonic.saturating_sub(opened_at) / 1_000),
                monotonic: opened_at,
            },
        }
    }

    /// dispatch reported a record as written, or as lost.
    pub(crate) fn reported(&self, record: &CloseRecord, pid: Option<u32>, is_lost: bool) {
        let mut store = self.store();
        store.reported(record, self.host.now(), || self.host.dispatch(pid), is_lost);
        if is_lost || store.is_filling() {
            self.due.notify_one();
        }
    }

    /// Starts the record of a session whose dispatch is gone. Returns false if it needs none.
    pub(crate) fn claim(&self, session: &Session, pid: Option<u32>) -> bool {
        let opened_at = session.opened_at.unwrap_or_else(monotonic);
        self.store().claim(self.unclosed(session, opened_at), self.host.dispatch(pid))
    }

    /// The record of a claimed session is not needed: a successor continues the session.
    pub(crate) fn release(&self, conn: &str) {
        self.store().release(conn);
    }

    /// Writes the record of a claimed session in the next pass, unless the journal has one.
    pub(crate) fn abandoned(&self, record: &CloseRecord) {
        self.store().abandoned(record, self.host.now());
    }

    /// Starts a pass soon.
    pub(crate) fn wake(&self) {
        self.due.notify_one();
    }

    /// Runs a pass and returns its result.
    pub(crate) async fn request(&self) -> Report {
        let (answer, report) = oneshot::channel();
        lock(&self.requests).push(answer);
        self.due.notify_one();
        report.await.unwrap_or_default()
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> JournalState {
        self.store().counts()
    }

    /// Runs passes: at once, when something is due, and every minute while records wait.
    pub(crate) async fn run(self: Arc<Self>, daemon: Arc<impl Daemon>) {
        let mut retry = RETRY_FIRST;
        let mut last_error = None;
        loop {
            let asked = std::mem::take(&mut *lock(&self.requests));
            let began = Instant::now();
            let report = self.passes(&daemon, &mut last_error).await;
            let wait = if report.error.is_none() && report.rewritten == 0 {
                retry = RETRY_FIRST;
                if self.store().has_sent() || report.awaited > 0 { RETRY_FIRST } else { INTERVAL }
            } else {
                let wait = retry;
                retry = (retry * 2).min(INTERVAL);
                wait
            };
            let is_incomplete = report.error.is_some() || report.awaited > 0;
            for answer in asked {
                let _ = answer.send(report.clone());
            }
            self.wait(began + wait, is_incomplete).await;
        }
    }

    /// Runs passes until none finds a session without a record: the record that a pass makes is
    /// written by the next one.
    async fn passes(self: &Arc<Self>, daemon: &Arc<impl Daemon>, last_error: &mut Option<String>) -> Report {
        let mut total = Report::default();
        loop {
            let report = self.pass(daemon, last_error).await;
            total = Report {
                reconciled: total.reconciled + report.reconciled,
                rewritten: total.rewritten + report.rewritten,
                ..report
            };
            if report.reconciled == 0 {
                return total;
            }
        }
    }

    /// Waits for a reason to run the next pass.
    async fn wait(&self, until: Instant, is_incomplete: bool) {
        loop {
            let is_waiting = is_incomplete || self.counts().waiting > 0;
            tokio::select! {
                () = self.due.notified() => return,
                () = tokio::time::sleep_until(until), if is_waiting => return,
                // Records may have been added in the meantime.
                () = tokio::time::sleep(INTERVAL / 4) => {}
            }
        }
    }

    /// Runs one pass and writes the records that it demands.
    async fn pass(self: &Arc<Self>, daemon: &Arc<impl Daemon>, last_error: &mut Option<String>) -> Report {
        let journal = Journalctl { trust: daemon.trust() };
        let owners = pass::Owners {
            is_registered: &|conn| daemon.is_registered(conn),
            is_awaited: &|pid| daemon.is_awaited(pid),
            started: Host::started,
        };
        let finished = match pass::run(&journal, &self.store, &self.host, owners).await {
            Ok(finished) => {
                if last_error.take().is_some() {
                    tracing::info!("the journal can be read again");
                }
                finished
            }
            Err(ScanError::NoProgram) => {
                let mut store = self.store();
                store.forget_written();
                let writes = store.finish_pass(&std::collections::BTreeSet::new(), None);
                drop(store);
                log_once(
                    last_error,
                    "journalctl is not installed; records are written without a search for duplicates"
                        .to_owned(),
                );
                Finished { writes, ..Finished::default() }
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                log_once(last_error, format!("cannot read the journal: {error}; records wait in the spool"));
                self.publish(daemon.as_ref());
                return Report { error: Some(error), open: self.open(), ..Report::default() };
            }
        };
        for warning in &finished.warnings {
            tracing::warn!("journalctl: {warning}");
        }
        if finished.reconciled > 0 {
            tracing::warn!(
                sessions = finished.reconciled,
                "sessions of an ended t3-dispatch have no record; writing theirs"
            );
        }
        let rewritten = self.write(daemon, finished.writes);
        self.publish(daemon.as_ref());
        let Finished { reconciled, awaited, .. } = finished;
        Report { reconciled, rewritten, awaited, open: self.open(), error: None }
    }

    fn open(&self) -> u64 {
        self.store().ledger.open().count() as u64
    }

    /// Hands records to the writer; returns the number of those that had not arrived.
    fn write(self: &Arc<Self>, daemon: &Arc<impl Daemon>, writes: Vec<Write<Kept>>) -> u64 {
        let (mut missing, mut new) = (0, 0);
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let mut record = match write.record.record() {
                Ok(record) => record,
                Err(error) => {
                    tracing::error!(conn = write.conn, "cannot read a record of the spool: {error}");
                    self.store().unreadable(&write.conn);
                    continue;
                }
            };
            let made_us = write.record.made.at.wall_us;
            let is_late = self.host.now().at.wall_us.abs_diff(made_us) > LATE_US;
            if record.reconciled.is_none() && (write.is_missing || write.record.is_published || is_late) {
                mark(&mut record, Reconciled::Spool, made_us);
            }
            missing += u64::from(write.is_missing);
            new += u64::from(write.is_missing && !write.is_again);
            outcomes.push((write.conn, daemon.write(fields(&record))));
            if !write.record.is_published {
                daemon.publish(FromTrace::Closed { record: Box::new(record) });
            }
        }
        if new > 0 {
            tracing::error!(
                records = new,
                "records that journald had accepted are not in the journal; writing them again. See `t3-trace doctor`"
            );
        }
        let (reconciler, daemon) = (Arc::clone(self), Arc::clone(daemon));
        tokio::spawn(async move {
            for (conn, outcome) in outcomes {
                let outcome = outcome.await.unwrap_or(Outcome::Dropped);
                reconciler.store().sent(&conn, outcome);
            }
            reconciler.publish(daemon.as_ref());
        });
        missing
    }

    /// Sends changed counts to dispatch and the subscribers.
    fn publish(&self, daemon: &impl Daemon) {
        let counts = self.counts();
        if std::mem::replace(&mut *lock(&self.published), counts) != counts {
            daemon.publish_counts(counts);
        }
    }

    /// Writes what is pending before the daemon ends; the rest stays in the spool.
    pub(crate) async fn finish(self: &Arc<Self>, daemon: &Arc<impl Daemon>, timeout: Duration) {
        let mut last_error = None;
        let passes = async {
            if self.counts().waiting > 0 {
                self.passes(daemon, &mut last_error).await;
            }
        };
        let _ = tokio::time::timeout(timeout, passes).await;
        let reconciler = Arc::clone(self);
        let synced = tokio::task::spawn_blocking(move || reconciler.store().sync(timeout)).await;
        if let Err(error) = synced {
            tracing::error!("cannot write the spool: {error}");
        }
    }
}

fn log_once(last: &mut Option<String>, error: String) {
    if last.as_ref() != Some(&error) {
        tracing::error!("{error}");
        *last = Some(error);
    }
}

/// Fields of a record that t3-trace writes for t3-dispatch.
pub(crate) fn fields(record: &CloseRecord) -> Fields {
    let mut fields = record.to_fields();
    // For `journalctl -u t3-dispatch` (systemd.journal-fields(7)).
    fields.push(("OBJECT_SYSTEMD_UNIT".into(), "t3-dispatch.service".to_owned()));
    fields
}
