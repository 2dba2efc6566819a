//! Who was connected until a moment ago: links a `ws open` to the session it replaces. Pure.

use std::collections::HashMap;

use t3_record::evidence::Nanos;

/// A later reconnect is a new visit.
pub const WITHIN: Nanos = 60_000_000_000;
const PRUNE_ABOVE: usize = 1024;

/// Sessions that ended within the last minute, the latest of each user and address.
#[derive(Debug, Default)]
pub struct Reconnects {
    ended: HashMap<(String, String), (String, Nanos)>,
}

impl Reconnects {
    /// A session ended.
    pub fn ended(&mut self, user: &str, ip: &str, conn: &str, at: Nanos) {
        if self.ended.len() > PRUNE_ABOVE {
            self.ended.retain(|_, (_, ended)| at.saturating_sub(*ended) <= WITHIN);
        }
        self.ended.insert((user.to_owned(), ip.to_owned()), (conn.to_owned(), at));
    }

    /// A session opened: which one does it replace, and how many nanoseconds lay between? Each is
    /// given out once.
    pub fn opened(&mut self, user: &str, ip: &str, at: Nanos) -> Option<(String, u64)> {
        let (conn, ended) = self.ended.remove(&(user.to_owned(), ip.to_owned()))?;
        let gap = at.saturating_sub(ended);
        (gap <= WITHIN).then_some((conn, gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconnect_within_a_minute_finds_its_predecessor_once() {
        let mut recent = Reconnects::default();
        recent.ended("ann", "1.1.1.1", "a", 100);
        assert_eq!(recent.opened("ann", "2.2.2.2", 200), None);
        assert_eq!(recent.opened("bob", "1.1.1.1", 200), None);
        assert_eq!(recent.opened("ann", "1.1.1.1", 300), Some(("a".to_owned(), 200)));
        assert_eq!(recent.opened("ann", "1.1.1.1", 300), None);
        recent.ended("ann", "1.1.1.1", "b", 400);
        assert_eq!(recent.opened("ann", "1.1.1.1", 401 + WITHIN), None);
    }

    #[test]
    fn it_does_not_grow_with_visitors_who_never_come_back() {
        let mut recent = Reconnects::default();
        for n in 0..10_000u64 {
            recent.ended("ann", &n.to_string(), "a", n * WITHIN / 100);
        }
        assert!(recent.ended.len() <= PRUNE_ABOVE + 1, "{}", recent.ended.len());
    }
}
