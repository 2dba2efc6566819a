//! Evidence queries of one dispatch: those that wait for their turn, and those in work.
//!
//! One per session, and a bounded number in all. A dispatch that asks again before the answer gets
//! one answer. See [`crate::turns`] for the order between connections.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::locked::lock;

/// Maximum number of queries that wait or are in work: four times the default of `--max-sessions`,
/// which can all end at the same time.
const MAX_QUESTIONS: usize = 16_384;
/// Age at which a query that waits is dropped: longer than dispatch waits for its answer (20 times
/// the default of `--evidence-timeout`, 5 s).
const MAX_AGE: Duration = Duration::from_secs(10);

/// Queries of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<Open>,
    grew: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// Sessions of all queries.
    sessions: HashSet<Arc<str>>,
    /// In the order of their arrival.
    waiting: VecDeque<(Arc<str>, Instant)>,
}

impl Open {
    fn drop_expired(&mut self, now: Instant) {
        while let Some((conn, _)) = self.waiting.pop_front_if(|(_, since)| *since + MAX_AGE <= now) {
            self.sessions.remove(&conn);
        }
    }
}

impl Questions {
    /// Adds a query; false if its session has one, or if there are too many.
    pub(crate) fn add(&self, conn: &str, now: Instant) -> bool {
        let mut open = lock(&self.0.open);
        if open.sessions.len() >= MAX_QUESTIONS {
            open.drop_expired(now);
        }
        if open.sessions.len() >= MAX_QUESTIONS || open.sessions.contains(conn) {
            return false;
        }
        let conn: Arc<str> = conn.into();
        open.sessions.insert(Arc::clone(&conn));
        open.waiting.push_back((conn, now));
        drop(open);
        self.0.grew.notify_one();
        true
    }

    /// Waits until a query waits. Only one task may call it.
    pub(crate) async fn any(&self) {
        while lock(&self.0.open).waiting.is_empty() {
            self.0.grew.notified().await;
        }
    }

    /// Takes the oldest query; `None` if all of them were too old.
    pub(crate) fn take(&self, now: Instant) -> Option<Question> {
        let mut open = lock(&self.0.open);
        open.drop_expired(now);
        let (conn, since) = open.waiting.pop_front()?;
        Some(Question { all: self.clone(), conn, waited: now.saturating_duration_since(since) })
    }
}

/// A query in work until it is answered.
#[derive(Debug)]
pub(crate) struct Question {
    all: Questions,
    conn: Arc<str>,
    waited: Duration,
}

impl Question {
    /// Session.
    pub(crate) fn conn(&self) -> &str {
        &self.conn
    }

    /// Time from its arrival to its turn.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        lock(&self.all.0.open).sessions.remove(&self.conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_session_has_one_question_and_all_have_a_limit() {
        let (questions, now) = (Questions::default(), Instant::now());
        assert!(questions.add("a", now) && !questions.add("a", now));
        let in_work = questions.take(now).unwrap();
        assert!(!questions.add("a", now), "in work");
        drop(in_work);
        assert!(questions.add("a", now), "answered");
        drop(questions.take(now));
        for n in 0..MAX_QUESTIONS {
            assert!(questions.add(&n.to_string(), now));
        }
        assert!(!questions.add("one more", now));
        let in_work = questions.take(now).unwrap();
        assert!(!questions.add("one more", now), "one in work counts, too");
        drop(in_work);
        assert!(questions.add("one more", now));
    }

    #[test]
    fn old_questions_are_dropped_and_make_room() {
        let (questions, start) = (Questions::default(), Instant::now());
        for n in 0..MAX_QUESTIONS {
            assert!(questions.add(&n.to_string(), start + SECOND * u32::from(n > 0)));
        }
        let now = start + MAX_AGE;
        assert!(questions.add("room of the first", now) && !questions.add("no room", now));
        let oldest = questions.take(now).unwrap();
        assert_eq!((oldest.conn(), oldest.waited()), ("1", MAX_AGE - SECOND));
        let now = now + SECOND;
        let left = questions.take(now).unwrap();
        assert_eq!((left.conn(), left.waited()), ("room of the first", SECOND));
        assert!(questions.take(now).is_none());
    }
}
