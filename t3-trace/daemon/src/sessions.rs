//! The sessions that dispatch has registered. Pure: who owns which session, which were asked about,
//! which lost their dispatch.

use std::collections::HashMap;

use t3_record::{
    evidence::Nanos,
    wire::{Session, live::StatsReport},
};
use t3_trace_host::kernel::{Generation, ServeTuple};

/// How many sessions are held at most: a bound on the memory of a privileged process, far above
/// what one machine serves.
pub const MAX_SESSIONS: usize = 200_000;

/// One connection of dispatch to the evidence socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One registered session.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As dispatch told it.
    pub session: Session,
    /// Over which connection it was told last.
    pub connection: ConnectionId,
    /// When it was first told.
    pub registered_at: Nanos,
    /// When dispatch asked for evidence: from then on its record may be in the journal.
    pub asked_at: Option<Nanos>,
    /// When the connection broke.
    pub detached_at: Option<Nanos>,
    /// serve's own end of the upstream leg.
    pub serve: Option<(ServeTuple, Generation)>,
    /// A process in dispatch's network namespace: dispatch.
    pub dispatch_pid: Option<u32>,
    /// The live numbers that dispatch told last.
    pub pulse: Option<StatsReport>,
}

impl Entry {
    /// By when the process behind serve's end must have been there.
    #[must_use]
    pub fn began_at(&self) -> Nanos {
        self.session.opened_at.map_or(self.registered_at, |opened| opened.min(self.registered_at))
    }

    /// Since when a record of it may be in the journal without our knowledge; `None`: it cannot be.
    #[must_use]
    pub fn maybe_written_since(&self) -> Option<Nanos> {
        [self.asked_at, self.detached_at].into_iter().flatten().min()
    }
}

/// No more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SESSIONS} sessions are registered already; this one will have no record if dispatch dies")]
pub struct Full;

/// All registered sessions, by id.
#[derive(Debug, Default)]
pub struct Sessions {
    by_conn: HashMap<String, Entry>,
}

impl Sessions {
    /// Adds a session, or hears of it again (after its 101, or over a new connection).
    ///
    /// # Errors
    /// [`Full`].
    pub fn register(&mut self, mut entry: Entry) -> Result<(), Full> {
        let full = self.by_conn.len() >= MAX_SESSIONS;
        match self.by_conn.get_mut(&entry.session.conn) {
            Some(known) => {
                entry.registered_at = known.registered_at;
                entry.asked_at = known.asked_at;
                entry.pulse = entry.pulse.or_else(|| known.pulse.take());
                let upstream = |session: &Session| session.up.map(|leg| leg.cookie);
                if upstream(&known.session) == upstream(&entry.session) {
                    // Asked while the connection was younger: the better answer.
                    entry.serve = known.serve.or(entry.serve);
                }
                *known = entry;
            }
            None if full => return Err(Full),
            None => {
                self.by_conn.insert(entry.session.conn.clone(), entry);
            }
        }
        Ok(())
    }

    /// Dispatch counted. What it says of sessions that it has not registered is passed over.
    pub fn pulse(&mut self, pulse: StatsReport) {
        if let Some(entry) = self.by_conn.get_mut(&pulse.conn) {
            entry.pulse = Some(pulse);
        }
    }

    /// How many sessions are open, and what `tell` makes of at most `most` of them: first those
    /// that wait longest for a heartbeat, then the youngest.
    pub fn open<T>(&self, most: usize, tell: impl Fn(&Entry) -> T) -> (u64, Vec<T>) {
        let open = self.by_conn.values().filter(|entry| entry.session.opened_at.is_some());
        let mut open: Vec<&Entry> = open.collect();
        let count = open.len() as u64;
        let rank = |entry: &&Entry| {
            let waiting = entry.pulse.as_ref().and_then(|pulse| pulse.waiting_since);
            (waiting.unwrap_or(Nanos::MAX), std::cmp::Reverse(entry.session.opened_at))
        };
        if most < open.len() {
            open.select_nth_unstable_by_key(most, rank);
            open.truncate(most);
        }
        open.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.session.conn.cmp(&b.session.conn)));
        (count, open.into_iter().map(tell).collect())
    }

    /// Dispatch asks for evidence.
    pub fn ask(&mut self, conn: &str, now: Nanos) -> Option<Entry> {
        let entry = self.by_conn.get_mut(conn)?;
        entry.asked_at.get_or_insert(now);
        Some(entry.clone())
    }

    /// The record is written.
    pub fn done(&mut self, conn: &str) -> Option<Entry> {
        self.by_conn.remove(conn)
    }

    /// A connection broke; returns how many sessions hung on it.
    pub fn detach(&mut self, connection: ConnectionId, now: Nanos) -> usize {
        let theirs = self.by_conn.values_mut().filter(|entry| entry.connection == connection);
        theirs.map(|entry| entry.detached_at = Some(now)).count()
    }

    /// How many sessions were told over this connection last.
    #[must_use]
    pub fn count(&self, connection: ConnectionId) -> usize {
        self.by_conn.values().filter(|entry| entry.connection == connection).count()
    }

    /// Removes the sessions that were told over this connection last, in the order in which they
    /// began.
    pub fn take(&mut self, connection: ConnectionId) -> Vec<Entry> {
        let mut taken: Vec<Entry> = self
            .by_conn
            .extract_if(|_, entry| entry.connection == connection)
            .map(|(_, entry)| entry)
            .collect();
        taken.sort_by(|a, b| (a.began_at(), &a.session.conn).cmp(&(b.began_at(), &b.session.conn)));
        taken
    }

    /// How many sessions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_conn.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_conn.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(conn: &str, connection: u64, registered_at: Nanos) -> Entry {
        let session = Session {
            conn: conn.to_owned(),
            user: "wizard".to_owned(),
            ip: "192.0.2.1".to_owned(),
            ray: None,
            opened_at: None,
            down: None,
            up: None,
            serve_port: 3773,
        };
        Entry {
            session,
            connection: ConnectionId(connection),
            registered_at,
            asked_at: None,
            detached_at: None,
            serve: None,
            dispatch_pid: None,
            pulse: None,
        }
    }

    #[test]
    fn a_session_told_again_over_a_new_connection_hangs_on_that_one() {
        let mut sessions = Sessions::default();
        sessions.register(entry("a", 1, 10)).unwrap();
        sessions.register(entry("b", 1, 11)).unwrap();
        assert_eq!(sessions.detach(ConnectionId(1), 20), 2);
        sessions.register(entry("a", 2, 30)).unwrap();
        assert_eq!((sessions.count(ConnectionId(1)), sessions.count(ConnectionId(2))), (1, 1));
        let left: Vec<_> =
            sessions.take(ConnectionId(1)).into_iter().map(|entry| entry.session.conn).collect();
        assert_eq!(left, ["b"]);
        let kept = sessions.done("a").unwrap();
        assert_eq!((kept.registered_at, kept.detached_at), (10, None));
        assert!(sessions.is_empty());
    }

    #[test]
    fn only_what_was_asked_about_or_detached_may_be_written_already() {
        let mut sessions = Sessions::default();
        sessions.register(entry("a", 1, 10)).unwrap();
        assert_eq!(sessions.ask("a", 15).unwrap().maybe_written_since(), Some(15));
        assert_eq!(sessions.ask("a", 17).unwrap().maybe_written_since(), Some(15));
        assert!(sessions.ask("unheard-of", 15).is_none());
        assert_eq!(entry("b", 1, 10).maybe_written_since(), None);
    }

    #[test]
    fn orphans_come_in_the_order_in_which_they_began() {
        let mut sessions = Sessions::default();
        for (conn, at) in [("c", 30), ("a", 20), ("b", 10)] {
            sessions.register(entry(conn, 1, at)).unwrap();
        }
        let order: Vec<_> =
            sessions.take(ConnectionId(1)).into_iter().map(|entry| entry.session.conn).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn of_many_open_sessions_those_in_trouble_and_the_youngest_are_told() {
        let mut sessions = Sessions::default();
        for n in 1..=20_u64 {
            let mut entry = entry(&format!("c{n:02}"), 1, n);
            entry.session.opened_at = (n != 20).then_some(n * 100);
            sessions.register(entry).unwrap();
        }
        for (conn, waiting_since) in
            [("c03", Some(5000)), ("c05", Some(4000)), ("c07", None), ("c99", Some(1))]
        {
            sessions.pulse(StatsReport { conn: conn.to_owned(), waiting_since, ..StatsReport::default() });
        }
        let conn = |entry: &Entry| entry.session.conn.clone();
        let (open, told) = sessions.open(4, conn);
        assert_eq!((open, told), (19, ["c05", "c03", "c19", "c18"].map(str::to_owned).to_vec()));
        assert_eq!(sessions.open(100, conn).1.len(), 19, "one that is still opening is not open");
        // Told again over a new connection, it keeps what is known of it.
        sessions
            .register(Entry { session: sessions.by_conn["c05"].session.clone(), ..entry("c05", 2, 9) })
            .unwrap();
        assert_eq!(sessions.open(1, conn).1, ["c05"]);
    }
}
