//! State of the connection to the daemon, last outage, and messages. Pure.

use std::collections::VecDeque;

use t3_record::{vocabulary::KernelSource, wire::Status};

use crate::live::source::Daemon;

/// Messages kept.
const MESSAGES: usize = 200;
/// Time for which a past outage is shown, in seconds.
const SHOWN_FOR: u64 = 60;
/// Age from which data about open sessions is stale, in seconds.
pub const STALE: u64 = 5;

/// The connection to the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// No attempt has completed.
    #[default]
    Trying,
    Up {
        /// In seconds since the epoch.
        since: u64,
        /// It reports open sessions.
        has_sessions: bool,
    },
    Down {
        /// In seconds since the epoch.
        since: u64,
        why: String,
    },
    /// No connection: a past moment, from records.
    Replay {
        /// What the records do not contain, as sentences.
        limits: Vec<String>,
    },
}

/// A past time without connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Start in seconds since the epoch.
    pub from: u64,
    /// End in seconds since the epoch.
    pub to: u64,
    /// The daemon has another process ID than before.
    pub restarted: bool,
}

/// A message and its repetitions in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Time of the last one in seconds since the epoch.
    pub at: u64,
    pub text: String,
    pub times: u64,
}

/// State of the source of closes.
#[derive(Debug, Default)]
pub struct Source {
    pub link: Link,
    /// The daemon's source of kernel evidence.
    pub kernel: Option<KernelSource>,
    /// The daemon's last status report.
    pub status: Option<Status>,
    /// Time of the last report of open sessions.
    pub sessions_at: Option<u64>,
    /// Messages that the daemon dropped because this screen was too slow.
    pub skipped: u64,
    /// Lost kernel events, from the records.
    pub lost: u64,
    pub outage: Option<Outage>,
    pid: Option<i32>,
    messages: VecDeque<Message>,
}

impl Source {
    pub fn connected(&mut self, daemon: &Daemon, now: u64) {
        let restarted = self.pid.is_some() && daemon.pid.is_some() && self.pid != daemon.pid;
        if let Link::Down { since, .. } = self.link {
            self.outage = Some(Outage { from: since, to: now, restarted });
            let what = if restarted { "t3-trace restarted" } else { "connection lost" };
            self.add_message(now, format!("{what}; reconnected after {} s", now.saturating_sub(since)));
        }
        self.pid = daemon.pid.or(self.pid);
        self.kernel = Some(daemon.kernel);
        (self.status, self.sessions_at) = (None, None);
        self.link = Link::Up { since: now, has_sessions: daemon.has_sessions };
    }

    pub fn disconnected(&mut self, why: String, now: u64) {
        self.add_message(now, format!("{why}; following the journal"));
        let since = if let Link::Down { since, .. } = self.link { since } else { now };
        self.link = Link::Down { since, why };
    }

    pub fn skipped(&mut self, messages: u64, now: u64) {
        self.skipped = self.skipped.saturating_add(messages);
        self.add_message(now, format!("{messages} messages of t3-trace dropped: this screen was too slow"));
    }

    pub fn add_message(&mut self, at: u64, text: String) {
        if let Some(last) = self.messages.back_mut().filter(|last| last.text == text) {
            (last.at, last.times) = (at, last.times + 1);
            return;
        }
        self.messages.push_back(Message { at, text, times: 1 });
        if self.messages.len() > MESSAGES {
            self.messages.pop_front();
        }
    }

    /// Messages, the latest last.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator {
        self.messages.iter()
    }

    /// The last outage while it is recent.
    #[must_use]
    pub fn recent_outage(&self, now: u64) -> Option<Outage> {
        self.outage.filter(|outage| now.saturating_sub(outage.to) < SHOWN_FOR)
    }

    /// Time without a report from a connected daemon, in seconds; `None` while reports arrive.
    #[must_use]
    pub fn silent_for(&self, now: u64) -> Option<u64> {
        let Link::Up { since, has_sessions: true } = self.link else { return None };
        Some(now.saturating_sub(self.sessions_at.unwrap_or(since))).filter(|silent| *silent > STALE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(pid: i32) -> Daemon {
        Daemon { socket: "/run/x".into(), pid: Some(pid), kernel: KernelSource::Kprobe, has_sessions: true }
    }

    #[test]
    fn an_outage_is_shown_for_a_while_and_a_restart_is_detected() {
        let mut source = Source::default();
        source.connected(&daemon(1), 100);
        assert_eq!(source.outage, None);
        source.disconnected("gone".to_owned(), 110);
        source.disconnected("no daemon".to_owned(), 112);
        assert_eq!(source.link, Link::Down { since: 110, why: "no daemon".to_owned() });
        source.connected(&daemon(2), 115);
        assert_eq!(source.recent_outage(174), Some(Outage { from: 110, to: 115, restarted: true }));
        assert_eq!(source.recent_outage(175), None);
        source.disconnected("gone".to_owned(), 200);
        source.connected(&daemon(2), 201);
        assert_eq!(source.recent_outage(202), Some(Outage { from: 200, to: 201, restarted: false }));
        // A daemon that was not running at the start was not restarted.
        let mut source = Source::default();
        source.disconnected("no daemon".to_owned(), 1);
        source.connected(&daemon(1), 2);
        assert!(source.outage.is_some_and(|outage| !outage.restarted));
    }

    #[test]
    fn repeated_messages_are_counted_and_messages_are_bounded() {
        let mut source = Source::default();
        for at in 0..5 {
            source.add_message(at, "x".to_owned());
        }
        assert_eq!(source.messages().next_back(), Some(&Message { at: 4, text: "x".to_owned(), times: 5 }));
        for at in 0..3 * 200 {
            source.add_message(at, at.to_string());
        }
        assert_eq!(source.messages().len(), MESSAGES);
    }

    #[test]
    fn a_stalled_daemon_is_detected() {
        let mut source = Source::default();
        assert_eq!(source.silent_for(1000), None);
        source.connected(&daemon(1), 100);
        assert_eq!((source.silent_for(105), source.silent_for(106)), (None, Some(6)));
        source.sessions_at = Some(110);
        assert_eq!((source.silent_for(115), source.silent_for(130)), (None, Some(20)));
        source.connected(&Daemon { has_sessions: false, ..daemon(1) }, 200);
        assert_eq!(source.silent_for(1000), None);
    }
}
