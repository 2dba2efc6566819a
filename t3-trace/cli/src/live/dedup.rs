//! Which closes were shown already: the socket and the journal may both tell one. Only remembers;
//! bounded.

use std::collections::{HashSet, VecDeque};

/// How many sessions are remembered as shown.
const SHOWN: usize = 4096;

/// The sessions that were shown, the last [`SHOWN`] of them.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    order: VecDeque<String>,
    set: HashSet<String>,
}

impl Dedup {
    /// Whether it has not been shown before; it counts as shown from now on.
    pub(super) fn first_time(&mut self, conn: &str) -> bool {
        if !self.set.insert(conn.to_owned()) {
            return false;
        }
        self.order.push_back(conn.to_owned());
        if self.order.len() > SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_not_shown_again_and_memory_is_bounded() {
        let mut dedup = Dedup::default();
        assert!(dedup.first_time("a") && !dedup.first_time("a"));
        for n in 0..2 * SHOWN {
            assert!(dedup.first_time(&n.to_string()));
        }
        assert_eq!((dedup.order.len(), dedup.set.len()), (SHOWN, SHOWN));
    }
}
