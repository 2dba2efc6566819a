//! Single flight: concurrent callers with the same key share one run. It has its own task, so a
//! dropped caller does not cancel it for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

type InFlight<T> = Arc<Mutex<HashMap<String, watch::Receiver<Option<T>>>>>;

/// Runs in flight, by key.
#[derive(Debug)]
pub struct SingleFlight<T>(InFlight<T>);

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// Returns the result for `key`; starts a run if none is in flight. `None` when it panicked or
    /// the runtime has ended.
    pub async fn join<F>(&self, key: &str, start: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut outcome = {
            let mut flights = lock(&self.0);
            if let Some(flight) = flights.get(key) {
                flight.clone()
            } else {
                let (sender, outcome) = watch::channel(None);
                flights.insert(key.to_owned(), outcome.clone());
                let guard = FlightGuard { flights: Arc::clone(&self.0), key: key.to_owned() };
                let work = start();
                tokio::spawn(async move {
                    let value = work.await;
                    // From here on a new caller starts a new run.
                    drop(guard);
                    sender.send_replace(Some(value));
                });
                outcome
            }
        };
        outcome.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Removes a run from the map when it ends, panics included.
struct FlightGuard<T> {
    flights: InFlight<T>,
    key: String,
}

impl<T> Drop for FlightGuard<T> {
    fn drop(&mut self) {
        lock(&self.flights).remove(&self.key);
    }
}

fn lock<T>(
    flights: &Mutex<HashMap<String, watch::Receiver<Option<T>>>>,
) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<T>>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Work {
        started: AtomicUsize,
        go: Notify,
    }

    impl Work {
        fn start(self: &Arc<Self>) -> impl Future<Output = usize> + use<> {
            let work = Arc::clone(self);
            let number = work.started.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                work.go.notified().await;
                number
            }
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_run_and_later_ones_start_another() {
        let (flights, work) = (SingleFlight::default(), Arc::new(Work::default()));
        let together = join_all((0..10).map(|_| flights.join("ann", || work.start())));
        work.go.notify_one();
        assert_eq!(together.await, [Some(1); 10]);
        work.go.notify_one();
        assert_eq!(flights.join("ann", || work.start()).await, Some(2));
        assert!(lock(&flights.0).is_empty());
    }

    #[tokio::test]
    async fn different_keys_do_not_wait_for_each_other() {
        let (flights, work) = (SingleFlight::default(), Arc::new(Work::default()));
        let (ann, bob) = tokio::join!(flights.join("ann", || work.start()), async {
            let bob = flights.join("bob", || async { 7 }).await;
            work.go.notify_one();
            bob
        });
        assert_eq!((ann, bob), (Some(1), Some(7)));
    }

    #[tokio::test]
    async fn a_dropped_caller_does_not_cancel_the_run() {
        let flights = Arc::new(SingleFlight::default());
        let work = Arc::new(Work::default());
        let (shared, begun) = (Arc::clone(&flights), Arc::clone(&work));
        let first = tokio::spawn(async move { shared.join("ann", || begun.start()).await });
        while work.started.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err());
        work.go.notify_one();
        assert_eq!(flights.join("ann", || work.start()).await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_ends_the_wait_and_allows_another_run() {
        let flights: SingleFlight<usize> = SingleFlight::default();
        assert_eq!(flights.join("ann", || async { panic!("as a test") }).await, None);
        assert_eq!(flights.join("ann", || async { 1 }).await, Some(1));
    }
}
