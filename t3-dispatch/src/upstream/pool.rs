//! Idle connections to serves, to be used again for the same user's serve. [`Idle`] is the
//! bookkeeping, pure; [`Pool`] closes what was idle too long.
//!
//! A connection belongs to user and port, not to a port alone: when a port changes hands, the old
//! serve may still hold its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Response, header::CONNECTION};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    http::headers,
    routing::table::Route,
    upstream::request_body::{RequestBody, UploadProgress},
};

/// For a connection to be ready again after an answer has been read to its end. It is at once,
/// unless the request is still being sent.
const SETTLE: Duration = Duration::from_secs(1);

/// What is idle, and until when it may be used.
#[derive(Debug)]
pub struct Idle<T> {
    by_route: HashMap<Route, Vec<(Instant, T)>>,
    most: usize,
}

impl<T> Idle<T> {
    /// Room for so many for each serve.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_route: HashMap::new(), most }
    }

    /// Keeps one, instead of the one that has been idle longest when there is no room.
    pub fn put(&mut self, route: Route, until: Instant, one: T) {
        if self.most == 0 {
            return;
        }
        let idle = self.by_route.entry(route).or_default();
        if idle.len() >= self.most {
            idle.remove(0);
        }
        idle.push((until, one));
    }

    /// The one that was used last, if `usable`. Those that are not are dropped.
    pub fn take(&mut self, route: &Route, now: Instant, usable: impl Fn(&T) -> bool) -> Option<T> {
        let idle = self.by_route.get_mut(route)?;
        let mut found = None;
        while found.is_none()
            && let Some((until, one)) = idle.pop()
        {
            found = Some(one).filter(|one| until > now && usable(one));
        }
        if idle.is_empty() {
            self.by_route.remove(route);
        }
        found
    }

    /// Drops those whose time is over, and those of serves that are not to be kept. Returns when
    /// the next one's time is over.
    pub fn sweep(&mut self, now: Instant, keep: impl Fn(&Route) -> bool) -> Option<Instant> {
        self.by_route.retain(|route, idle| {
            idle.retain(|(until, _)| *until > now);
            !idle.is_empty() && keep(route)
        });
        self.by_route.values().flatten().map(|(until, _)| *until).min()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_route.values().map(Vec::len).sum()
    }
}

/// The pool of one dispatch.
#[derive(Debug)]
pub struct Pool {
    patience: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    idle: Idle<SendRequest<RequestBody>>,
    sweeping: bool,
}

impl Pool {
    /// Keeps at most so many connections to each serve, idle for at most so long.
    #[must_use]
    pub fn new(most: usize, patience: Duration) -> Self {
        Self { patience, inner: Mutex::new(Inner { idle: Idle::new(most), sweeping: false }) }
    }

    /// A connection that was not closed, as far as is known.
    #[must_use]
    pub fn take(&self, route: &Route) -> Option<SendRequest<RequestBody>> {
        self.lock().idle.take(route, Instant::now(), SendRequest::is_ready)
    }

    /// Takes a connection back as soon as it can take another request. `announced` is for how long
    /// serve said it keeps it.
    pub fn give_back(
        self: Arc<Self>,
        route: Route,
        announced: Option<Duration>,
        mut one: SendRequest<RequestBody>,
    ) {
        // serve counts from when it sent its answer, and must not be the first to give up.
        let announced = announced.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let patience = announced.map_or(self.patience, |time| time.min(self.patience));
        let until = Instant::now() + patience;
        if patience.is_zero() {
            return;
        }
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(SETTLE, one.ready()).await {
                self.put(route, until, one);
            }
        });
    }

    /// Closes connections to serves that are not in use any more.
    pub fn keep(&self, keep: impl Fn(&Route) -> bool) {
        self.lock().idle.sweep(Instant::now(), keep);
    }

    /// How many connections are idle.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().idle.count()
    }

    fn put(self: Arc<Self>, route: Route, until: Instant, one: SendRequest<RequestBody>) {
        let mut inner = self.lock();
        inner.idle.put(route, until, one);
        let begins = !std::mem::replace(&mut inner.sweeping, true);
        drop(inner);
        if begins {
            tokio::spawn(self.sweep());
        }
    }

    /// Closes what was idle too long, until nothing is left.
    async fn sweep(self: Arc<Self>) {
        while let Some(next) = self.swept() {
            sleep_until(next).await;
        }
    }

    fn swept(&self) -> Option<Instant> {
        let mut inner = self.lock();
        let next = inner.idle.sweep(Instant::now(), |_| true);
        inner.sweeping = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection while an answer is read from it.
#[derive(Debug)]
pub struct Lease {
    home: Option<(Arc<Pool>, Route, SendRequest<RequestBody>)>,
    announced: Option<Duration>,
    sent: Option<Arc<UploadProgress>>,
}

impl Lease {
    #[must_use]
    pub fn new(
        pool: &Arc<Pool>,
        route: &Route,
        sender: SendRequest<RequestBody>,
        sent: Option<Arc<UploadProgress>>,
        response: &Response<Incoming>,
    ) -> Self {
        let headers = response.headers();
        let closes =
            headers.get_all(CONNECTION).iter().any(|value| headers::has_token(value.as_bytes(), "close"));
        let home = (!closes).then(|| (Arc::clone(pool), route.clone(), sender));
        Self { home, announced: headers::announced_keep_alive(headers), sent }
    }

    /// The answer was read to its end.
    pub fn end(mut self) {
        if let Some((pool, route, sender)) = self.home.take() {
            pool.give_back(route, self.announced, sender);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sent) = &self.sent {
            sent.answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(user: &str, port: u16) -> Route {
        Route { os_user: user.to_owned(), port }
    }

    #[test]
    fn the_one_used_last_comes_first_and_only_to_its_own_user_and_port() {
        let now = Instant::now();
        let later = now + Duration::from_secs(4);
        let mut idle = Idle::new(2);
        for n in 1..=3 {
            idle.put(route("ann", 3773), later, n);
        }
        assert_eq!(idle.count(), 2, "bounded");
        for other in [route("bob", 3773), route("ann", 3774)] {
            assert_eq!(idle.take(&other, now, |_| true), None);
        }
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), Some(3));
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), Some(2), "the oldest had to go");
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), None);
        let mut none = Idle::new(0);
        none.put(route("ann", 3773), later, 1);
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn what_is_closed_or_over_or_of_no_serve_any_more_is_dropped() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut idle = Idle::new(9);
        idle.put(route("ann", 1), after(4), 1);
        idle.put(route("ann", 1), after(4), 2);
        assert_eq!(idle.take(&route("ann", 1), now, |one| *one != 2), Some(1));
        assert_eq!(idle.count(), 0);
        idle.put(route("ann", 1), after(4), 3);
        assert_eq!(idle.take(&route("ann", 1), after(4), |_| true), None);
        for (user, until) in [("ann", 4), ("bob", 5), ("carl", 6)] {
            idle.put(route(user, 1), after(until), 0);
        }
        assert_eq!(idle.sweep(after(4), |route| route.os_user != "bob"), Some(after(6)));
        assert_eq!(idle.count(), 1);
        assert_eq!(idle.sweep(after(6), |_| true), None);
    }
}
