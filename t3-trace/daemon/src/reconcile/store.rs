//! The ledger with its spool, limits and counts.

use std::path::Path;

use t3_record::{CloseRecord, reconcile::UnclosedSession, wire::JournalState};

use super::{
    dispatch_id::DispatchId,
    entry::{Entry, Kept, Origin},
    ledger::{Ledger, State, Write},
    moment::Moment,
    spool_thread::SpoolThread,
};

/// Bytes of a record, for the limit: a long one.
const RECORD_SIZE: u64 = 2048;

/// Sessions without a known record, kept in memory and in the spool.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) ledger: Ledger<Origin, Kept>,
    spool: Option<SpoolThread>,
    cursor: Option<String>,
    /// Limit of records that wait.
    max_records: usize,
    counts: JournalState,
    /// The last pass failed, or found records missing.
    is_failing: bool,
}

impl Store {
    /// Opens the spool in `dir` with `size` bytes; `None`: nothing is kept on disk.
    pub(crate) fn open(dir: Option<&Path>, size: u64) -> Self {
        let (spool, restored) = dir.map_or_else(Default::default, |dir| SpoolThread::start(dir, size));
        Self {
            ledger: Ledger::restore(restored.entries),
            spool,
            cursor: restored.cursor,
            max_records: usize::try_from(size / RECORD_SIZE).unwrap_or(usize::MAX).max(1),
            counts: JournalState::default(),
            is_failing: false,
        }
    }

    /// Position of the last pass in the journal.
    pub(crate) fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    /// Adds or updates an open session.
    pub(crate) fn opened(&mut self, session: UnclosedSession, dispatch: DispatchId) {
        let conn = session.conn.clone();
        self.ledger.opened(&conn, Origin { session, dispatch });
        self.persist();
    }

    /// dispatch reported a record. Without room it is not kept. It counts as lost if journald is
    /// known not to take records; otherwise a later pass is expected to find it.
    pub(crate) fn reported(
        &mut self,
        record: &CloseRecord,
        made: Moment,
        dispatch: impl FnOnce() -> DispatchId,
        is_lost: bool,
    ) {
        let origin = Origin { session: identity(record, made.wall_us), dispatch: dispatch() };
        if self.has_room() {
            self.ledger.reported(&record.conn, || origin, Kept::new(record, made, true), is_lost);
        } else if is_lost || self.is_failing {
            self.counts.lost += 1;
            self.ledger.give_up(&record.conn);
        } else {
            self.ledger.found_open(&record.conn, || origin);
        }
        self.persist();
    }

    /// Starts the record of a session whose dispatch is gone. Returns false if it needs none.
    pub(crate) fn claim(&mut self, session: UnclosedSession, dispatch: DispatchId) -> bool {
        let conn = session.conn.clone();
        self.ledger.claim(&conn, || Origin { session, dispatch })
    }

    /// Keeps the record of a claimed session. Without room the session stays open: a later pass
    /// makes a record from its identity.
    pub(crate) fn abandoned(&mut self, record: &CloseRecord, made: Moment) {
        if self.has_room() {
            self.ledger.abandoned(&record.conn, Kept::new(record, made, false));
        } else {
            self.ledger.release(&record.conn);
        }
        self.persist();
    }

    /// Another record can be kept.
    pub(crate) fn has_room(&self) -> bool {
        self.ledger.unverified() < self.max_records
    }

    /// A record was sent, and its arrival is to be confirmed.
    pub(crate) fn has_sent(&self) -> bool {
        self.ledger.has_sent()
    }

    /// So many records wait that the next pass should not.
    pub(crate) fn is_filling(&self) -> bool {
        self.ledger.unverified() >= self.max_records / 2
    }

    /// Ends a pass that read the journal up to `cursor`.
    pub(crate) fn finish_pass(
        &mut self,
        recorded: &std::collections::BTreeSet<String>,
        cursor: Option<String>,
    ) -> Vec<Write<Kept>> {
        let writes = self.ledger.finish_pass(recorded);
        let missing = writes.iter().filter(|write| write.is_missing).count() as u64;
        self.counts.missing += missing;
        self.is_failing = missing > 0;
        self.persist();
        if let Some(cursor) = cursor {
            if let Some(spool) = &self.spool {
                spool.set_cursor(cursor.clone());
            }
            self.cursor = Some(cursor);
        }
        writes
    }

    /// A pass could not be completed.
    pub(crate) fn pass_failed(&mut self) {
        self.is_failing = true;
    }

    /// The writer's result for a record.
    pub(crate) fn sent(&mut self, conn: &str, outcome: t3_journal::Outcome, was_missing: bool) {
        match outcome {
            t3_journal::Outcome::Written => {
                self.ledger.sent(conn, true);
                self.counts.rewritten += u64::from(was_missing);
            }
            t3_journal::Outcome::Dropped => self.ledger.sent(conn, false),
            t3_journal::Outcome::Rejected => {
                self.ledger.give_up(conn);
                self.counts.lost += 1;
            }
        }
        self.persist();
    }

    /// Removes a record that cannot be read.
    pub(crate) fn unreadable(&mut self, conn: &str) {
        self.ledger.give_up(conn);
        self.counts.lost += 1;
        self.persist();
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> JournalState {
        JournalState { waiting: self.ledger.unverified() as u64, ..self.counts }
    }

    /// Hands the changes to the spool.
    pub(crate) fn persist(&mut self) {
        let changes = self.ledger.take_changes();
        let Some(spool) = &self.spool else { return };
        for (conn, entry) in changes {
            match entry {
                Some(entry) => spool.put(conn, &entry),
                None => spool.remove(conn),
            }
        }
    }

    /// Waits until the spool is on disk, up to `timeout`.
    pub(crate) fn sync(&self, timeout: std::time::Duration) {
        if let Some(spool) = &self.spool {
            spool.sync(timeout);
        }
    }

    /// Records of dispatch that cannot be verified: without journalctl they count as written.
    pub(crate) fn forget_written(&mut self) {
        let written =
            |entry: &Entry| matches!(entry.state, State::Reported(_) | State::Sent { accepted: true, .. });
        for conn in self.ledger.due() {
            if self.ledger.get(&conn).is_some_and(written) {
                self.ledger.seen(&conn);
            }
        }
        self.persist();
    }
}

/// Identity of a session that is known only by its record, made at `at_us`.
fn identity(record: &CloseRecord, at_us: u64) -> UnclosedSession {
    UnclosedSession {
        conn: record.conn.clone(),
        user: record.user.clone(),
        ip: record.ip.clone(),
        ray: record.ray.clone(),
        opened_us: at_us.saturating_sub(record.dur_ms * 1_000),
    }
}

#[cfg(test)]
mod tests {
    use t3_record::reconcile::{UnclosedEnd, reconcile};

    use super::*;

    fn record(conn: &str) -> CloseRecord {
        let session = UnclosedSession {
            conn: conn.into(),
            user: "wizard".into(),
            ip: "192.0.2.1".into(),
            ray: None,
            opened_us: 5_000_000,
        };
        reconcile(&session, UnclosedEnd::DispatchDied, None)
    }

    fn report(store: &mut Store, conn: &str, is_lost: bool) {
        let made = Moment { wall_us: 9, boot: "b".into(), monotonic: 9 };
        let dispatch = || DispatchId { boot: "b".into(), pid: Some(7), ran_at: 9 };
        store.reported(&record(conn), made, dispatch, is_lost);
    }

    #[test]
    fn a_record_without_room_counts_as_lost_only_if_journald_takes_none() {
        let mut store = Store::open(None, RECORD_SIZE);
        report(&mut store, "a", false);
        report(&mut store, "b", false);
        assert_eq!(store.counts(), JournalState { waiting: 1, ..JournalState::default() });
        assert!(matches!(store.ledger.get("b").map(|entry| &entry.state), Some(State::Open)));
        store.pass_failed();
        report(&mut store, "b", false);
        report(&mut store, "c", true);
        assert_eq!(store.counts(), JournalState { waiting: 1, lost: 2, ..JournalState::default() });
        assert_eq!(store.ledger.len(), 1);
    }

    #[test]
    fn missing_and_rewritten_records_are_counted_once_each() {
        let mut store = Store::open(None, 1 << 20);
        report(&mut store, "a", false);
        store.ledger.start_pass();
        let writes = store.finish_pass(&std::collections::BTreeSet::new(), Some("cursor".into()));
        assert_eq!((writes.len(), store.cursor().as_deref()), (1, Some("cursor")));
        store.sent("a", t3_journal::Outcome::Written, true);
        let counts = JournalState { missing: 1, rewritten: 1, lost: 0, waiting: 1 };
        assert_eq!(store.counts(), counts);
        store.sent("a", t3_journal::Outcome::Rejected, true);
        assert_eq!(store.counts(), JournalState { lost: 1, waiting: 0, ..counts });
    }
}
