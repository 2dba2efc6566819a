//! Recently closed sessions, for reconnect detection: links a `ws open` to the session it replaces.
//! Pure.

use std::collections::HashMap;

use t3_record::evidence::Nanos;

/// Limit of a gap that counts as a reconnect.
pub const RECONNECT_WINDOW: Nanos = 60_000_000_000;
const PRUNE_ABOVE: usize = 1024;

/// The latest closed session of each user and address, for one minute.
#[derive(Debug, Default)]
pub struct Reconnects {
    ended: HashMap<(String, String), (String, Nanos)>,
}

impl Reconnects {
    /// Adds a closed session.
    pub fn ended(&mut self, user: &str, ip: &str, conn: &str, at: Nanos) {
        if self.ended.len() > PRUNE_ABOVE {
            self.ended.retain(|_, (_, ended)| at.saturating_sub(*ended) <= RECONNECT_WINDOW);
        }
        self.ended.insert((user.to_owned(), ip.to_owned()), (conn.to_owned(), at));
    }

    /// Returns the session that an opened one replaces, with the gap in nanoseconds. Each is
    /// returned once.
    pub fn opened(&mut self, user: &str, ip: &str, at: Nanos) -> Option<(String, u64)> {
        let (conn, ended) = self.ended.remove(&(user.to_owned(), ip.to_owned()))?;
        let gap = at.saturating_sub(ended);
        (gap <= RECONNECT_WINDOW).then_some((conn, gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconnect_within_a_minute_finds_its_predecessor_once() {
        let mut reconnects = Reconnects::default();
        reconnects.ended("ann", "1.1.1.1", "a", 100);
        assert_eq!(reconnects.opened("ann", "2.2.2.2", 200), None);
        assert_eq!(reconnects.opened("bob", "1.1.1.1", 200), None);
        assert_eq!(reconnects.opened("ann", "1.1.1.1", 300), Some(("a".to_owned(), 200)));
        assert_eq!(reconnects.opened("ann", "1.1.1.1", 300), None);
        reconnects.ended("ann", "1.1.1.1", "b", 400);
        assert_eq!(reconnects.opened("ann", "1.1.1.1", 401 + RECONNECT_WINDOW), None);
    }

    #[test]
    fn clients_that_never_reconnect_are_pruned() {
        let mut reconnects = Reconnects::default();
        for n in 0..10_000u64 {
            reconnects.ended("ann", &n.to_string(), "a", n * RECONNECT_WINDOW / 100);
        }
        assert!(reconnects.ended.len() <= PRUNE_ABOVE + 1, "{}", reconnects.ended.len());
    }
}
