//! Order in which the evidence queries of all connections are worked on: in turn.
//!
//! A compromised dispatch may ask without end, and may read no answer. It does not delay the
//! answers to the others:
//!
//! - A bounded number of queries is in work. Each connection waits for a free turn with one query
//!   only, and turns are given in the order of the waits, so that connections alternate.
//! - A query is in work only if its answer has a place in the queue of its connection. A connection
//!   that does not read fills its queue, and is not worked for until it reads.

use std::{future::Future, sync::Arc};

use t3_record::wire::FromTrace;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use crate::questions::{Question, Questions};

/// Queries in work, of all connections: more than the runtime has threads for files, and so few
/// that a query does not wait long for CPU among them.
pub(crate) const IN_WORK: usize = 64;

/// Turns of all connections.
#[derive(Debug, Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(IN_WORK)))
    }
}

impl Turns {
    /// Waits for a turn. The semaphore is fair: permits are given in the order of the calls.
    async fn next(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }

    /// Answers the queries of one connection; ends with the receiver of `answers`.
    pub(crate) async fn answer<F>(
        &self,
        questions: &Questions,
        answers: &mpsc::Sender<FromTrace>,
        work: impl Fn(&Question) -> F,
    ) where
        F: Future<Output = FromTrace> + Send + 'static,
    {
        loop {
            questions.any().await;
            let Ok(place) = answers.clone().reserve_owned().await else { return };
            let Some(turn) = self.next().await else { return };
            let Some(question) = questions.take(Instant::now()) else { continue };
            let answer = work(&question);
            tokio::spawn(async move {
                place.send(answer.await);
                drop((question, turn));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::locked::lock;

    /// Work of all connections: each query is in work until the gate lets it pass.
    #[derive(Clone)]
    struct Log {
        turns: Turns,
        gate: Arc<Semaphore>,
        /// Queries in the order in which their work began.
        started: Arc<Mutex<Vec<String>>>,
    }

    impl Log {
        fn new() -> Self {
            Self { turns: Turns::default(), gate: Arc::new(Semaphore::new(0)), started: Arc::default() }
        }

        fn started(&self, prefix: &str) -> usize {
            lock(&self.started).iter().filter(|name| name.starts_with(prefix)).count()
        }

        /// A connection with `count` queries and a queue for answers.
        async fn connect(&self, name: &str, count: usize, queue: usize) -> mpsc::Receiver<FromTrace> {
            let (questions, (answers, answered)) = (Questions::default(), mpsc::channel(queue));
            for n in 0..count {
                assert!(questions.add(&format!("{name}{n}"), Instant::now()));
            }
            let log = self.clone();
            tokio::spawn(async move {
                let work = |question: &Question| {
                    lock(&log.started).push(question.conn().to_owned());
                    let gate = Arc::clone(&log.gate);
                    async move {
                        gate.acquire().await.unwrap().forget();
                        FromTrace::Refused { why: String::new() }
                    }
                };
                log.turns.answer(&questions, &answers, work).await;
            });
            settle().await;
            answered
        }

        async fn finish(&self, count: usize) {
            self.gate.add_permits(count);
            settle().await;
        }
    }

    /// Runs the other tasks, of the same thread, until they wait.
    async fn settle() {
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
    }

    fn unread(answers: &mut mpsc::Receiver<FromTrace>) -> usize {
        std::iter::from_fn(|| answers.try_recv().ok()).count()
    }

    #[tokio::test]
    async fn a_query_does_not_wait_for_all_queries_of_another_connection() {
        let log = Log::new();
        let _many = log.connect("many", 2_000, 2_000).await;
        assert_eq!(log.started(""), IN_WORK, "the number in work is bounded");
        let mut one = log.connect("one", 1, 8).await;
        log.finish(1).await;
        assert_eq!((log.started("many"), log.started("one")), (IN_WORK + 1, 0), "it waited before");
        log.finish(1).await;
        assert_eq!((log.started("many"), log.started("one")), (IN_WORK + 1, 1));
        log.finish(IN_WORK).await;
        assert_eq!(unread(&mut one), 1);
    }

    #[tokio::test]
    async fn connections_get_turns_alternately() {
        let log = Log::new();
        let _many = log.connect("many", 600, 600).await;
        let _few = log.connect("few", 40, 600).await;
        let _some = log.connect("some", 100, 600).await;
        for _ in 0..60 {
            log.finish(1).await;
        }
        assert_eq!(["many", "few", "some"].map(|name| log.started(name)), [IN_WORK + 20, 20, 20]);
        for _ in 0..60 {
            log.finish(1).await;
        }
        assert_eq!(["many", "few", "some"].map(|name| log.started(name)), [IN_WORK + 40, 40, 40]);
        for _ in 0..60 {
            log.finish(1).await;
        }
        assert_eq!(["many", "few", "some"].map(|name| log.started(name)), [IN_WORK + 70, 40, 70]);
    }

    #[tokio::test]
    async fn a_connection_that_does_not_read_is_not_worked_for_and_keeps_no_turn() {
        let log = Log::new();
        log.gate.add_permits(100_000);
        let mut silent = log.connect("silent", 100, 4).await;
        assert_eq!(log.started("silent"), 4, "one for each place in its queue");
        assert_eq!(log.turns.0.available_permits(), IN_WORK);
        let mut reader = log.connect("reader", 300, 300).await;
        assert_eq!(unread(&mut reader), 300);
        // It reads.
        assert_eq!(unread(&mut silent), 4);
        settle().await;
        assert_eq!(log.started("silent"), 8);
    }
}
