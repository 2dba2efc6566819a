//! Sessions whose close was already shown: socket and journal may both deliver it. Bounded.

use std::collections::{HashSet, VecDeque};

/// Sessions remembered.
const SHOWN: usize = 4096;

/// The last [`SHOWN`] sessions shown.
#[derive(Debug, Default)]
pub(super) struct Dedup {
    order: VecDeque<String>,
    set: HashSet<String>,
}

impl Dedup {
    /// Returns whether it is new, and marks it as shown.
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
    fn a_close_is_shown_once_and_memory_is_bounded() {
        let mut dedup = Dedup::default();
        assert!(dedup.first_time("a") && !dedup.first_time("a"));
        for n in 0..2 * SHOWN {
            assert!(dedup.first_time(&n.to_string()));
        }
        assert_eq!((dedup.order.len(), dedup.set.len()), (SHOWN, SHOWN));
    }
}
