//! Address of the backend as the user types it, and the check that it can be used.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    str::FromStr,
    time::Duration,
};

use t3_trace_host::proc::net::{self, Row};

/// Timeout for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A WebSocket server on 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub port: u16,
    /// Path and query of the page to open, from `/`.
    pub path: String,
}

/// Reason why an address cannot be a backend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "URL: expected http://127.0.0.1:PORT, got a TLS address; give the plain HTTP port of the backend"
    )]
    Tls,
    #[error(
        "URL: expected http://127.0.0.1:PORT, got the host {0:?}; t3-dispatch connects to 127.0.0.1 only"
    )]
    Host(String),
    #[error("URL: expected http://127.0.0.1:PORT, got {0:?}")]
    Form(String),
}

/// Reason why a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("cannot connect to the backend at 127.0.0.1:{port}: {source}; start it first, or check the port")]
    Connect { port: u16, source: io::Error },
    #[error(
        "cannot connect to the backend at 127.0.0.1:{port}: it listens on [::1] only; start it on 127.0.0.1"
    )]
    Ipv6Only { port: u16 },
    #[error(
        "cannot find the listener of 127.0.0.1:{port} in /proc/self/net/tcp; it is in another network namespace"
    )]
    Hidden { port: u16 },
}

impl FromStr for Backend {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Form(text.to_owned());
        let rest = match text.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some(("https" | "wss", _)) => return Err(AddressError::Tls),
            Some(_) => return Err(form()),
            None => text,
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(form)?;
        if !["127.0.0.1", "localhost"].contains(&host) {
            return Err(AddressError::Host(host.to_owned()));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { port, path })
    }
}

impl Backend {
    /// Connects once. Returns the uid of the listener, which is the user that the routing table
    /// must name: t3-dispatch sends nothing to a listener of another user.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn check(&self) -> Result<u32, BackendError> {
        let port = self.port;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listeners = || net::listeners(std::process::id()).filter(|row| row.local.port() == port);
        if let Err(source) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            let is_other = listeners().next().is_some() && owner(listeners(), port).is_none();
            return Err(if is_other {
                BackendError::Ipv6Only { port }
            } else {
                BackendError::Connect { port, source }
            });
        }
        owner(listeners(), port).ok_or(BackendError::Hidden { port })
    }
}

/// uid of the socket that receives connections to 127.0.0.1: the exact address first.
fn owner(listeners: impl Iterator<Item = Row>, port: u16) -> Option<u32> {
    let (mut exact, mut any) = (None, None);
    for row in listeners.filter(|row| row.local.port() == port) {
        if row.local.ip() == Ipv4Addr::LOCALHOST {
            exact = exact.or(Some(row.uid));
        } else if row.local.ip().is_unspecified() {
            any = any.or(Some(row.uid));
        }
    }
    exact.or(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_users_type_them() {
        let backend = |port, path: &str| Ok(Backend { port, path: path.to_owned() });
        for (text, expected) in [
            ("http://127.0.0.1:8080", backend(8080, "/")),
            ("http://localhost:8080/chat?room=1", backend(8080, "/chat?room=1")),
            ("ws://127.0.0.1:3000/ws", backend(3000, "/ws")),
            ("127.0.0.1:3000", backend(3000, "/")),
            ("localhost:3000?x", backend(3000, "/?x")),
            ("https://127.0.0.1:8443", Err(AddressError::Tls)),
            ("http://192.0.2.1:80", Err(AddressError::Host("192.0.2.1".to_owned()))),
            ("http://[::1]:80", Err(AddressError::Host("[::1]".to_owned()))),
            ("http://127.0.0.1", Err(AddressError::Form("http://127.0.0.1".to_owned()))),
            ("http://127.0.0.1:0", Err(AddressError::Form("http://127.0.0.1:0".to_owned()))),
            ("ftp://127.0.0.1:21", Err(AddressError::Form("ftp://127.0.0.1:21".to_owned()))),
            ("", Err(AddressError::Form(String::new()))),
        ] {
            assert_eq!(text.parse::<Backend>(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_exact_address_comes_before_the_wildcard() {
        let row = |local: &str, uid| Row {
            local: local.parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            listening: true,
            uid,
            inode: 1,
        };
        let rows = [row("[::]:80", 7), row("[::1]:80", 8), row("127.0.0.1:80", 9), row("127.0.0.1:81", 10)];
        assert_eq!(owner(rows.into_iter(), 80), Some(9));
        assert_eq!(owner(rows.into_iter().take(2), 80), Some(7));
        assert_eq!(owner(rows.into_iter().skip(1).take(1), 80), None);
    }

    #[test]
    fn a_backend_of_this_process_is_found_and_a_missing_one_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let backend = Backend { port, path: "/".to_owned() };
        assert_eq!(backend.check().unwrap(), rustix::process::geteuid().as_raw());
        drop(listener);
        let error = backend.check().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot connect to the backend at 127.0.0.1:{port}: ")),
            "{error}"
        );
    }
}
