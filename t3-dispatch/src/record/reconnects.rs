//! Recently closed sessions, for reconnect detection: links a `ws open` to the session it replaces.
//! Pure.

use std::{collections::HashMap, net::IpAddr};

use compact_str::CompactString;
use t3_record::evidence::Nanos;

/// Limit of a gap that counts as a reconnect.
pub const RECONNECT_WINDOW: Nanos = 60_000_000_000;
/// Sessions from which on those that are too old are forgotten also before the next
/// [`Reconnects::shrink`].
const PRUNE_ABOVE: usize = 1024;

/// User and address. Without allocations of their own for usual names: thousands of small blocks
/// that outlive their sessions would keep as many pages of the allocator.
type Client = (CompactString, Address);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Address {
    Ip(IpAddr),
    Other(CompactString),
}

fn client(user: &str, ip: &str) -> Client {
    (user.into(), ip.parse().map_or_else(|_| Address::Other(ip.into()), Address::Ip))
}

/// The latest closed session of each user and address, for one minute.
#[derive(Debug, Default)]
pub struct Reconnects {
    ended: HashMap<Client, (CompactString, Nanos)>,
    /// Sessions after the last search for those that are too old.
    kept: usize,
}

impl Reconnects {
    /// Adds a closed session.
    pub fn ended(&mut self, user: &str, ip: &str, conn: &str, at: Nanos) {
        // Not for each of thousands that end in the same minute.
        if self.ended.len() > PRUNE_ABOVE.max(2 * self.kept) {
            self.prune(at);
        }
        self.ended.insert(client(user, ip), (conn.into(), at));
    }

    /// Returns the session that an opened one replaces, with the gap in nanoseconds. Each is
    /// returned once.
    pub fn opened(&mut self, user: &str, ip: &str, at: Nanos) -> Option<(String, u64)> {
        let (conn, ended) = self.ended.remove(&client(user, ip))?;
        let gap = at.saturating_sub(ended);
        (gap <= RECONNECT_WINDOW).then(|| (conn.into(), gap))
    }

    /// Forgets sessions that ended too long ago for a reconnect at `now`, and returns their memory.
    pub fn shrink(&mut self, now: Nanos) {
        self.prune(now);
        self.ended.shrink_to_fit();
    }

    fn prune(&mut self, now: Nanos) {
        self.ended.retain(|_, (_, ended)| now.saturating_sub(*ended) <= RECONNECT_WINDOW);
        self.kept = self.ended.len();
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
        let end = 10_000 * RECONNECT_WINDOW / 100;
        reconnects.shrink(end);
        assert_eq!(reconnects.ended.len(), 100);
        reconnects.shrink(end + 2 * RECONNECT_WINDOW);
        assert_eq!((reconnects.ended.len(), reconnects.ended.capacity()), (0, 0));
    }

    #[test]
    fn addresses_that_are_not_ip_addresses_and_long_names_are_told_apart() {
        let long = "a".repeat(64);
        let mut reconnects = Reconnects::default();
        for (user, ip, conn) in [(&*long, "2001:db8::1", "a"), (&long, "unix:", "b"), ("ann", "unix:", "c")] {
            reconnects.ended(user, ip, conn, 0);
        }
        assert_eq!(
            reconnects.opened(&long, "2001:db8:0::1", 1),
            Some(("a".to_owned(), 1)),
            "the same address"
        );
        assert_eq!(reconnects.opened(&long, "unix:", 1), Some(("b".to_owned(), 1)));
        assert_eq!(reconnects.opened("ann", "unix:", 1), Some(("c".to_owned(), 1)));
        assert_eq!(reconnects.opened("ann", "", 1), None);
    }
}
