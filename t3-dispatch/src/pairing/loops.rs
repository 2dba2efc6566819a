//! Notices a browser that gets one session after the other and comes back without: it does not keep
//! the cookie, or serve does not know it. Pure. A 302 would loop indefinitely.

use std::collections::HashMap;

use t3_record::evidence::Nanos;

/// Sessions of one browser within [`WITHIN`], at most.
pub const MANY: usize = 4;
/// The time they are counted in.
pub const WITHIN: Nanos = 60_000_000_000;
const PRUNE_ABOVE: usize = 1024;

/// Identity of one browser: OS user, address, User-Agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Browser {
    /// The OS user.
    pub user: String,
    /// Its address.
    pub ip: String,
    /// Its User-Agent.
    pub agent: Vec<u8>,
}

/// May a browser be given another session?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Go,
    /// No, and not yet logged.
    Stop,
    /// Still no.
    StillStopped,
}

#[derive(Debug, Default)]
struct Given {
    at: Vec<Nanos>,
    told: bool,
}

/// Who was given sessions within the last minute.
#[derive(Debug, Default)]
pub struct Loops {
    given: HashMap<Browser, Given>,
}

impl Loops {
    /// A browser was given a session.
    pub fn given(&mut self, browser: Browser, now: Nanos) {
        if self.given.len() > PRUNE_ABOVE {
            self.given.retain(|_, given| given.at.iter().any(|at| is_recent(*at, now)));
        }
        let given = self.given.entry(browser).or_default();
        given.at.retain(|at| is_recent(*at, now));
        given.at.push(now);
        given.told = false;
    }

    /// A browser asks for one.
    pub fn ask(&mut self, browser: &Browser, now: Nanos) -> Verdict {
        let Some(given) = self.given.get_mut(browser) else { return Verdict::Go };
        if given.at.iter().filter(|at| is_recent(**at, now)).count() < MANY {
            return Verdict::Go;
        }
        if std::mem::replace(&mut given.told, true) { Verdict::StillStopped } else { Verdict::Stop }
    }
}

fn is_recent(at: Nanos, now: Nanos) -> bool {
    now.saturating_sub(at) < WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(ip: &str) -> Browser {
        Browser { user: "ann".to_owned(), ip: ip.to_owned(), agent: b"Firefox".to_vec() }
    }

    #[test]
    fn the_fifth_session_within_a_minute_is_refused_and_told_once() {
        let (mut loops, ann) = (Loops::default(), browser("1"));
        for n in 0..4 {
            assert_eq!(loops.ask(&ann, n), Verdict::Go, "{n}");
            loops.given(ann.clone(), n);
        }
        assert_eq!(loops.ask(&ann, 5), Verdict::Stop);
        assert_eq!(loops.ask(&ann, 6), Verdict::StillStopped);
        assert_eq!(loops.ask(&browser("2"), 6), Verdict::Go, "another browser is not meant");
        assert_eq!(loops.ask(&ann, WITHIN - 1), Verdict::StillStopped);
        // The first of the four is a minute ago.
        assert_eq!(loops.ask(&ann, WITHIN), Verdict::Go);
        loops.given(ann.clone(), WITHIN);
        assert_eq!(loops.ask(&ann, WITHIN), Verdict::Stop);
    }

    #[test]
    fn it_does_not_grow_with_browsers_who_never_come_back() {
        let mut loops = Loops::default();
        for n in 0..10_000u64 {
            loops.given(browser(&n.to_string()), n * WITHIN / 100);
        }
        assert!(loops.given.len() <= PRUNE_ABOVE + 1, "{}", loops.given.len());
    }
}
