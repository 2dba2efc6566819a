//! Evidence queries of one dispatch that are being answered: one per session, and a bounded number
//! in all. A dispatch that asks again before the answer gets one answer.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use crate::locked::lock;

/// Maximum number of queries in progress: four times the default of `--max-sessions`, which can all
/// end at the same time.
const MAX_QUESTIONS: usize = 16_384;

/// Queries in progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions(Arc<Mutex<HashSet<String>>>);

impl Questions {
    /// Begins a query; `None` if the session has one, or if too many are in progress.
    pub(crate) fn begin(&self, conn: &str) -> Option<Question> {
        let mut open = lock(&self.0);
        if open.len() >= MAX_QUESTIONS || !open.insert(conn.to_owned()) {
            return None;
        }
        Some(Question { all: self.clone(), conn: conn.to_owned() })
    }
}

/// A query until it is answered.
#[derive(Debug)]
pub(crate) struct Question {
    all: Questions,
    conn: String,
}

impl Question {
    pub(crate) fn conn(&self) -> &str {
        &self.conn
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_question_and_all_have_a_limit() {
        let questions = Questions::default();
        let first = questions.begin("a").unwrap();
        assert!(questions.begin("a").is_none());
        drop(first);
        assert!(questions.begin("a").is_some(), "answered");
        let open: Vec<_> = (0..MAX_QUESTIONS).map(|n| questions.begin(&n.to_string()).unwrap()).collect();
        assert!(questions.begin("one more").is_none());
        drop(open);
        assert!(questions.begin("one more").is_some());
    }
}
