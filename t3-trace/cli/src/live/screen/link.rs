//! Whether the daemon answers, since when, and what was missed meanwhile; and the remarks that were
//! made. Pure.

use std::collections::VecDeque;

use t3_record::{vocabulary::KernelSource, wire::Status};

use crate::live::source::Daemon;

/// So many remarks are kept.
const REMARKS: usize = 200;
/// For how long an outage that is over is still shown, in seconds.
const SHOWN_FOR: u64 = 60;
/// An answer that is older than this is not how it is now, in seconds.
pub const STALE: u64 = 5;

/// The connection to the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// Nothing is known yet.
    #[default]
    Trying,
    /// It answers.
    Up {
        /// Since when, in seconds since the epoch.
        since: u64,
        /// It tells the open sessions.
        has_sessions: bool,
    },
    /// It does not.
    Down {
        /// Since when.
        since: u64,
        /// Why.
        why: String,
    },
}

/// A time without the daemon that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When it began, in seconds since the epoch.
    pub from: u64,
    /// When it was over.
    pub to: u64,
    /// Another process answers than before.
    pub restarted: bool,
}

/// Something that was said, and how often in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When last, in seconds since the epoch.
    pub at: u64,
    /// What.
    pub text: String,
    /// How often.
    pub times: u64,
}

/// All that is known of where closes come from.
#[derive(Debug, Default)]
pub struct Source {
    /// The connection.
    pub link: Link,
    /// What the daemon's kernel side gives.
    pub kernel: Option<KernelSource>,
    /// The daemon's last word on itself.
    pub status: Option<Status>,
    /// When it last told the open sessions.
    pub sessions_at: Option<u64>,
    /// Messages that the daemon left out because this screen was too slow.
    pub skipped: u64,
    /// Kernel events that were lost, as the records say.
    pub lost: u64,
    /// The last outage.
    pub outage: Option<Outage>,
    pid: Option<i32>,
    messages: VecDeque<Message>,
}

impl Source {
    /// The daemon answers.
    pub fn connected(&mut self, daemon: &Daemon, now: u64) {
        let restarted = self.pid.is_some() && daemon.pid.is_some() && self.pid != daemon.pid;
        if let Link::Down { since, .. } = self.link {
            self.outage = Some(Outage { from: since, to: now, restarted });
            let what = if restarted { "t3-trace was restarted" } else { "the connection broke" };
            self.add_message(now, format!("{what}; connected again after {} s", now.saturating_sub(since)));
        }
        self.pid = daemon.pid.or(self.pid);
        self.kernel = Some(daemon.kernel);
        (self.status, self.sessions_at) = (None, None);
        self.link = Link::Up { since: now, has_sessions: daemon.has_sessions };
    }

    /// It does not.
    pub fn disconnected(&mut self, why: String, now: u64) {
        self.add_message(now, format!("{why}; following the journal"));
        let since = if let Link::Down { since, .. } = self.link { since } else { now };
        self.link = Link::Down { since, why };
    }

    /// Messages are missing.
    pub fn skipped(&mut self, messages: u64, now: u64) {
        self.skipped = self.skipped.saturating_add(messages);
        self.add_message(
            now,
            format!("{messages} messages of t3-trace are missing: this screen was too slow"),
        );
    }

    /// Something was said.
    pub fn add_message(&mut self, at: u64, text: String) {
        if let Some(last) = self.messages.back_mut().filter(|last| last.text == text) {
            (last.at, last.times) = (at, last.times + 1);
            return;
        }
        self.messages.push_back(Message { at, text, times: 1 });
        if self.messages.len() > REMARKS {
            self.messages.pop_front();
        }
    }

    /// What was said, the latest last.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> + ExactSizeIterator {
        self.messages.iter()
    }

    /// The last outage, while it is worth a line.
    #[must_use]
    pub fn recent_outage(&self, now: u64) -> Option<Outage> {
        self.outage.filter(|outage| now.saturating_sub(outage.to) < SHOWN_FOR)
    }

    /// For how long the daemon has told nothing although it is connected, in seconds.
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
    fn an_outage_is_told_for_a_while_and_a_restart_is_told_from_a_broken_connection() {
        let mut source = Source::default();
        source.connected(&daemon(1), 100);
        assert_eq!(source.outage, None);
        source.disconnected("gone".to_owned(), 110);
        source.disconnected("does not run".to_owned(), 112);
        assert_eq!(source.link, Link::Down { since: 110, why: "does not run".to_owned() });
        source.connected(&daemon(2), 115);
        assert_eq!(source.recent_outage(174), Some(Outage { from: 110, to: 115, restarted: true }));
        assert_eq!(source.recent_outage(175), None);
        source.disconnected("gone".to_owned(), 200);
        source.connected(&daemon(2), 201);
        assert_eq!(source.recent_outage(202), Some(Outage { from: 200, to: 201, restarted: false }));
        // At the start nobody answers: that is no restart.
        let mut source = Source::default();
        source.disconnected("does not run".to_owned(), 1);
        source.connected(&daemon(1), 2);
        assert!(source.outage.is_some_and(|outage| !outage.restarted));
    }

    #[test]
    fn the_same_said_again_is_counted_and_remarks_are_bounded() {
        let mut source = Source::default();
        for at in 0..5 {
            source.add_message(at, "x".to_owned());
        }
        assert_eq!(source.messages().next_back(), Some(&Message { at: 4, text: "x".to_owned(), times: 5 }));
        for at in 0..3 * 200 {
            source.add_message(at, at.to_string());
        }
        assert_eq!(source.messages().len(), REMARKS);
    }

    #[test]
    fn a_daemon_that_stands_still_is_noticed() {
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
