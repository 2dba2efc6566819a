//! Detects redirect loops: a browser that is paired repeatedly because it does not store the cookie
//! or serve does not know it. Pure.

use std::collections::HashMap;

use t3_record::evidence::Nanos;

/// Maximum number of sessions of one browser within [`WINDOW`].
pub const MAX_SESSIONS: usize = 4;
/// Window in which sessions are counted.
pub const WINDOW: Nanos = 60_000_000_000;
const PRUNE_ABOVE: usize = 1024;

/// Identity of one browser: OS user, address, User-Agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Browser {
    pub user: String,
    pub ip: String,
    pub agent: Vec<u8>,
}

/// Decision about another session for a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopDecision {
    Allow,
    /// Reject and log.
    Stop,
    /// Reject; already logged.
    StillStopped,
}

#[derive(Debug, Default)]
struct Sessions {
    at: Vec<Nanos>,
    logged: bool,
}

/// Sessions created per browser within the last minute.
#[derive(Debug, Default)]
pub struct LoopDetector {
    sessions: HashMap<Browser, Sessions>,
}

impl LoopDetector {
    /// Records a new session of a browser.
    pub fn record(&mut self, browser: Browser, now: Nanos) {
        if self.sessions.len() > PRUNE_ABOVE {
            self.sessions.retain(|_, sessions| sessions.at.iter().any(|at| is_recent(*at, now)));
        }
        let sessions = self.sessions.entry(browser).or_default();
        sessions.at.retain(|at| is_recent(*at, now));
        sessions.at.push(now);
        sessions.logged = false;
    }

    /// Decides whether a browser may get another session.
    pub fn check(&mut self, browser: &Browser, now: Nanos) -> LoopDecision {
        let Some(sessions) = self.sessions.get_mut(browser) else { return LoopDecision::Allow };
        if sessions.at.iter().filter(|at| is_recent(**at, now)).count() < MAX_SESSIONS {
            return LoopDecision::Allow;
        }
        if std::mem::replace(&mut sessions.logged, true) {
            LoopDecision::StillStopped
        } else {
            LoopDecision::Stop
        }
    }
}

fn is_recent(at: Nanos, now: Nanos) -> bool {
    now.saturating_sub(at) < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(ip: &str) -> Browser {
        Browser { user: "ann".to_owned(), ip: ip.to_owned(), agent: b"Firefox".to_vec() }
    }

    #[test]
    fn the_fifth_session_within_a_minute_is_rejected_and_logged_once() {
        let (mut detector, ann) = (LoopDetector::default(), browser("1"));
        for n in 0..4 {
            assert_eq!(detector.check(&ann, n), LoopDecision::Allow, "{n}");
            detector.record(ann.clone(), n);
        }
        assert_eq!(detector.check(&ann, 5), LoopDecision::Stop);
        assert_eq!(detector.check(&ann, 6), LoopDecision::StillStopped);
        assert_eq!(detector.check(&browser("2"), 6), LoopDecision::Allow, "browsers are counted separately");
        assert_eq!(detector.check(&ann, WINDOW - 1), LoopDecision::StillStopped);
        // The first of the four is a minute old.
        assert_eq!(detector.check(&ann, WINDOW), LoopDecision::Allow);
        detector.record(ann.clone(), WINDOW);
        assert_eq!(detector.check(&ann, WINDOW), LoopDecision::Stop);
    }

    #[test]
    fn entries_of_browsers_that_do_not_return_are_dropped() {
        let mut detector = LoopDetector::default();
        for n in 0..10_000u64 {
            detector.record(browser(&n.to_string()), n * WINDOW / 100);
        }
        assert!(detector.sessions.len() <= PRUNE_ABOVE + 1, "{}", detector.sessions.len());
    }
}
