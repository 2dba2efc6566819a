//! Registered sessions: their connection, queries for evidence, and disconnects. Pure.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use t3_record::{
    evidence::{Nanos, RelayFacts},
    wire::{Session, live::StatsReport},
};
use t3_trace_host::kernel::{Generation, ServeTuple};

use crate::port_owners::PortOwner;

/// Maximum number of sessions: bounds the memory of a privileged process, far above the need of one
/// host.
pub const MAX_SESSIONS: usize = 200_000;

/// Id of a connection of dispatch to the evidence socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One registered session.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As registered by dispatch.
    pub session: Session,
    /// Connection that registered it last.
    pub connection: ConnectionId,
    /// Time of the first registration.
    pub registered_at: Nanos,
    /// Time at which dispatch queried the evidence: from then on its record may be in the journal.
    pub asked_at: Option<Nanos>,
    /// Time of the disconnect.
    pub detached_at: Option<Nanos>,
    /// serve's end of the upstream leg.
    pub serve: Option<(ServeTuple, Generation)>,
    /// Process in dispatch's network namespace: dispatch.
    pub dispatch_pid: Option<u32>,
    /// Latest live stats.
    pub live_stats: Option<StatsReport>,
    /// Facts of dispatch's relay at the first Close frame or end.
    pub ending: Option<Box<RelayFacts>>,
    /// Process that held serve's end of the connection at the last query.
    pub holder: Option<Arc<PortOwner>>,
}

/// Address of serve: that of the upstream leg, or the one that dispatch connects to.
#[must_use]
pub fn serve_address(session: &Session) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, session.serve_port));
    session.up.map_or(default, |leg| leg.remote)
}

impl Entry {
    /// Time by which the process behind serve's end must have existed.
    #[must_use]
    pub fn began_at(&self) -> Nanos {
        self.session.opened_at.map_or(self.registered_at, |opened| opened.min(self.registered_at))
    }
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot register session: limit of {MAX_SESSIONS} reached; it will have no record if dispatch exits")]
pub struct Full;

/// Numbers of open sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// All.
    pub open: u64,
    /// Those that dispatch keeps in a descriptor store.
    pub kept: u64,
    /// Kept ones whose dispatch is not connected.
    pub waiting: u64,
}

/// Registered sessions by id.
#[derive(Debug, Default)]
pub struct Sessions {
    by_conn: HashMap<String, Entry>,
}

impl Sessions {
    /// Adds a session, or updates it (after its 101, or over a new connection).
    pub fn register(&mut self, mut entry: Entry) -> Result<(), Full> {
        let full = self.by_conn.len() >= MAX_SESSIONS;
        match self.by_conn.get_mut(&entry.session.conn) {
            Some(known) => {
                entry.registered_at = known.registered_at;
                if entry.dispatch_pid == known.dispatch_pid {
                    // A successor that continues the session has not queried anything.
                    entry.asked_at = known.asked_at;
                }
                entry.live_stats = entry.live_stats.or_else(|| known.live_stats.take());
                entry.ending = entry.ending.or_else(|| known.ending.take());
                entry.holder = entry.holder.or_else(|| known.holder.take());
                let upstream = |session: &Session| session.up.map(|leg| leg.cookie);
                if upstream(&known.session) == upstream(&entry.session) {
                    // Looked up while the connection was younger: more reliable.
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

    /// Stores live stats; those of unregistered sessions are ignored.
    pub fn set_live_stats(&mut self, stats: StatsReport) {
        if let Some(entry) = self.by_conn.get_mut(&stats.conn) {
            entry.live_stats = Some(stats);
        }
    }

    /// Stores the relay's facts of a session that ends; those of unregistered sessions are ignored.
    pub fn set_ending(&mut self, conn: &str, facts: Box<RelayFacts>) {
        if let Some(entry) = self.by_conn.get_mut(conn) {
            entry.ending = Some(facts);
        }
    }

    /// Stores the process that holds serve's end of the connection.
    pub fn set_holder(&mut self, conn: &str, holder: Arc<PortOwner>) {
        if let Some(entry) = self.by_conn.get_mut(conn) {
            entry.holder = Some(holder);
        }
    }

    /// Number of open sessions, and the result of `convert` for up to `most` of them: first those
    /// with the longest unanswered heartbeat, then the youngest.
    pub fn open<T>(&self, most: usize, convert: impl Fn(&Entry) -> T) -> (u64, Vec<T>) {
        let open = self.by_conn.values().filter(|entry| entry.session.opened_at.is_some());
        let mut open: Vec<&Entry> = open.collect();
        let count = open.len() as u64;
        let rank = |entry: &&Entry| {
            let waiting = entry.live_stats.as_ref().and_then(|stats| stats.waiting_since);
            (waiting.unwrap_or(Nanos::MAX), std::cmp::Reverse(entry.session.opened_at))
        };
        if most < open.len() {
            open.select_nth_unstable_by_key(most, rank);
            open.truncate(most);
        }
        open.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.session.conn.cmp(&b.session.conn)));
        (count, open.into_iter().map(convert).collect())
    }

    /// Marks a session as queried.
    pub fn asked(&mut self, conn: &str, now: Nanos) {
        if let Some(entry) = self.by_conn.get_mut(conn) {
            entry.asked_at.get_or_insert(now);
        }
    }

    /// Copy of a session.
    #[must_use]
    pub fn get(&self, conn: &str) -> Option<Entry> {
        self.by_conn.get(conn).cloned()
    }

    /// Removes a session whose record is written.
    pub fn done(&mut self, conn: &str) -> Option<Entry> {
        self.by_conn.remove(conn)
    }

    /// Marks the sessions of a closed connection; returns their number.
    pub fn detach(&mut self, connection: ConnectionId, now: Nanos) -> usize {
        let sessions = self.by_conn.values_mut().filter(|entry| entry.connection == connection);
        sessions.map(|entry| entry.detached_at = Some(now)).count()
    }

    /// Hands a session to a dispatch that ends it with its own record; returns it. A further
    /// successor cannot continue it.
    pub fn hand_over(
        &mut self,
        conn: &str,
        connection: ConnectionId,
        dispatch_pid: Option<u32>,
    ) -> Option<&Session> {
        let entry = self.by_conn.get_mut(conn)?;
        (entry.connection, entry.dispatch_pid) = (connection, dispatch_pid);
        entry.detached_at = None;
        entry.session.kept = false;
        Some(&entry.session)
    }

    /// Number of sessions registered last over this connection.
    #[must_use]
    pub fn count(&self, connection: ConnectionId) -> usize {
        self.by_conn.values().filter(|entry| entry.connection == connection).count()
    }

    /// Removes the sessions registered last over this connection, ordered by start; if its
    /// successor is awaited, only those that are not kept.
    pub fn take(&mut self, connection: ConnectionId, is_awaited: bool) -> Vec<Entry> {
        let is_lost = |entry: &Entry| entry.connection == connection && !(is_awaited && entry.session.kept);
        let taken = self.by_conn.extract_if(|_, entry| is_lost(entry));
        let mut taken: Vec<Entry> = taken.map(|(_, entry)| entry).collect();
        taken.sort_by(|a, b| (a.began_at(), &a.session.conn).cmp(&(b.began_at(), &b.session.conn)));
        taken
    }

    /// Whether a session is registered.
    #[must_use]
    pub fn contains(&self, conn: &str) -> bool {
        self.by_conn.contains_key(conn)
    }

    /// Numbers of open sessions, of kept ones among them, and of those of them without a connected
    /// dispatch.
    #[must_use]
    pub fn open_counts(&self) -> OpenCounts {
        let mut counts = OpenCounts::default();
        for entry in self.by_conn.values().filter(|entry| entry.session.opened_at.is_some()) {
            counts.open += 1;
            counts.kept += u64::from(entry.session.kept);
            counts.waiting += u64::from(entry.session.kept && entry.detached_at.is_some());
        }
        counts
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_conn.len()
    }

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
            kept: false,
            resumed: 0,
        };
        Entry {
            session,
            connection: ConnectionId(connection),
            registered_at,
            asked_at: None,
            detached_at: None,
            serve: None,
            dispatch_pid: None,
            live_stats: None,
            ending: None,
            holder: None,
        }
    }

    #[test]
    fn a_session_belongs_to_the_connection_that_registered_it_last() {
        let mut sessions = Sessions::default();
        sessions.register(entry("a", 1, 10)).unwrap();
        sessions.register(entry("b", 1, 11)).unwrap();
        assert_eq!(sessions.detach(ConnectionId(1), 20), 2);
        let facts = |ended_at| Box::new(RelayFacts { ended_at, ..RelayFacts::default() });
        sessions.set_ending("a", facts(24));
        sessions.set_ending("a", facts(25));
        sessions.set_ending("unknown", facts(26));
        sessions.register(entry("a", 2, 30)).unwrap();
        assert_eq!((sessions.count(ConnectionId(1)), sessions.count(ConnectionId(2))), (1, 1));
        let left: Vec<_> =
            sessions.take(ConnectionId(1), false).into_iter().map(|entry| entry.session.conn).collect();
        assert_eq!(left, ["b"]);
        let kept = sessions.done("a").unwrap();
        assert_eq!((kept.registered_at, kept.detached_at), (10, None));
        assert_eq!(kept.ending.map(|facts| facts.ended_at), Some(25));
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_successor_continues_a_session_with_its_evidence() {
        let mut sessions = Sessions::default();
        let of = |connection, pid| {
            let mut entry = Entry { dispatch_pid: Some(pid), ..entry("a", connection, 10 * connection) };
            (entry.session.kept, entry.session.opened_at) = (true, Some(5));
            entry
        };
        sessions.register(of(1, 7)).unwrap();
        sessions.set_ending("a", Box::new(RelayFacts { ended_at: 9, ..RelayFacts::default() }));
        sessions.asked("a", 12);
        assert_eq!(sessions.open_counts(), OpenCounts { open: 1, kept: 1, waiting: 0 });
        sessions.detach(ConnectionId(1), 15);
        assert_eq!(sessions.open_counts(), OpenCounts { open: 1, kept: 1, waiting: 1 });
        assert!(sessions.take(ConnectionId(1), true).is_empty());
        sessions.register(of(2, 8)).unwrap();
        assert_eq!(sessions.open_counts(), OpenCounts { open: 1, kept: 1, waiting: 0 });
        assert!(sessions.take(ConnectionId(1), false).is_empty());
        assert!(sessions.hand_over("b", ConnectionId(3), Some(9)).is_none());
        assert!(sessions.hand_over("a", ConnectionId(3), Some(9)).is_some());
        assert_eq!(sessions.take(ConnectionId(2), false).len(), 0);
        let taken = sessions.take(ConnectionId(3), true);
        assert_eq!(taken.len(), 1, "no further successor can continue it");
        let entry = &taken[0];
        assert_eq!((entry.registered_at, entry.asked_at, entry.dispatch_pid), (10, None, Some(9)));
        assert_eq!(entry.ending.as_ref().map(|facts| facts.ended_at), Some(9));
    }

    #[test]
    fn orphans_are_ordered_by_start() {
        let mut sessions = Sessions::default();
        for (conn, at) in [("c", 30), ("a", 20), ("b", 10)] {
            sessions.register(entry(conn, 1, at)).unwrap();
        }
        let order: Vec<_> =
            sessions.take(ConnectionId(1), false).into_iter().map(|entry| entry.session.conn).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn of_many_open_sessions_stalled_and_young_ones_are_listed() {
        let mut sessions = Sessions::default();
        for n in 1..=20_u64 {
            let mut entry = entry(&format!("c{n:02}"), 1, n);
            entry.session.opened_at = (n != 20).then_some(n * 100);
            sessions.register(entry).unwrap();
        }
        for (conn, waiting_since) in
            [("c03", Some(5000)), ("c05", Some(4000)), ("c07", None), ("c99", Some(1))]
        {
            sessions.set_live_stats(StatsReport {
                conn: conn.to_owned(),
                waiting_since,
                ..StatsReport::default()
            });
        }
        let conn = |entry: &Entry| entry.session.conn.clone();
        let (open, listed) = sessions.open(4, conn);
        assert_eq!((open, listed), (19, ["c05", "c03", "c19", "c18"].map(str::to_owned).to_vec()));
        assert_eq!(sessions.open(100, conn).1.len(), 19, "a session without 101 is not open");
        // Registered again over a new connection, it keeps its live stats.
        sessions
            .register(Entry { session: sessions.by_conn["c05"].session.clone(), ..entry("c05", 2, 9) })
            .unwrap();
        assert_eq!(sessions.open(1, conn).1, ["c05"]);
    }
}
