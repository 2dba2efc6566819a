//! Sessions that need a `ws close`, and the one that writes it. Pure: no clock, no IO.
//!
//! A running dispatch writes the records of its own sessions. t3-trace writes a record only if
//! dispatch is gone, or if the journal does not have a record that dispatch reported as written,
//! and only at the end of a *pass*: [`Ledger::start_pass`], a sync of journald, a read of the
//! journal ([`Ledger::seen`]), and [`Ledger::finish_pass`] with the result of a search for each
//! session that is left. Everything that happened before the sync began is in the journal or will
//! never be, so the search decides between "written" and "lost", and two passes never write the
//! same record twice. What changes during a pass waits for the next one.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
};

/// Progress of one session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum State<R> {
    /// Its dispatch runs and writes the record.
    Open,
    /// Its dispatch is gone, and the record is being made.
    Claimed,
    /// Its dispatch reported the record as written. It was not yet found in the journal.
    Reported(R),
    /// t3-trace writes the record in the next pass.
    Pending(R),
    /// The writer of t3-trace has the record, and journald has accepted it if `accepted`. It was
    /// not yet found in the journal; if `is_missing`, it had been sent before and did not arrive.
    Sent { record: R, accepted: bool, is_missing: bool },
    /// As [`State::Reported`], but without the record, for which there was no room.
    Unkept,
}

impl<R> State<R> {
    /// Its part in the numbers of records and of sessions whose record was not kept.
    fn weight(&self) -> (usize, usize) {
        (usize::from(self.record().is_some()), usize::from(matches!(self, Self::Unkept)))
    }

    /// The record, if there is one.
    pub(crate) fn record(&self) -> Option<&R> {
        match self {
            Self::Open | Self::Claimed | Self::Unkept => None,
            Self::Reported(record) | Self::Pending(record) | Self::Sent { record, .. } => Some(record),
        }
    }
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry<S, R> {
    /// Identity of the session.
    pub(crate) session: S,
    pub(crate) state: State<R>,
    /// In this state since before the running pass began.
    is_due: bool,
}

impl<S, R> Entry<S, R> {
    /// Creates an entry whose next pass has not begun.
    pub(crate) fn new(session: S, state: State<R>) -> Self {
        Self { session, state, is_due: false }
    }

    fn set(&mut self, state: State<R>) {
        self.state = state;
        self.is_due = false;
    }
}

/// Decision about one session at the end of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write<R> {
    pub(crate) conn: String,
    pub(crate) record: R,
    /// The record had been sent before and did not arrive.
    pub(crate) is_missing: bool,
    /// An earlier pass had found that, too.
    pub(crate) is_again: bool,
}

/// Sessions without a known record in the journal, by id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ledger<S, R> {
    entries: BTreeMap<String, Entry<S, R>>,
    /// Entries with a record, and those of [`State::Unkept`].
    records: usize,
    unkept: usize,
    /// Ids whose entry changed since the last [`Ledger::take_changes`].
    changed: BTreeSet<String>,
}

impl<S: Clone, R: Clone> Ledger<S, R> {
    /// Creates a ledger from what an earlier process persisted.
    pub(crate) fn restore(entries: impl IntoIterator<Item = (String, Entry<S, R>)>) -> Self {
        let entries: BTreeMap<_, _> = entries.into_iter().collect();
        let mut ledger = Self { entries, records: 0, unkept: 0, changed: BTreeSet::new() };
        (ledger.records, ledger.unkept) = ledger.counted();
        ledger
    }

    /// Number of sessions.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of records that were not yet found in the journal.
    pub(crate) fn unverified(&self) -> usize {
        self.records + self.unkept
    }

    /// Number of records in memory.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// The numbers, by counting.
    fn counted(&self) -> (usize, usize) {
        let states = || self.entries.values().map(|entry| &entry.state);
        let is_unkept = |state: &&State<R>| matches!(state, State::Unkept);
        (states().filter(|state| state.record().is_some()).count(), states().filter(is_unkept).count())
    }

    fn count(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.records = self.records + after.0 - before.0;
        self.unkept = self.unkept + after.1 - before.1;
    }

    /// Changes the entry of a session, which is added if it is unknown.
    fn change<T>(
        &mut self,
        conn: &str,
        session: impl FnOnce() -> S,
        change: impl FnOnce(&mut Entry<S, R>) -> T,
    ) -> T {
        let entry = self.entries.entry(conn.to_owned());
        let entry = entry.or_insert_with(|| Entry::new(session(), State::Open));
        let before = entry.state.weight();
        let result = change(entry);
        let after = entry.state.weight();
        self.count(before, after);
        result
    }

    /// Whether the writer of t3-trace has records that were not yet found in the journal.
    pub(crate) fn has_sent(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.state, State::Sent { .. }))
    }

    /// The entry of a session.
    pub(crate) fn get(&self, conn: &str) -> Option<&Entry<S, R>> {
        self.entries.get(conn)
    }

    /// Sessions whose dispatch was running when they were last seen.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&str, &S)> {
        let open = self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Open));
        open.map(|(conn, entry)| (conn.as_str(), &entry.session))
    }

    /// Adds or updates a session of a running dispatch. A record that has not been sent is dropped:
    /// a successor continues the session and writes its record.
    pub(crate) fn opened(&mut self, conn: &str, session: S) {
        self.change(
            conn,
            || session.clone(),
            |entry| {
                entry.session = session.clone();
                if matches!(entry.state, State::Claimed | State::Pending(_)) {
                    entry.set(State::Open);
                }
            },
        );
        self.changed.insert(conn.to_owned());
    }

    /// Adds a session found in the journal, unless it is known.
    pub(crate) fn found_open(&mut self, conn: &str, session: impl FnOnce() -> S) {
        if !self.entries.contains_key(conn) {
            self.opened(conn, session());
        }
    }

    /// dispatch reported the record as written, or, with `is_lost`, that it could not write it.
    pub(crate) fn reported(&mut self, conn: &str, session: impl FnOnce() -> S, record: R, is_lost: bool) {
        let is_changed = self.change(conn, session, |entry| {
            // A record that t3-trace has sent is found in the journal, or sent again.
            let is_sent = matches!(entry.state, State::Sent { .. });
            if !is_sent {
                entry.set(if is_lost { State::Pending(record) } else { State::Reported(record) });
            }
            !is_sent
        });
        if is_changed {
            self.changed.insert(conn.to_owned());
        }
    }

    /// dispatch reported the record, which does not fit into memory or spool.
    pub(crate) fn unkept(&mut self, conn: &str, session: impl FnOnce() -> S) {
        let is_changed = self.change(conn, session, |entry| {
            let is_sent = matches!(entry.state, State::Sent { .. });
            if !is_sent {
                entry.set(State::Unkept);
            }
            !is_sent
        });
        if is_changed {
            self.changed.insert(conn.to_owned());
        }
    }

    /// Sessions whose record was not kept and that the pass has to search for.
    pub(crate) fn due_unkept(&self) -> impl Iterator<Item = &str> {
        let unkept =
            self.entries.iter().filter(|(_, entry)| entry.is_due && matches!(entry.state, State::Unkept));
        unkept.map(|(conn, _)| conn.as_str())
    }

    /// Whether the record had not arrived before it was sent again.
    pub(crate) fn was_missing(&self, conn: &str) -> bool {
        let state = self.entries.get(conn).map(|entry| &entry.state);
        matches!(state, Some(State::Sent { is_missing: true, .. }))
    }

    /// dispatch is gone; the record of the session is being made. Returns false if the session has
    /// a record, or is being handled.
    pub(crate) fn claim(&mut self, conn: &str, session: impl FnOnce() -> S) -> bool {
        let entry = self.entries.entry(conn.to_owned());
        let entry = entry.or_insert_with(|| Entry::new(session(), State::Open));
        let is_free = matches!(entry.state, State::Open);
        if is_free {
            // Not persisted: a later process finds it open again.
            entry.set(State::Claimed);
        }
        is_free
    }

    /// The record of a claimed session.
    pub(crate) fn abandoned(&mut self, conn: &str, record: R) {
        if let Some(entry) = self.entries.get_mut(conn)
            && matches!(entry.state, State::Claimed)
        {
            entry.set(State::Pending(record));
            self.records += 1;
            self.changed.insert(conn.to_owned());
        }
    }

    /// The record of a claimed session cannot be kept: a later pass handles it.
    pub(crate) fn release(&mut self, conn: &str) {
        if let Some(entry) = self.entries.get_mut(conn)
            && matches!(entry.state, State::Claimed)
        {
            entry.set(State::Open);
        }
    }

    /// The journal has the record.
    pub(crate) fn seen(&mut self, conn: &str) {
        if let Some(entry) = self.entries.remove(conn) {
            self.count(entry.state.weight(), (0, 0));
            self.changed.insert(conn.to_owned());
        }
    }

    /// Starts a pass: call it before journald is asked to sync.
    pub(crate) fn start_pass(&mut self) {
        for entry in self.entries.values_mut() {
            entry.is_due = match entry.state {
                State::Open | State::Claimed | State::Sent { accepted: false, .. } => false,
                State::Reported(_)
                | State::Pending(_)
                | State::Unkept
                | State::Sent { accepted: true, .. } => true,
            };
        }
    }

    /// Sessions that the journal must be searched for, one by one, before [`Ledger::finish_pass`].
    pub(crate) fn due(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, entry)| entry.is_due).map(|(conn, _)| conn.clone()).collect()
    }

    /// Ends a pass. `recorded` are the ids among [`Ledger::due`] whose record the journal has; the
    /// caller writes the others at once.
    pub(crate) fn finish_pass<Q: Borrow<str> + Ord>(&mut self, recorded: &BTreeSet<Q>) -> Vec<Write<R>> {
        let mut writes = Vec::new();
        let mut removed = (0, 0);
        self.entries.retain(|conn, entry| {
            if !std::mem::take(&mut entry.is_due) {
                return true;
            }
            if recorded.contains(conn.as_str()) {
                let (records, unkept) = entry.state.weight();
                removed = (removed.0 + records, removed.1 + unkept);
                self.changed.insert(conn.clone());
                return false;
            }
            if let Some(record) = entry.state.record().cloned() {
                let is_missing = !matches!(entry.state, State::Pending(_));
                let is_again = matches!(entry.state, State::Sent { is_missing: true, .. });
                writes.push(Write { conn: conn.clone(), record: record.clone(), is_missing, is_again });
                entry.state = State::Sent { record, accepted: false, is_missing };
                self.changed.insert(conn.clone());
            }
            true
        });
        self.count(removed, (0, 0));
        writes
    }

    /// The writer's result for a sent record: journald accepted it, or it was dropped.
    pub(crate) fn sent(&mut self, conn: &str, is_accepted: bool) {
        let Some(entry) = self.entries.get_mut(conn) else { return };
        if let State::Sent { record, is_missing, .. } = &entry.state {
            let (record, is_missing) = (record.clone(), *is_missing);
            entry.set(if is_accepted {
                State::Sent { record, accepted: true, is_missing }
            } else {
                State::Pending(record)
            });
        }
    }

    /// Removes a session whose record cannot be kept or can never be written.
    pub(crate) fn give_up(&mut self, conn: &str) {
        self.seen(conn);
    }

    /// Ids that changed since the last call, with their entry; `None` if it was removed.
    pub(crate) fn take_changes(&mut self) -> Vec<(String, Option<Entry<S, R>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|conn| {
                let entry = self.entries.get(&conn).cloned();
                (conn, entry)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Ledger<u8, &'static str>;

    fn pass(ledger: &mut Small, recorded: &[&str]) -> Vec<(String, bool)> {
        ledger.start_pass();
        finish(ledger, recorded)
    }

    fn finish(ledger: &mut Small, recorded: &[&str]) -> Vec<(String, bool)> {
        let writes = ledger.finish_pass(&recorded.iter().copied().collect());
        writes.into_iter().map(|write| (write.conn, write.is_missing)).collect()
    }

    fn ledger() -> Small {
        let mut ledger = Ledger::restore([]);
        ledger.opened("a", 1);
        ledger
    }

    #[test]
    fn a_running_dispatch_writes_its_own_record() {
        let mut ledger = ledger();
        assert_eq!(pass(&mut ledger, &[]), []);
        assert_eq!(ledger.due(), Vec::<String>::new());
        ledger.seen("a");
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn a_reported_record_that_did_not_arrive_is_written_again_until_it_does() {
        let mut ledger = ledger();
        ledger.reported("a", || 1, "r", false);
        for _ in 0..3 {
            assert_eq!(pass(&mut ledger, &[]), [("a".to_owned(), true)]);
            // Its outcome is not known yet.
            assert_eq!(pass(&mut ledger, &[]), []);
            ledger.sent("a", true);
        }
        assert_eq!(pass(&mut ledger, &["a"]), []);
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn changes_during_a_pass_wait_for_the_next() {
        let mut ledger = ledger();
        ledger.start_pass();
        ledger.reported("a", || 1, "r", false);
        assert_eq!(finish(&mut ledger, &[]), []);
        // dispatch died before the sync, but its record was made after it.
        let mut ledger = self::ledger();
        ledger.start_pass();
        assert!(ledger.claim("a", || 1));
        ledger.abandoned("a", "r");
        assert_eq!(finish(&mut ledger, &[]), []);
        assert_eq!(pass(&mut ledger, &[]), [("a".to_owned(), false)]);
        ledger.start_pass();
        ledger.sent("a", true);
        assert_eq!(finish(&mut ledger, &[]), []);
    }

    #[test]
    fn a_dead_dispatch_that_had_written_gets_no_second_record() {
        let mut ledger = ledger();
        assert!(ledger.claim("a", || 1));
        assert!(!ledger.claim("a", || 1), "by one task only");
        ledger.abandoned("a", "r");
        assert_eq!(pass(&mut ledger, &["a"]), []);
        assert_eq!(ledger.len(), 0);
        ledger.abandoned("a", "late");
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn a_session_that_a_successor_registers_in_time_gets_no_record_of_t3_trace() {
        let mut ledger = ledger();
        assert!(ledger.claim("a", || 1));
        ledger.opened("a", 2);
        ledger.abandoned("a", "r");
        assert_eq!(pass(&mut ledger, &[]), []);
        assert!(ledger.claim("a", || 2));
        ledger.abandoned("a", "r");
        ledger.start_pass();
        ledger.opened("a", 3);
        assert_eq!(finish(&mut ledger, &[]), []);
        assert_eq!(ledger.open().collect::<Vec<_>>(), [("a", &3)]);
        assert_eq!((ledger.records, ledger.unkept), ledger.counted());
        // The control: it is too late.
        assert!(ledger.claim("a", || 3));
        ledger.abandoned("a", "r");
        assert_eq!(pass(&mut ledger, &[]), [("a".to_owned(), false)]);
        ledger.opened("a", 4);
        assert_eq!(ledger.open().count(), 0);
    }

    #[test]
    fn a_report_that_arrives_before_the_death_of_its_dispatch_counts() {
        let mut ledger = ledger();
        ledger.reported("a", || 1, "of dispatch", false);
        assert!(!ledger.claim("a", || 1));
        ledger.start_pass();
        let writes = ledger.finish_pass(&BTreeSet::<&str>::new());
        assert_eq!(
            writes,
            [Write { conn: "a".into(), record: "of dispatch", is_missing: true, is_again: false }]
        );
    }

    #[test]
    fn a_record_that_dispatch_lost_is_written_without_being_missing() {
        let mut ledger: Small = Ledger::restore([]);
        ledger.reported("a", || 1, "r", true);
        assert_eq!(pass(&mut ledger, &[]), [("a".to_owned(), false)]);
        // Dropped by the full queue of t3-trace.
        ledger.sent("a", false);
        assert_eq!(pass(&mut ledger, &[]), [("a".to_owned(), false)]);
        ledger.give_up("a");
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn the_numbers_of_records_follow_every_change() {
        let mut ledger: Small = Ledger::restore([("z".to_owned(), Entry::new(1, State::Reported("r")))]);
        let mut seed = 7_u32;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let conn = ["a", "b", "c", "z"][(seed >> 8) as usize % 4];
            match (seed >> 16) % 12 {
                0 => ledger.opened(conn, 1),
                1 | 2 => ledger.reported(conn, || 1, "r", seed & 1 == 0),
                3 => ledger.unkept(conn, || 1),
                4 => drop(ledger.claim(conn, || 1)),
                5 => ledger.abandoned(conn, "r"),
                6 => ledger.release(conn),
                7 => ledger.seen(conn),
                8 => ledger.sent(conn, seed & 1 == 0),
                9 => drop(pass(&mut ledger, &[])),
                10 => drop(pass(&mut ledger, &[conn])),
                _ => ledger.start_pass(),
            }
            assert_eq!((ledger.records, ledger.unkept), ledger.counted());
        }
    }

    #[test]
    fn every_change_that_a_later_process_needs_is_listed_once() {
        let mut ledger = ledger();
        let states = |ledger: &mut Small| -> Vec<_> {
            let changes = ledger.take_changes().into_iter();
            changes.map(|(conn, entry)| (conn, entry.map(|entry| entry.state))).collect()
        };
        assert_eq!(states(&mut ledger), [("a".into(), Some(State::Open))]);
        assert!(ledger.claim("a", || 1));
        assert_eq!(states(&mut ledger), []);
        ledger.abandoned("a", "r");
        assert_eq!(states(&mut ledger), [("a".into(), Some(State::Pending("r")))]);
        ledger.seen("a");
        ledger.seen("b");
        assert_eq!(states(&mut ledger), [("a".into(), None)]);
    }
}
