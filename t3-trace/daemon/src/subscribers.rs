//! Subscribers to records. Publishing never waits: each subscriber has a bounded queue; dropped
//! records are counted and reported at their position.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use t3_record::wire::FromTrace;
use tokio::sync::Notify;

/// Queued messages per subscriber.
pub const QUEUE: usize = 512;
/// Maximum number of subscribers.
pub const MAX_SUBSCRIBERS: usize = 64;
/// The same as long as the next one is not root: others do not keep the operator out.
const MAX_WITHOUT_ROOT: usize = 48;

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Arc<FromTrace>>,
    skipped: u64,
}

impl Waiting {
    fn push(&mut self, message: &Arc<FromTrace>, bound: usize) {
        // A pending note about dropped records needs a place, too.
        let needed = 1 + usize::from(self.skipped > 0);
        if self.messages.len() + needed > bound {
            self.skipped += 1;
            return;
        }
        let missing = self.take_skipped();
        self.messages.extend(missing);
        self.messages.push_back(Arc::clone(message));
    }

    fn pop(&mut self) -> Option<Arc<FromTrace>> {
        self.messages.pop_front().or_else(|| self.take_skipped())
    }

    fn take_skipped(&mut self) -> Option<Arc<FromTrace>> {
        let records = std::mem::take(&mut self.skipped);
        (records > 0).then(|| Arc::new(FromTrace::Skipped { records }))
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    grew: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Members {
    queues: HashMap<u64, Arc<Queue>>,
    next: u64,
}

#[derive(Default, Clone)]
pub struct Subscribers {
    members: Arc<Mutex<Members>>,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message for every subscriber. Never waits.
    pub fn publish(&self, message: FromTrace) {
        let message = Arc::new(message);
        for queue in self.lock().queues.values() {
            queue.lock().push(&message, QUEUE);
            queue.grew.notify_one();
        }
    }

    /// Adds a subscriber; `None` if the limit for root, or for others, is reached.
    #[must_use]
    pub fn subscribe(&self, is_root: bool) -> Option<Subscription> {
        let mut members = self.lock();
        if members.queues.len() >= if is_root { MAX_SUBSCRIBERS } else { MAX_WITHOUT_ROOT } {
            return None;
        }
        members.next += 1;
        let (id, queue) = (members.next, Arc::new(Queue::default()));
        members.queues.insert(id, Arc::clone(&queue));
        drop(members);
        Some(Subscription { subscribers: self.clone(), id, queue })
    }

    /// Number of subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().queues.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Queue end of a subscriber; dropping it unsubscribes.
pub struct Subscription {
    subscribers: Subscribers,
    id: u64,
    queue: Arc<Queue>,
}

impl Subscription {
    /// Waits for the next message. Cancel-safe.
    pub async fn next(&self) -> Arc<FromTrace> {
        loop {
            if let Some(message) = self.queue.lock().pop() {
                return message;
            }
            self.queue.grew.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.lock().queues.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use t3_record::OpenRecord;

    use super::*;

    fn opened(n: usize) -> FromTrace {
        let record = OpenRecord::new("u".to_owned(), "192.0.2.1".to_owned(), n.to_string());
        FromTrace::Opened { record: Box::new(record) }
    }

    fn number(message: &Arc<FromTrace>) -> Result<usize, u64> {
        match &**message {
            FromTrace::Opened { record } => Ok(record.conn.parse().unwrap()),
            FromTrace::Skipped { records } => Err(*records),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_receives_the_number_of_dropped_records_in_place() {
        let subscribers = Subscribers::default();
        let (slow, quick) = (subscribers.subscribe(false).unwrap(), subscribers.subscribe(false).unwrap());
        for n in 0..QUEUE + 100 {
            subscribers.publish(opened(n));
            assert_eq!(number(&quick.next().await), Ok(n));
        }
        for n in 0..QUEUE {
            assert_eq!(number(&slow.next().await), Ok(n));
        }
        subscribers.publish(opened(9999));
        assert_eq!(number(&slow.next().await), Err(100));
        assert_eq!(number(&slow.next().await), Ok(9999));
    }

    #[tokio::test]
    async fn dropped_records_are_reported_without_a_next_record() {
        let subscribers = Subscribers::default();
        let slow = subscribers.subscribe(false).unwrap();
        for n in 0..QUEUE + 3 {
            subscribers.publish(opened(n));
        }
        for n in 0..QUEUE {
            assert_eq!(number(&slow.next().await), Ok(n));
        }
        assert_eq!(number(&slow.next().await), Err(3));
    }

    #[test]
    fn subscribers_are_limited_and_a_drop_frees_a_slot() {
        let subscribers = Subscribers::default();
        let all: Vec<_> = (0..MAX_WITHOUT_ROOT).map(|_| subscribers.subscribe(false).unwrap()).collect();
        assert!(subscribers.subscribe(false).is_none());
        let root: Vec<_> = (MAX_WITHOUT_ROOT..MAX_SUBSCRIBERS).map(|_| subscribers.subscribe(true)).collect();
        assert!(root.iter().all(Option::is_some) && subscribers.subscribe(true).is_none());
        drop(root);
        drop(all);
        assert!(subscribers.is_empty() && subscribers.subscribe(false).is_some());
    }
}
