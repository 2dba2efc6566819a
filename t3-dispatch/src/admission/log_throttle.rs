//! Log lines that repeat: the first is said, the rest of its minute is counted. Pure: the clock is
//! the caller's, and nothing is logged here.
//!
//! Memory is bounded: keys beyond the bound share one place, so a flood from everywhere costs no
//! more than one from a single peer.

use std::{collections::HashMap, hash::Hash};

use t3_record::evidence::Nanos;

/// Says which of many equal lines are to be logged.
#[derive(Debug)]
pub struct Quiet<K> {
    window: Nanos,
    most: usize,
    kept: HashMap<K, Kept>,
    beyond: Option<Kept>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    since: Nanos,
    unsaid: u64,
}

impl Kept {
    fn new(since: Nanos) -> Self {
        Self { since, unsaid: 0 }
    }

    fn say(&mut self, window: Nanos, now: Nanos) -> Option<u64> {
        let said = self.begin_anew(window, now);
        if said.is_none() {
            self.unsaid += 1;
        }
        said
    }

    /// Begins a new window if this one is over; gives what was not said in it.
    fn begin_anew(&mut self, window: Nanos, now: Nanos) -> Option<u64> {
        if now.saturating_sub(self.since) < window {
            return None;
        }
        let unsaid = self.unsaid;
        *self = Self::new(now);
        Some(unsaid)
    }
}

impl<K: Eq + Hash + Clone> Quiet<K> {
    /// One line per key in each `window`; at most `most` keys are distinguished.
    #[must_use]
    pub fn new(window: Nanos, most: usize) -> Self {
        Self { window, most, kept: HashMap::new(), beyond: None }
    }

    /// Whether a line about `key` is to be logged now, and if so, how many were not logged since
    /// the last one.
    pub fn say(&mut self, key: K, now: Nanos) -> Option<u64> {
        if let Some(kept) = self.kept.get_mut(&key) {
            return kept.say(self.window, now);
        }
        if self.kept.len() < self.most {
            self.kept.insert(key, Kept::new(now));
            return Some(0);
        }
        match &mut self.beyond {
            Some(kept) => kept.say(self.window, now),
            none => {
                *none = Some(Kept::new(now));
                Some(0)
            }
        }
    }

    /// What was counted and not said in windows that are over, so that the last lines of a flood
    /// are told even when nothing follows. `None` stands for the keys beyond the bound. Forgets
    /// what has been quiet for a window. To be called now and then.
    pub fn overdue(&mut self, now: Nanos) -> Vec<(Option<K>, u64)> {
        let window = self.window;
        let mut told = Vec::new();
        // A reported sum starts a new window: the sum is a line, too.
        let mut keep = |key: Option<&K>, kept: &mut Kept| match kept.begin_anew(window, now) {
            None => true,
            Some(0) => false,
            Some(unsaid) => {
                told.push((key.cloned(), unsaid));
                true
            }
        };
        self.kept.retain(|key, kept| keep(Some(key), kept));
        if self.beyond.as_mut().is_some_and(|kept| !keep(None, kept)) {
            self.beyond = None;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_of_its_window_is_counted() {
        let mut quiet = Quiet::new(60, 10);
        assert_eq!(quiet.say("a", 100), Some(0));
        assert_eq!((quiet.say("a", 101), quiet.say("a", 159)), (None, None));
        assert_eq!(quiet.say("b", 110), Some(0), "another key has a line of its own");
        assert_eq!(quiet.say("a", 160), Some(2));
    }

    #[test]
    fn what_nothing_follows_is_told_once_its_window_is_over_and_then_forgotten() {
        let mut quiet = Quiet::new(60, 10);
        quiet.say("a", 0);
        quiet.say("a", 1);
        assert_eq!(quiet.overdue(59), []);
        assert_eq!(quiet.overdue(60), [(Some("a"), 1)]);
        assert_eq!(quiet.say("a", 100), None, "the sum was this window's line");
        assert_eq!(quiet.overdue(120), [(Some("a"), 1)]);
        assert_eq!(quiet.overdue(180), []);
        assert!(quiet.kept.is_empty());
    }

    #[test]
    fn keys_beyond_the_bound_share_one_place() {
        let mut quiet = Quiet::new(60, 2);
        assert_eq!((quiet.say(1, 0), quiet.say(2, 0), quiet.say(3, 0)), (Some(0), Some(0), Some(0)));
        assert_eq!((quiet.say(4, 1), quiet.say(5, 1)), (None, None));
        assert_eq!(quiet.kept.len(), 2);
        assert_eq!(quiet.overdue(60), [(None, 2)]);
    }

    proptest! {
        /// Every line is either said or counted in exactly one sum, and no key has more than one
        /// line in a window.
        #[test]
        fn nothing_is_lost_and_nothing_is_said_too_often(
            events in prop::collection::vec((0_u8..6, 0_u64..30, any::<bool>()), 0..200)
        ) {
            let mut quiet = Quiet::new(60, 3);
            let (mut now, mut lines, mut accounted) = (0, 0, 0);
            let mut last: HashMap<Option<u8>, u64> = HashMap::new();
            for (key, pause, sum) in events {
                now += pause;
                let mut spoke = |key: Option<u8>| {
                    let before = last.insert(key, now);
                    prop_assert!(before.is_none_or(|before| now - before >= 60));
                    Ok(())
                };
                if sum {
                    for (key, unsaid) in quiet.overdue(now) {
                        spoke(key)?;
                        accounted += unsaid;
                    }
                } else {
                    lines += 1;
                    let said = quiet.say(key, now);
                    let place = quiet.kept.contains_key(&key).then_some(key);
                    if let Some(unsaid) = said {
                        spoke(place)?;
                        accounted += unsaid + 1;
                    }
                }
                prop_assert!(quiet.kept.len() <= 3);
            }
            let left: u64 = quiet.overdue(now + 60).iter().map(|(_, unsaid)| unsaid).sum();
            prop_assert_eq!(accounted + left, lines);
        }
    }
}
