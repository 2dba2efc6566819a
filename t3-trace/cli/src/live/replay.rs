//! The screen of `live` at a past moment, from records. Pure.
//!
//! Records prove which sessions were open: those with a `ws open` before the moment and no close up
//! to it, and those that closed after the moment and had lasted long enough. What an open session
//! did at the moment (heartbeats, bytes, pressure) is in no record.

use std::collections::{BTreeSet, HashMap, HashSet};

use t3_record::{
    CloseRecord, OpenRecord, TcpCloseRecord,
    wire::live::{OpenSession, Sessions},
};

/// Time before and after the moment in which records are read, in seconds. A session that opened
/// before and closes after all of it is not known.
pub const AROUND: u64 = 86_400;

/// A close and its time in milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    pub at_ms: u64,
    pub record: Record,
}

/// The record of a close.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Session(Box<CloseRecord>),
    /// Of a connection that t3-dispatch did not carry.
    Direct(Box<TcpCloseRecord>),
}

impl Record {
    fn conn(&self) -> &str {
        match self {
            Self::Session(record) => &record.conn,
            Self::Direct(record) => &record.conn,
        }
    }

    const fn dur_ms(&self) -> u64 {
        match self {
            Self::Session(record) => record.dur_ms,
            Self::Direct(record) => record.dur_ms,
        }
    }
}

/// A connection that was open and that t3-dispatch did not carry.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenDirect {
    /// Its later record.
    pub record: Box<TcpCloseRecord>,
    /// Time since it opened, in milliseconds; a minimum if it is older than the watch.
    pub age_ms: u64,
}

/// Open sessions and earlier closes at a moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// The moment, in seconds since the epoch.
    pub at: u64,
    /// Closes of the day before, the oldest first.
    pub closes: Vec<Closed>,
    /// Sessions that were open.
    pub open: Vec<OpenSession>,
    /// Other connections that were open.
    pub open_direct: Vec<OpenDirect>,
    /// Hosts of the records.
    pub hosts: BTreeSet<String>,
    /// Store of the records, for a message.
    pub store: &'static str,
    /// A part could not be read.
    pub is_incomplete: bool,
}

/// Records read so far.
#[derive(Debug)]
pub struct Collector {
    at_ms: u64,
    /// Opens up to the moment.
    opens: HashMap<String, (u64, OpenRecord)>,
    /// Sessions that opened later.
    later: HashSet<String>,
    closed: HashMap<String, Closed>,
    hosts: BTreeSet<String>,
}

impl Collector {
    /// `at`: the moment in seconds since the epoch.
    #[must_use]
    pub fn new(at: u64) -> Self {
        Self {
            at_ms: at.saturating_mul(1000),
            opens: HashMap::new(),
            later: HashSet::new(),
            closed: HashMap::new(),
            hosts: BTreeSet::new(),
        }
    }

    pub fn host(&mut self, host: Option<&str>) {
        if let Some(host) = host.filter(|host| !self.hosts.contains(*host)) {
            self.hosts.insert(host.to_owned());
        }
    }

    /// Adds a `ws open` with its time in milliseconds since the epoch.
    pub fn open(&mut self, record: OpenRecord, at_ms: u64) {
        if at_ms > self.at_ms {
            self.later.insert(record.conn);
        } else {
            self.opens.insert(record.conn.clone(), (at_ms, record));
        }
    }

    /// Adds a close with its time in milliseconds since the epoch. Of two of one session, the
    /// second counts.
    pub fn close(&mut self, record: Box<CloseRecord>, at_ms: u64) {
        self.closed.insert(record.conn.clone(), Closed { at_ms, record: Record::Session(record) });
    }

    /// Adds the close of a connection that t3-dispatch did not carry.
    pub fn direct(&mut self, record: Box<TcpCloseRecord>, at_ms: u64) {
        self.closed.insert(record.conn.clone(), Closed { at_ms, record: Record::Direct(record) });
    }

    #[must_use]
    pub fn finish(self, store: &'static str, is_incomplete: bool) -> Replay {
        let (mut open, mut open_direct) = (Vec::new(), Vec::new());
        let mut closes = Vec::new();
        for (conn, close) in &self.closed {
            if close.at_ms <= self.at_ms {
                closes.push(close.clone());
            } else if !self.opens.contains_key(conn) && !self.later.contains(conn) {
                let opened = close.at_ms.saturating_sub(close.record.dur_ms());
                // A session that never opened has no duration.
                if close.record.dur_ms() > 0 && opened <= self.at_ms {
                    let age_ms = self.at_ms - opened;
                    match &close.record {
                        Record::Session(record) => open.push(session(conn, &record.user, &record.ip, age_ms)),
                        Record::Direct(record) => {
                            open_direct.push(OpenDirect { record: record.clone(), age_ms });
                        }
                    }
                }
            }
        }
        for (conn, (at_ms, record)) in &self.opens {
            if self.closed.get(conn).is_none_or(|close| close.at_ms > self.at_ms) {
                open.push(session(conn, &record.user, &record.ip, self.at_ms - at_ms));
            }
        }
        closes.sort_by(|a, b| (a.at_ms, a.record.conn()).cmp(&(b.at_ms, b.record.conn())));
        open_direct.sort_by(|a, b| {
            (a.record.port, b.age_ms, &a.record.conn).cmp(&(b.record.port, a.age_ms, &b.record.conn))
        });
        open.sort_by(|a, b| (&a.user, b.age_ms, &a.conn).cmp(&(&b.user, a.age_ms, &b.conn)));
        let (at, hosts) = (self.at_ms / 1000, self.hosts);
        Replay { at, closes, open, open_direct, hosts, store, is_incomplete }
    }
}

fn session(conn: &str, user: &str, ip: &str, age_ms: u64) -> OpenSession {
    OpenSession {
        conn: conn.to_owned(),
        user: user.to_owned(),
        ip: ip.to_owned(),
        age_ms,
        ..OpenSession::default()
    }
}

impl Replay {
    /// The open sessions as the daemon would report them.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions {
            at: 1,
            open: self.open.len() as u64,
            dispatch: true,
            host: None,
            more: false,
            sessions: self.open.clone(),
        }
    }

    /// What the screen does not know, as sentences.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let mut limits = vec![format!(
            "Replay from {}. No record has heartbeats, bytes and pressure of open sessions; one that is open for more than a day before and \
             after is missing.",
            self.store
        )];
        if self.hosts.len() > 1 {
            let hosts: Vec<_> = self.hosts.iter().map(String::as_str).collect();
            let hosts = crate::present::text::safe(&hosts.join(", "));
            limits.push(format!("Sessions of {} hosts: {hosts}; --host selects one.", self.hosts.len()));
        }
        if self.is_incomplete {
            limits.push(
                "A part of the records could not be read: sessions and closes may be missing.".to_owned(),
            );
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use t3_record::{Cause, KernelSource, Segment, Verdict};

    use super::*;

    const AT: u64 = 1_000_000;

    fn closed(conn: &str, dur_ms: u64) -> Box<CloseRecord> {
        Box::new(CloseRecord::new(
            "ann".to_owned(),
            "192.0.2.7".to_owned(),
            dur_ms,
            Cause::Graceful,
            Verdict::ClientClosed,
            Segment::Downstream,
            conn.to_owned(),
            KernelSource::Off,
        ))
    }

    fn opened(conn: &str) -> OpenRecord {
        OpenRecord::new("ann".to_owned(), "192.0.2.7".to_owned(), conn.to_owned())
    }

    #[test]
    fn a_session_was_open_between_its_open_and_its_close() {
        let at_ms = AT * 1000;
        let mut records = Collector::new(AT);
        records.open(opened("still"), at_ms - 5_000);
        records.open(opened("ended"), at_ms - 9_000);
        records.close(closed("ended", 8_000), at_ms - 1_000);
        records.open(opened("later-close"), at_ms);
        records.close(closed("later-close", 4_000), at_ms + 4_000);
        records.open(opened("later-open"), at_ms + 1);
        records.close(closed("later-open", 9_000_000), at_ms + 9_000);
        // The ws open is older than the range.
        records.close(closed("long", 3_600_000), at_ms + 600_000);
        records.close(closed("short", 1_000), at_ms + 600_000);
        records.close(closed("never", 0), at_ms + 5);
        records.host(Some("b"));
        records.host(Some("a"));
        let replay = records.finish("the journal", false);
        let open: Vec<_> = replay.open.iter().map(|open| (open.conn.as_str(), open.age_ms)).collect();
        assert_eq!(open, [("long", 3_000_000), ("still", 5_000), ("later-close", 0)]);
        let closes: Vec<_> = replay.closes.iter().map(|close| close.record.conn()).collect();
        assert_eq!((closes, replay.at), (vec!["ended"], AT));
        assert!(replay.limits()[1].contains("2 hosts: a, b"), "{:?}", replay.limits());
        assert_eq!(replay.sessions().open, 3);
    }

    #[test]
    fn an_open_connection_is_known_from_its_later_close() {
        let record = |conn: &str, port: u16, dur_ms: u64| {
            let line = format!(
                "tcp close ip=203.0.113.7 dur_ms={dur_ms} cause=upstream_closed verdict=serve_left segment=serve \
                 conn={conn} port={port} via=direct kernel=tracepoint"
            );
            Box::new(TcpCloseRecord::from_line(&line).unwrap())
        };
        let at_ms = AT * 1000;
        let mut records = Collector::new(AT);
        records.direct(record("ended", 8080, 8_000), at_ms - 1_000);
        records.direct(record("open", 8080, 9_000), at_ms + 4_000);
        records.direct(record("older", 443, 60_000), at_ms + 1);
        records.direct(record("later", 8080, 3_000), at_ms + 4_000);
        let replay = records.finish("the journal", false);
        let open: Vec<_> =
            replay.open_direct.iter().map(|open| (open.record.conn.as_str(), open.age_ms)).collect();
        assert_eq!(open, [("older", 59_999), ("open", 5_000)]);
        let closes: Vec<_> = replay.closes.iter().map(|close| close.record.conn()).collect();
        assert_eq!((closes, replay.open.len()), (vec!["ended"], 0), "not a session");
    }

    #[test]
    fn a_second_record_of_a_session_replaces_the_first() {
        let mut records = Collector::new(AT);
        records.close(closed("x", 1), AT * 1000 + 9);
        records.close(closed("x", 2), AT * 1000 - 9);
        let replay = records.finish("the journal", true);
        assert_eq!((replay.closes.len(), replay.open.len()), (1, 0));
        assert!(replay.limits()[1].starts_with("A part of the records could not be read"));
    }
}
