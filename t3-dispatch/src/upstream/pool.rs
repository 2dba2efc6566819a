//! Pool of idle connections to serve. [`IdleConnections`] is the pure data structure; [`Pool`]
//! closes expired connections.
//!
//! The key of a connection is user and port, not the port alone: when a port gets another user, the
//! serve of the previous one may still hold its end.

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

/// Timeout for a connection to be ready for the next request after a complete response. It is ready
/// immediately unless the request is still being sent.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// IdleConnections connections with their expiry.
#[derive(Debug)]
pub struct IdleConnections<T> {
    by_route: HashMap<Route, Vec<(Instant, T)>>,
    most: usize,
}

impl<T> IdleConnections<T> {
    /// Returns an empty pool with a limit of `most` connections per serve.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_route: HashMap::new(), most }
    }

    /// Adds a connection; at the limit it replaces the one that was idle longest.
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

    /// Returns the most recently used `usable` connection. Drops unusable ones.
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

    /// Drops expired connections and those whose route `keep` rejects. Returns the next expiry.
    pub fn sweep(&mut self, now: Instant, keep: impl Fn(&Route) -> bool) -> Option<Instant> {
        self.by_route.retain(|route, idle| {
            idle.retain(|(until, _)| *until > now);
            !idle.is_empty() && keep(route)
        });
        self.by_route.values().flatten().map(|(until, _)| *until).min()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.by_route.values().map(Vec::len).sum()
    }
}

/// Pool of idle connections to all serves.
#[derive(Debug)]
pub struct Pool {
    idle_timeout: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    idle: IdleConnections<SendRequest<RequestBody>>,
    sweeping: bool,
}

impl Pool {
    /// Keeps up to `most` connections per serve, each idle for up to `idle_timeout`.
    #[must_use]
    pub fn new(most: usize, idle_timeout: Duration) -> Self {
        Self { idle_timeout, inner: Mutex::new(Inner { idle: IdleConnections::new(most), sweeping: false }) }
    }

    /// Returns an idle connection that is not known to be closed.
    #[must_use]
    pub fn take(&self, route: &Route) -> Option<SendRequest<RequestBody>> {
        self.lock().idle.take(route, Instant::now(), SendRequest::is_ready)
    }

    /// Returns a connection to the pool once it is ready for another request. `announced` is the
    /// keep-alive timeout in serve's response.
    pub fn release(
        self: Arc<Self>,
        route: Route,
        announced: Option<Duration>,
        mut one: SendRequest<RequestBody>,
    ) {
        // serve's timeout starts when it sends the response; the pool must close first.
        let announced = announced.map(|time| time.saturating_sub(Duration::from_secs(1)));
        let idle_timeout = announced.map_or(self.idle_timeout, |time| time.min(self.idle_timeout));
        let until = Instant::now() + idle_timeout;
        if idle_timeout.is_zero() {
            return;
        }
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(READY_TIMEOUT, one.ready()).await {
                self.put(route, until, one);
            }
        });
    }

    /// Closes connections whose route `keep` rejects.
    pub fn retain(&self, keep: impl Fn(&Route) -> bool) {
        self.lock().idle.sweep(Instant::now(), keep);
    }

    /// Number of idle connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().idle.count()
    }

    fn put(self: Arc<Self>, route: Route, until: Instant, one: SendRequest<RequestBody>) {
        let mut inner = self.lock();
        inner.idle.put(route, until, one);
        let start = !std::mem::replace(&mut inner.sweeping, true);
        drop(inner);
        if start {
            tokio::spawn(self.sweep());
        }
    }

    /// Closes expired connections until the pool is empty.
    async fn sweep(self: Arc<Self>) {
        while let Some(next) = self.close_expired() {
            sleep_until(next).await;
        }
    }

    fn close_expired(&self) -> Option<Instant> {
        let mut inner = self.lock();
        let next = inner.idle.sweep(Instant::now(), |_| true);
        inner.sweeping = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose response is being read.
#[derive(Debug)]
pub struct Lease {
    pooled: Option<(Arc<Pool>, Route, SendRequest<RequestBody>)>,
    announced: Option<Duration>,
    upload: Option<Arc<UploadProgress>>,
}

impl Lease {
    #[must_use]
    pub fn new(
        pool: &Arc<Pool>,
        route: &Route,
        sender: SendRequest<RequestBody>,
        upload: Option<Arc<UploadProgress>>,
        response: &Response<Incoming>,
    ) -> Self {
        let headers = response.headers();
        let closes =
            headers.get_all(CONNECTION).iter().any(|value| headers::has_token(value.as_bytes(), "close"));
        let pooled = (!closes).then(|| (Arc::clone(pool), route.clone(), sender));
        Self { pooled, announced: headers::announced_keep_alive(headers), upload }
    }

    /// Returns the connection to the pool after a complete response.
    pub fn end(mut self) {
        if let Some((pool, route, sender)) = self.pooled.take() {
            pool.release(route, self.announced, sender);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.response_ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(user: &str, port: u16) -> Route {
        Route { os_user: user.to_owned(), port, uid: None }
    }

    #[test]
    fn the_most_recent_connection_of_the_same_user_and_port_is_reused() {
        let now = Instant::now();
        let later = now + Duration::from_secs(4);
        let mut idle = IdleConnections::new(2);
        for n in 1..=3 {
            idle.put(route("ann", 3773), later, n);
        }
        assert_eq!(idle.count(), 2, "bounded");
        for other in [route("bob", 3773), route("ann", 3774)] {
            assert_eq!(idle.take(&other, now, |_| true), None);
        }
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), Some(3));
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), Some(2), "the oldest was dropped");
        assert_eq!(idle.take(&route("ann", 3773), now, |_| true), None);
        let mut none = IdleConnections::new(0);
        none.put(route("ann", 3773), later, 1);
        assert_eq!(none.count(), 0);
    }

    #[test]
    fn closed_expired_and_removed_connections_are_dropped() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut idle = IdleConnections::new(9);
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
