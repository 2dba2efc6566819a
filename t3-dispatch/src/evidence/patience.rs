//! Time that a query waits for its answer. Pure.
//!
//! When many sessions end at the same time, their queries wait for each other in t3-trace, so a
//! wait starts again with each answer to any of them: only a t3-trace that stands still times out.
//! The wait is counted in slices, so that a delay of dispatch itself is one of them and not all:
//! the answers that arrived meanwhile are read in the next.

use std::time::Duration;

/// Slices of a timeout.
const SLICES: u32 = 5;
/// Limit of a wait, in timeouts.
const LIMIT: u32 = 20;

/// Timeout of queries: time without any answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    slice: Duration,
}

/// Wait of one query.
#[derive(Debug)]
pub struct Wait {
    /// Answers to all queries at the end of the last slice.
    answers: u64,
    /// Slices since the last answer.
    silent: u32,
    slices: u32,
}

impl Patience {
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { slice: timeout / SLICES }
    }

    /// Length of a slice.
    #[must_use]
    pub fn slice(self) -> Duration {
        self.slice
    }
}

impl Wait {
    /// Starts the wait of a query. `answers`: number of answers to all queries so far.
    #[must_use]
    pub fn new(answers: u64) -> Self {
        Self { answers, silent: 0, slices: 0 }
    }

    /// A slice ended without the answer. Returns whether to wait for another.
    pub fn goes_on(&mut self, answers: u64) -> bool {
        self.slices += 1;
        self.silent =
            if std::mem::replace(&mut self.answers, answers) == answers { self.silent + 1 } else { 0 };
        self.silent < SLICES && self.slices < SLICES * LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices of a wait with these numbers of answers at their ends; the last one repeats.
    fn slices(answers: impl IntoIterator<Item = u64>) -> u32 {
        let mut answers = answers.into_iter();
        let mut wait = Wait::new(7);
        let mut last = 7;
        let mut slices = 1;
        while wait.goes_on(answers.next().inspect(|now| last = *now).unwrap_or(last)) {
            slices += 1;
        }
        slices
    }

    #[test]
    fn the_wait_starts_again_with_each_answer_up_to_a_limit() {
        assert_eq!(slices([]), SLICES);
        assert_eq!(slices([7, 7, 7, 8]), 4 + SLICES);
        assert_eq!(slices([7, 7, 7, 7, 7, 8]), SLICES, "too late");
        assert_eq!(slices([8, 9, 10]), 3 + SLICES);
        // Of a new connection.
        assert_eq!(slices([0]), 1 + SLICES);
        assert_eq!(slices(8..), SLICES * LIMIT);
        assert_eq!(Patience::new(Duration::from_millis(250)).slice() * SLICES, Duration::from_millis(250));
    }
}
