//! Limits of pairing: detects redirect loops, that is, a browser that is paired repeatedly because
//! it does not store the cookie or serve does not know it, and limits the sessions of a user. Pure.
//!
//! A browser in a loop follows each redirect immediately. A script that checks `/` without keeping
//! cookies comes at intervals, and is not a loop, whatever its number of sessions.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use ipnet::IpNet;

use t3_record::evidence::Nanos;

/// Maximum number of consecutive sessions of one browser that returned within a second each time.
/// Browsers give up after 20 redirects, without a page that explains the cause.
pub const MAX_SESSIONS: u32 = 10;
/// A browser that follows a redirect is back within this time: a round trip.
const RETURN: Nanos = 1_000_000_000;
/// Window in which the sessions of a user are counted, and time for which a loop is stopped.
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

/// Reason for which a browser gets no further session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It returned without a session each time.
    Loop,
    /// The limit of its user.
    User,
}

/// Decision about another session for a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopDecision {
    Allow,
    /// Reject and log.
    Stop(Reason),
    /// Reject; already logged.
    StillStopped(Reason),
}

/// Sessions of one browser.
#[derive(Debug, Clone, Copy, Default)]
struct Returns {
    /// Consecutive sessions.
    count: u32,
    /// Time of the last one.
    paired_at: Nanos,
    /// End of the stop, if there was one.
    stopped_until: Nanos,
}

impl Returns {
    const fn is_recent(&self, now: Nanos) -> bool {
        now < self.stopped_until || now.saturating_sub(self.paired_at) < WINDOW
    }

    const fn is_immediate(&self, asked_at: Nanos) -> bool {
        asked_at.saturating_sub(self.paired_at) < RETURN
    }
}

/// Sessions of one user within [`WINDOW`].
#[derive(Debug, Default)]
struct Sessions {
    at: VecDeque<Nanos>,
    logged: bool,
}

impl Sessions {
    fn recent(&mut self, now: Nanos) -> usize {
        while self.at.front().is_some_and(|at| now.saturating_sub(*at) >= WINDOW) {
            self.at.pop_front();
        }
        self.at.len()
    }
}

/// Sessions created within the last minute.
#[derive(Debug)]
pub struct LoopDetector {
    browsers: HashMap<Browser, Returns>,
    users: HashMap<String, Sessions>,
    /// Sessions of one user within [`WINDOW`]; 0 for no limit.
    max_per_user: u32,
}

impl LoopDetector {
    #[must_use]
    pub fn new(max_per_user: u32) -> Self {
        Self { browsers: HashMap::new(), users: HashMap::new(), max_per_user }
    }

    /// Records a new session of a user; `browser` is `None` for a client that is not a browser.
    /// `asked_at` is the time of the request, `now` that of the response.
    pub fn record(&mut self, user: &str, browser: Option<Browser>, asked_at: Nanos, now: Nanos) {
        if self.max_per_user > 0 {
            // One entry per user of the routing table.
            let sessions = self.users.entry(user.to_owned()).or_default();
            sessions.recent(now);
            sessions.at.push_back(now);
            sessions.logged = false;
        }
        let Some(browser) = browser else { return };
        if self.browsers.len() > PRUNE_ABOVE {
            self.browsers.retain(|_, returns| returns.is_recent(now));
        }
        let returns = self.browsers.entry(browser).or_default();
        let count = if returns.is_immediate(asked_at) { returns.count.saturating_add(1) } else { 1 };
        *returns = Returns { count, paired_at: now, stopped_until: 0 };
    }

    /// Decides whether a browser may get another session.
    pub fn check(&mut self, user: &str, browser: Option<&Browser>, now: Nanos) -> LoopDecision {
        if let Some(returns) = browser.and_then(|browser| self.browsers.get_mut(browser)) {
            if now < returns.stopped_until {
                return LoopDecision::StillStopped(Reason::Loop);
            }
            if returns.count >= MAX_SESSIONS && returns.is_immediate(now) {
                returns.stopped_until = now + WINDOW;
                return LoopDecision::Stop(Reason::Loop);
            }
        }
        let max = usize::try_from(self.max_per_user).unwrap_or(usize::MAX);
        let full = self.users.get_mut(user).filter(|_| max > 0);
        let Some(sessions) = full else { return LoopDecision::Allow };
        if sessions.recent(now) < max {
            LoopDecision::Allow
        } else if std::mem::replace(&mut sessions.logged, true) {
            LoopDecision::StillStopped(Reason::User)
        } else {
            LoopDecision::Stop(Reason::User)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    /// The default.
    const MOST: u32 = 120;

    fn browser(ip: &str) -> Browser {
        Browser::new("ann", ip.parse().unwrap(), b"Firefox")
    }

    /// Pairs at `now` if it is allowed; the session takes a tenth of a second.
    fn visit(detector: &mut LoopDetector, browser: Option<&Browser>, now: Nanos) -> LoopDecision {
        let decision = detector.check("ann", browser, now);
        if decision == LoopDecision::Allow {
            detector.record("ann", browser.cloned(), now, now + SECOND / 10);
        }
        decision
    }

    #[test]
    fn a_browser_that_follows_each_redirect_without_a_session_is_stopped_for_a_minute() {
        let (mut detector, ann) = (LoopDetector::new(MOST), browser("192.0.2.1"));
        // A round trip after each response.
        let mut now = 0;
        for n in 0..MAX_SESSIONS {
            assert_eq!(visit(&mut detector, Some(&ann), now), LoopDecision::Allow, "{n}");
            now += SECOND / 2;
        }
        assert_eq!(visit(&mut detector, Some(&ann), now), LoopDecision::Stop(Reason::Loop));
        assert_eq!(visit(&mut detector, Some(&ann), now + 1), LoopDecision::StillStopped(Reason::Loop));
        let other = browser("192.0.2.2");
        assert_eq!(
            visit(&mut detector, Some(&other), now),
            LoopDecision::Allow,
            "browsers are counted separately"
        );
        assert_eq!(visit(&mut detector, None, now), LoopDecision::Allow, "and so is a script");
        let end = now + WINDOW;
        assert_eq!(visit(&mut detector, Some(&ann), end - 1), LoopDecision::StillStopped(Reason::Loop));
        for n in 0..u64::from(MAX_SESSIONS) {
            let at = end + n * SECOND / 2;
            assert_eq!(visit(&mut detector, Some(&ann), at), LoopDecision::Allow, "{n}");
        }
        let at = end + u64::from(MAX_SESSIONS) * SECOND / 2;
        assert_eq!(visit(&mut detector, Some(&ann), at), LoopDecision::Stop(Reason::Loop), "again");
    }

    #[test]
    fn a_script_that_pairs_every_few_seconds_is_never_stopped() {
        // It may claim to be a browser. The interval begins with the response.
        for (script, interval) in [(Some(browser("192.0.2.1")), 1100), (None, 1000), (None, 5000)] {
            let mut detector = LoopDetector::new(MOST);
            for n in 0..1000 {
                let now = n * interval * (SECOND / 1000);
                assert_eq!(
                    visit(&mut detector, script.as_ref(), now),
                    LoopDecision::Allow,
                    "{n}, {interval} ms"
                );
            }
        }
        // A few checks in a row, once a minute.
        let mut detector = LoopDetector::new(MOST);
        for minute in 0..100 {
            for n in 0..u64::from(MOST / 2) {
                let now = minute * WINDOW + n * SECOND / 10;
                assert_eq!(visit(&mut detector, None, now), LoopDecision::Allow, "{n}, {minute}");
            }
        }
    }

    #[test]
    fn a_slow_pairing_does_not_hide_a_loop() {
        let (mut detector, ann) = (LoopDetector::new(MOST), browser("192.0.2.1"));
        let mut now = 0;
        for n in 0..MAX_SESSIONS {
            assert_eq!(detector.check("ann", Some(&ann), now), LoopDecision::Allow, "{n}");
            detector.record("ann", Some(ann.clone()), now, now + 3 * SECOND);
            now += 3 * SECOND + SECOND / 5;
        }
        assert_eq!(detector.check("ann", Some(&ann), now), LoopDecision::Stop(Reason::Loop));
    }

    #[test]
    fn a_user_has_a_limit_whatever_the_browsers_claim_to_be() {
        let mut detector = LoopDetector::new(MOST);
        let claimed = |n: u32| Browser::new("ann", "192.0.2.1".parse().unwrap(), n.to_string().as_bytes());
        for n in 0..MOST {
            let browser = claimed(n);
            assert_eq!(
                visit(&mut detector, Some(&browser).filter(|_| n % 2 == 0), 0),
                LoopDecision::Allow,
                "{n}"
            );
        }
        assert_eq!(visit(&mut detector, Some(&claimed(1000)), 1), LoopDecision::Stop(Reason::User));
        assert_eq!(visit(&mut detector, None, 1), LoopDecision::StillStopped(Reason::User));
        assert_eq!(detector.check("bob", None, 1), LoopDecision::Allow);
        assert_eq!(visit(&mut detector, Some(&claimed(1000)), WINDOW + SECOND), LoopDecision::Allow);

        let mut detector = LoopDetector::new(0);
        for n in 0..10 * MOST {
            assert_eq!(visit(&mut detector, Some(&claimed(n)), 0), LoopDecision::Allow, "no limit: {n}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_browser() {
        let mut detector = LoopDetector::new(MOST);
        for n in 0..MAX_SESSIONS {
            detector.record("ann", Some(browser(&format!("2001:db8::{n}"))), 0, 0);
        }
        let check = |detector: &mut LoopDetector, ip| detector.check("ann", Some(&browser(ip)), 1);
        assert_eq!(check(&mut detector, "2001:db8::ffff"), LoopDecision::Stop(Reason::Loop));
        assert_eq!(check(&mut detector, "2001:db8:0:1::1"), LoopDecision::Allow);
    }

    #[test]
    fn entries_of_browsers_that_do_not_return_are_dropped() {
        let mut detector = LoopDetector::new(MOST);
        for n in 0..10_000u64 {
            let ip = std::net::Ipv4Addr::from(u32::try_from(n).unwrap());
            let now = n * WINDOW / 100;
            detector.record("ann", Some(browser(&ip.to_string())), now, now);
        }
        assert!(detector.browsers.len() <= PRUNE_ABOVE + 1, "{}", detector.browsers.len());
        assert!(detector.users["ann"].at.len() <= 100, "{}", detector.users["ann"].at.len());
    }
}
