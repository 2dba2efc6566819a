//! Owner of the process behind a serve port: a request, a cookie or a credential is sent only to a
//! socket that belongs to the user of the route.
//!
//! Two checks per connection. Before it, the listener: so that a foreign one is named as the cause,
//! also when it does not accept. After it, the socket at the other end: the listener can have
//! changed in between, and only the accepted socket, or the listener in whose queue the connection
//! still is, can read from it. Both are lookups of a few microseconds, so that nothing is cached.

use std::{
    collections::HashMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use crate::{
    routing::table::Route,
    sys::{
        socket_owner::{OVERFLOW_UID, SocketOwner, SocketOwners, State},
        tcp_info, users,
    },
};

/// Time for which the number of a user is kept.
const KEPT: Duration = Duration::from_secs(60);
/// The same for a name that does not exist.
const MISSING_KEPT: Duration = Duration::from_secs(5);

/// Error of a check; nothing was sent to the port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    #[error(
        "port {port} of {user} belongs to uid {uid}, not to {expected}: nothing was sent to it; stop that process, or set \"uid\" of the entry in the routing table"
    )]
    Foreign { user: String, port: u16, uid: u32, expected: u32 },
    #[error(
        "os_user {user} does not exist on this host, and port {port} belongs to uid {uid}: nothing was sent to it; set \"uid\" of the entry in the routing table"
    )]
    NoUser { user: String, port: u16, uid: u32 },
    #[error(
        "cannot see which user port {port} of {user} belongs to: t3-dispatch is in a user namespace; start t3-dispatch-diag.socket"
    )]
    Hidden { user: String, port: u16 },
    #[error(
        "cannot find the process behind port {port} of {user} in this network namespace; nothing was sent to it"
    )]
    Elsewhere { user: String, port: u16 },
    #[error("cannot look up the owner of port {port} of {user}: errno {errno}")]
    Lookup { user: String, port: u16, errno: i32 },
}

impl OwnerError {
    /// It was passed to the observer, which logs it.
    #[must_use]
    pub const fn is_reported(&self) -> bool {
        !matches!(self, Self::Lookup { .. })
    }

    /// uid of the process behind the port, if known.
    #[must_use]
    pub const fn uid(&self) -> Option<u32> {
        match self {
            Self::Foreign { uid, .. } | Self::NoUser { uid, .. } => Some(*uid),
            _ => None,
        }
    }
}

/// Receives each failed check.
type Observer = Arc<dyn Fn(&Route, &OwnerError) + Send + Sync>;

/// Checks owners of serve ports.
#[derive(Clone)]
pub struct ServeOwners(Arc<Inner>);

struct Inner {
    sockets: Arc<SocketOwners>,
    users: Mutex<HashMap<String, (Option<u32>, Instant)>>,
    observer: Observer,
}

impl fmt::Debug for ServeOwners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServeOwners").field(&self.0.sockets).finish()
    }
}

impl ServeOwners {
    /// Checks with these lookups; `observer` receives each failed check.
    #[must_use]
    pub fn new(sockets: Arc<SocketOwners>, observer: Observer) -> Self {
        Self(Arc::new(Inner { sockets, users: Mutex::default(), observer }))
    }

    /// Checks the listener on the port of a route; one that does not run is not foreign.
    ///
    /// # Errors
    /// It belongs to another user, or that cannot be excluded.
    pub async fn check_listener(&self, route: &Route) -> Result<(), OwnerError> {
        let found = self.listener(route)?;
        let Some(found) = found else { return Ok(()) };
        self.judge(route, found.uid, false).await
    }

    /// Checks the other end of a connection from `local` to a route's port. Returns its uid; `None`
    /// if serve has closed it.
    ///
    /// # Errors
    /// It belongs to another user, or that cannot be excluded.
    pub async fn check_connection(
        &self,
        route: &Route,
        stream: &TcpStream,
        local: SocketAddr,
    ) -> Result<Option<u32>, OwnerError> {
        let uid = self.connected_uid(route, stream, local)?;
        if let Some((uid, is_accepted)) = uid {
            self.judge(route, uid, is_accepted).await?;
        }
        Ok(uid.map(|(uid, _)| uid))
    }

    /// uid that can read from a connection, and whether a process has accepted it.
    ///
    /// A connection that is in an accept queue at the second lookup was in it at the lookup of the
    /// listener, too. So that listener was open, and no other one can have the address at the same
    /// time (net/ipv4/inet_connection_sock.c, `inet_csk_bind_conflict`).
    fn connected_uid(
        &self,
        route: &Route,
        stream: &TcpStream,
        local: SocketAddr,
    ) -> Result<Option<(u32, bool)>, OwnerError> {
        let lookup = |error| lookup_failed(route, &error);
        let peer = || self.0.sockets.peer(local, address(route)).map_err(lookup);
        let accepted = |peer: Option<SocketOwner>| peer.filter(|peer| peer.inode > 0);
        if let Some(peer) = accepted(peer()?) {
            return Ok(Some((peer.uid, true)));
        }
        let listener = self.listener(route)?;
        let peer = peer()?;
        if let Some(peer) = accepted(peer) {
            return Ok(Some((peer.uid, true)));
        }
        if let Some(listener) = listener {
            return Ok(Some((listener.uid, false)));
        }
        // Of a socket without a process nobody can read.
        let is_closed = peer.is_some_and(|peer| peer.state == State::Closing);
        if is_closed || !tcp_info::is_established(stream) {
            return Ok(None);
        }
        let elsewhere = OwnerError::Elsewhere { user: route.os_user.clone(), port: route.port };
        Err(self.failed(route, elsewhere))
    }

    fn listener(&self, route: &Route) -> Result<Option<SocketOwner>, OwnerError> {
        self.0.sockets.listener(address(route)).map_err(|error| lookup_failed(route, &error))
    }

    async fn judge(&self, route: &Route, uid: u32, is_accepted: bool) -> Result<(), OwnerError> {
        let (user, port) = (route.os_user.clone(), route.port);
        if route.uid == Some(uid) {
            return Ok(());
        }
        // A manager that listens for its user, like systemd, passes the socket on: the process that
        // accepts has the number of the user.
        let number = if route.uid.is_none() || is_accepted { self.uid_of(&user).await } else { None };
        if number == Some(uid) {
            return Ok(());
        }
        let error = match route.uid.or(number) {
            _ if uid == OVERFLOW_UID && !self.0.sockets.sees_all_users() => OwnerError::Hidden { user, port },
            Some(expected) => OwnerError::Foreign { user, port, uid, expected },
            None => OwnerError::NoUser { user, port, uid },
        };
        Err(self.failed(route, error))
    }

    fn failed(&self, route: &Route, error: OwnerError) -> OwnerError {
        (self.0.observer)(route, &error);
        error
    }

    /// Number of a user.
    async fn uid_of(&self, user: &str) -> Option<u32> {
        if let Some((uid, until)) = self.users().get(user).copied()
            && until > Instant::now()
        {
            return uid;
        }
        let name = user.to_owned();
        let uid = tokio::task::spawn_blocking(move || users::uid_of(&name)).await.ok().flatten();
        let now = Instant::now();
        let mut users = self.users();
        // Users of tables that were replaced.
        users.retain(|_, (_, until)| *until > now);
        users.insert(user.to_owned(), (uid, now + if uid.is_some() { KEPT } else { MISSING_KEPT }));
        uid
    }

    fn users(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Option<u32>, Instant)>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Address of serve.
#[must_use]
pub fn address(route: &Route) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, route.port))
}

fn lookup_failed(route: &Route, error: &std::io::Error) -> OwnerError {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    OwnerError::Lookup { user: route.os_user.clone(), port: route.port, errno }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    fn owners() -> (ServeOwners, Arc<AtomicUsize>) {
        let failures = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&failures);
        let observer = move |_: &Route, _: &OwnerError| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (ServeOwners::new(Arc::new(SocketOwners::new(None)), Arc::new(observer)), failures)
    }

    fn route(port: u16, os_user: &str, uid: Option<u32>) -> Route {
        Route { os_user: os_user.to_owned(), port, uid }
    }

    #[tokio::test]
    async fn a_listener_belongs_to_the_user_or_to_the_uid_of_the_entry() {
        let own = rustix::process::geteuid().as_raw();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (owners, failures) = owners();
        assert_eq!(owners.check_listener(&route(port, "no-such-user", Some(own))).await, Ok(()));
        if own == 0 {
            assert_eq!(owners.check_listener(&route(port, "root", None)).await, Ok(()));
        }
        assert_eq!(failures.load(Ordering::Relaxed), 0);
        let foreign = owners.check_listener(&route(port, "root", Some(own + 1))).await.unwrap_err();
        assert!(matches!(foreign, OwnerError::Foreign { uid, .. } if uid == own), "{foreign}");
        let unknown = owners.check_listener(&route(port, "no-such-user", None)).await.unwrap_err();
        assert!(matches!(unknown, OwnerError::NoUser { .. }), "{unknown}");
        assert_eq!(failures.load(Ordering::Relaxed), 2);
        drop(listener);
        assert_eq!(owners.check_listener(&route(port, "no-such-user", None)).await, Ok(()), "not running");
    }

    #[tokio::test]
    async fn a_connection_is_checked_before_and_after_it_is_accepted() {
        let own = rustix::process::geteuid().as_raw();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (owners, _) = owners();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let local = stream.local_addr().unwrap();
        let good = route(port, "no-such-user", Some(own));
        let bad = route(port, "no-such-user", Some(own + 1));
        assert_eq!(owners.check_connection(&good, &stream, local).await, Ok(Some(own)));
        assert!(owners.check_connection(&bad, &stream, local).await.is_err(), "in the queue");
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(owners.check_connection(&good, &stream, local).await, Ok(Some(own)));
        // The listener that follows is not the one that accepted.
        drop(listener);
        assert!(owners.check_connection(&bad, &stream, local).await.is_err(), "accepted");
        drop(accepted);
        assert_eq!(
            owners.check_connection(&bad, &stream, local).await,
            Ok(None),
            "no process can read from it"
        );
    }
}
