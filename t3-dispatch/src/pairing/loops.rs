//! Detects redirect loops: a browser that is paired repeatedly because it does not store the cookie
//! or serve does not know it. Pure.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use t3_record::evidence::Nanos;

/// Maximum number of sessions of one browser within [`WINDOW`].
pub const MAX_SESSIONS: usize = 4;
/// Maximum number of sessions of one user within [`WINDOW`], whatever the browsers claim to be.
pub const MAX_SESSIONS_PER_USER: usize = 20;
/// Window in which sessions are counted.
pub const WINDOW: Nanos = 60_000_000_000;
const PRUNE_ABOVE: usize = 1024;

/// Identity of one browser: OS user, address (the /64 of IPv6, in which a host can choose its
/// address), User-Agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Browser {
    user: String,
    network: IpAddr,
    agent: Vec<u8>,
}

impl Browser {
    #[must_use]
    pub fn new(user: &str, ip: IpAddr, agent: &[u8]) -> Self {
        let ip = ip.to_canonical();
        let network = IpNet::new(ip, if ip.is_ipv4() { 32 } else { 64 }).map_or(ip, |ip| ip.network());
        Self { user: user.to_owned(), network, agent: agent.to_owned() }
    }
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

impl Sessions {
    fn record(&mut self, now: Nanos) {
        self.at.retain(|at| is_recent(*at, now));
        self.at.push(now);
        self.logged = false;
    }

    fn recent(&self, now: Nanos) -> usize {
        self.at.iter().filter(|at| is_recent(**at, now)).count()
    }
}

/// Sessions created per browser within the last minute.
#[derive(Debug, Default)]
pub struct LoopDetector {
    sessions: HashMap<Browser, Sessions>,
    users: HashMap<String, Sessions>,
}

impl LoopDetector {
    /// Records a new session of a browser.
    pub fn record(&mut self, browser: Browser, now: Nanos) {
        if self.sessions.len() > PRUNE_ABOVE {
            self.sessions.retain(|_, sessions| sessions.recent(now) > 0);
        }
        // One entry per user of the routing table.
        self.users.entry(browser.user.clone()).or_default().record(now);
        self.sessions.entry(browser).or_default().record(now);
    }

    /// Decides whether a browser may get another session.
    pub fn check(&mut self, browser: &Browser, now: Nanos) -> LoopDecision {
        let of_browser = self.sessions.get_mut(browser).filter(|known| known.recent(now) >= MAX_SESSIONS);
        let of_user =
            self.users.get_mut(&browser.user).filter(|known| known.recent(now) >= MAX_SESSIONS_PER_USER);
        let Some(sessions) = of_browser.or(of_user) else { return LoopDecision::Allow };
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
        Browser::new("ann", ip.parse().unwrap(), b"Firefox")
    }

    #[test]
    fn the_fifth_session_within_a_minute_is_rejected_and_logged_once() {
        let (mut detector, ann) = (LoopDetector::default(), browser("192.0.2.1"));
        for n in 0..4 {
            assert_eq!(detector.check(&ann, n), LoopDecision::Allow, "{n}");
            detector.record(ann.clone(), n);
        }
        assert_eq!(detector.check(&ann, 5), LoopDecision::Stop);
        assert_eq!(detector.check(&ann, 6), LoopDecision::StillStopped);
        assert_eq!(
            detector.check(&browser("192.0.2.2"), 6),
            LoopDecision::Allow,
            "browsers are counted separately"
        );
        assert_eq!(detector.check(&ann, WINDOW - 1), LoopDecision::StillStopped);
        // The first of the four is a minute old.
        assert_eq!(detector.check(&ann, WINDOW), LoopDecision::Allow);
        detector.record(ann.clone(), WINDOW);
        assert_eq!(detector.check(&ann, WINDOW), LoopDecision::Stop);
    }

    #[test]
    fn a_user_has_a_limit_whatever_the_browsers_claim_to_be() {
        let mut detector = LoopDetector::default();
        let claimed = |n: usize| Browser::new("ann", "192.0.2.1".parse().unwrap(), n.to_string().as_bytes());
        for n in 0..MAX_SESSIONS_PER_USER {
            assert_eq!(detector.check(&claimed(n), 0), LoopDecision::Allow, "{n}");
            detector.record(claimed(n), 0);
        }
        assert_eq!(detector.check(&claimed(1000), 1), LoopDecision::Stop);
        assert_eq!(detector.check(&claimed(1001), 1), LoopDecision::StillStopped);
        let bob = Browser::new("bob", "192.0.2.1".parse().unwrap(), b"0");
        assert_eq!(detector.check(&bob, 1), LoopDecision::Allow);
        assert_eq!(detector.check(&claimed(1000), WINDOW), LoopDecision::Allow);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_browser() {
        let mut detector = LoopDetector::default();
        for n in 0..4 {
            detector.record(browser(&format!("2001:db8::{n}")), 0);
        }
        assert_eq!(detector.check(&browser("2001:db8::ffff"), 1), LoopDecision::Stop);
        assert_eq!(detector.check(&browser("2001:db8:0:1::1"), 1), LoopDecision::Allow);
    }

    #[test]
    fn entries_of_browsers_that_do_not_return_are_dropped() {
        let mut detector = LoopDetector::default();
        for n in 0..10_000u64 {
            let ip = std::net::Ipv4Addr::from(u32::try_from(n).unwrap());
            detector.record(browser(&ip.to_string()), n * WINDOW / 100);
        }
        assert!(detector.sessions.len() <= PRUNE_ABOVE + 1, "{}", detector.sessions.len());
    }
}
