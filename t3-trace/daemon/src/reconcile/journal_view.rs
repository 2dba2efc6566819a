//! The journal as a pass needs it: journalctl, or a stand-in in tests.

use std::{collections::BTreeSet, future::Future};

use t3_record::reconcile::Moment;
use t3_trace_host::journal_trust::Trust;

use super::scan::{self, Found, From, OldestEntry, ScanError, Scanned};

/// Questions of a pass to the journal. Boot ids are written as journald does.
pub(crate) trait JournalView: Sync {
    /// Waits until everything sent to journald before is in the journal, or dropped.
    fn sync(&self) -> impl Future<Output = Result<(), ScanError>> + Send;

    /// Reads the entries of opens and closes after a position.
    fn scan(
        &self,
        from: &From,
        each: &mut (dyn FnMut(Found) + Send),
    ) -> impl Future<Output = Result<Scanned, ScanError>> + Send;

    /// Those of the sessions that have a close in the journal, wherever it is.
    fn recorded(&self, conns: &[String]) -> impl Future<Output = Result<BTreeSet<String>, ScanError>> + Send;

    /// The oldest entry of the journal.
    fn oldest_entry(&self) -> impl Future<Output = Result<Option<OldestEntry>, ScanError>> + Send;

    /// Time of the last entry of a boot, and of a process if given.
    fn last_sign(
        &self,
        boot: &str,
        pid: Option<u32>,
    ) -> impl Future<Output = Result<Option<Moment>, ScanError>> + Send;

    /// Whether journald was stopped in order in that boot.
    fn ended_cleanly(&self, boot: &str) -> impl Future<Output = Result<bool, ScanError>> + Send;
}

/// The journal of this host, through journalctl.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Journalctl {
    /// Whose entries count.
    pub(crate) trust: Trust,
}

impl JournalView for Journalctl {
    async fn sync(&self) -> Result<(), ScanError> {
        scan::sync().await
    }

    async fn scan(&self, from: &From, each: &mut (dyn FnMut(Found) + Send)) -> Result<Scanned, ScanError> {
        scan::scan(from, self.trust, each).await
    }

    async fn recorded(&self, conns: &[String]) -> Result<BTreeSet<String>, ScanError> {
        scan::recorded(conns, self.trust).await
    }

    async fn oldest_entry(&self) -> Result<Option<OldestEntry>, ScanError> {
        scan::oldest_entry().await
    }

    async fn last_sign(&self, boot: &str, pid: Option<u32>) -> Result<Option<Moment>, ScanError> {
        scan::last_sign(boot, pid).await
    }

    async fn ended_cleanly(&self, boot: &str) -> Result<bool, ScanError> {
        scan::ended_cleanly(boot).await
    }
}
