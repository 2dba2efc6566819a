//! The ledger with its spool, limits and counts.

use std::path::Path;

use t3_record::{
    CloseRecord,
    reconcile::{Moment, UnclosedSession},
    wire::JournalState,
};

use super::{
    boot_moment::BootMoment,
    dispatch_id::DispatchId,
    entry::{Entry, Kept, Origin},
    ledger::{Ledger, State, Write},
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
        }
    }

    /// Position of the last pass in the journal.
    pub(crate) fn cursor(&self) -> Option<String> {
        self.cursor.clone()
    }

    /// Adds or updates an open session.
    pub(crate) fn opened(&mut self, session: UnclosedSession, dispatch: DispatchId, is_kept: bool) {
        let conn = session.conn.clone();
        self.ledger.opened(&conn, Origin { session, dispatch, is_kept });
        self.persist();
    }

    /// Another dispatch writes the record of this session. Returns false if it is unknown.
    pub(crate) fn handed_over(&mut self, conn: &str, dispatch: DispatchId) -> bool {
        let Some(entry) = self.ledger.get(conn) else { return false };
        let session = entry.session.session.clone();
        self.opened(session, dispatch, false);
        true
    }

    /// dispatch reported a record. Without room only the session is kept: it is lost if the next
    /// pass does not find its record.
    pub(crate) fn reported(
        &mut self,
        record: &CloseRecord,
        made: BootMoment,
        dispatch: impl FnOnce() -> DispatchId,
        is_lost: bool,
    ) {
        let origin = Origin { session: identity(record, made.at), dispatch: dispatch(), is_kept: false };
        if self.has_room() {
            self.ledger.reported(&record.conn, || origin, Kept::new(record, made, true), is_lost);
        } else {
            self.ledger.unkept(&record.conn, || origin);
        }
        self.persist();
    }

    /// The journal has the record.
    pub(crate) fn seen(&mut self, conn: &str) {
        self.counts.rewritten += u64::from(self.ledger.was_missing(conn));
        self.ledger.seen(conn);
    }

    /// Starts the record of a session whose dispatch is gone. Returns false if it needs none, also
    /// because another dispatch has it by now.
    pub(crate) fn claim(&mut self, session: UnclosedSession, dispatch: DispatchId) -> bool {
        let conn = session.conn.clone();
        let known = self.ledger.get(&conn).map(|entry| &entry.session.dispatch);
        if known.is_some_and(|known| (&known.boot, known.pid) != (&dispatch.boot, dispatch.pid)) {
            return false;
        }
        self.ledger.claim(&conn, || Origin { session, dispatch, is_kept: false })
    }

    /// Keeps the record of a claimed session. Without room the session stays open: a later pass
    /// makes a record from its identity.
    pub(crate) fn abandoned(&mut self, record: &CloseRecord, made: BootMoment) {
        if self.has_room() {
            self.ledger.abandoned(&record.conn, Kept::new(record, made, false));
        } else {
            self.ledger.release(&record.conn);
        }
        self.persist();
    }

    /// The record of a claimed session is not needed.
    pub(crate) fn release(&mut self, conn: &str) {
        self.ledger.release(conn);
    }

    /// Another record can be kept.
    pub(crate) fn has_room(&self) -> bool {
        self.ledger.records() < self.max_records
    }

    /// A record was sent, and its arrival is to be confirmed.
    pub(crate) fn has_sent(&self) -> bool {
        self.ledger.has_sent()
    }

    /// So many records wait that the next pass should not.
    pub(crate) fn is_filling(&self) -> bool {
        self.ledger.records() >= self.max_records / 2
    }

    /// Ends a pass that read the journal up to `cursor`.
    pub(crate) fn finish_pass(
        &mut self,
        recorded: &std::collections::BTreeSet<String>,
        cursor: Option<String>,
    ) -> Vec<Write<Kept>> {
        let arrived = recorded.iter().filter(|conn| self.ledger.was_missing(conn)).count();
        self.counts.rewritten += arrived as u64;
        let unkept: Vec<String> = self.ledger.due_unkept().map(str::to_owned).collect();
        let writes = self.ledger.finish_pass(recorded);
        let lost = unkept.iter().filter(|conn| !recorded.contains(*conn));
        for conn in lost {
            self.counts.lost += 1;
            self.counts.missing += 1;
            self.ledger.give_up(conn);
        }
        self.counts.missing +=
            writes.iter().filter(|write| write.is_missing && !write.is_again).count() as u64;
        self.persist();
        if let Some(cursor) = cursor {
            if let Some(spool) = &self.spool {
                spool.set_cursor(cursor.clone());
            }
            self.cursor = Some(cursor);
        }
        writes
    }

    /// The writer's result for a record.
    pub(crate) fn sent(&mut self, conn: &str, outcome: t3_journal::Outcome) {
        match outcome {
            t3_journal::Outcome::Written => self.ledger.sent(conn, true),
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
        let written = |entry: &Entry| {
            matches!(entry.state, State::Reported(_) | State::Unkept | State::Sent { accepted: true, .. })
        };
        for conn in self.ledger.due() {
            if self.ledger.get(&conn).is_some_and(written) {
                self.ledger.seen(&conn);
            }
        }
        self.persist();
    }
}

/// Identity of a session that is known only by its record.
fn identity(record: &CloseRecord, made: Moment) -> UnclosedSession {
    UnclosedSession {
        conn: record.conn.clone(),
        user: record.user.clone(),
        ip: record.ip.clone(),
        ray: record.ray.clone(),
        opened: Moment {
            wall_us: made.wall_us.saturating_sub(record.dur_ms.saturating_mul(1_000)),
            monotonic: made.monotonic.saturating_sub(record.dur_ms.saturating_mul(1_000_000)),
        },
    }
}

#[cfg(test)]
mod tests {
    use t3_record::reconcile::{UnclosedEnd, reconcile};

    use super::*;

    const AT: Moment = Moment { wall_us: 9, monotonic: 9 };

    fn record(conn: &str) -> CloseRecord {
        let session = UnclosedSession {
            conn: conn.into(),
            user: "wizard".into(),
            ip: "192.0.2.1".into(),
            ray: None,
            opened: AT,
        };
        reconcile(&session, UnclosedEnd::DispatchDied, None)
    }

    fn report(store: &mut Store, conn: &str, is_lost: bool) {
        let made = BootMoment { boot: "b".into(), at: AT };
        let dispatch = || DispatchId { boot: "b".into(), pid: Some(7), ran_at: 9 };
        store.reported(&record(conn), made, dispatch, is_lost);
    }

    fn pass(store: &mut Store, recorded: &[&str]) -> usize {
        store.ledger.start_pass();
        store.finish_pass(&recorded.iter().map(|conn| (*conn).to_owned()).collect(), None).len()
    }

    #[test]
    fn a_record_without_room_is_lost_if_the_next_pass_does_not_find_it() {
        let mut store = Store::open(None, RECORD_SIZE);
        for conn in ["a", "b", "c"] {
            report(&mut store, conn, false);
        }
        assert_eq!(store.counts(), JournalState { waiting: 3, ..JournalState::default() });
        assert_eq!(pass(&mut store, &["b"]), 1);
        let counts = JournalState { missing: 2, lost: 1, waiting: 1, ..JournalState::default() };
        assert_eq!(store.counts(), counts);
    }

    #[test]
    fn a_missing_record_is_counted_once_and_as_rewritten_when_it_arrives() {
        let mut store = Store::open(None, 1 << 20);
        report(&mut store, "a", false);
        for _ in 0..3 {
            assert_eq!(pass(&mut store, &[]), 1);
            store.sent("a", t3_journal::Outcome::Written);
            let counts = JournalState { missing: 1, waiting: 1, ..JournalState::default() };
            assert_eq!(store.counts(), counts);
        }
        let mut by_scan = store.counts();
        assert_eq!(pass(&mut store, &["a"]), 0);
        (by_scan.rewritten, by_scan.waiting) = (1, 0);
        assert_eq!(store.counts(), by_scan);
        report(&mut store, "b", false);
        store.seen("b");
        assert_eq!(store.counts(), by_scan, "it had arrived at once");
    }

    #[test]
    fn a_record_that_can_never_be_sent_is_lost() {
        let mut store = Store::open(None, 1 << 20);
        report(&mut store, "a", true);
        assert_eq!(pass(&mut store, &[]), 1);
        store.sent("a", t3_journal::Outcome::Rejected);
        assert_eq!(store.counts(), JournalState { lost: 1, ..JournalState::default() });
    }
}
