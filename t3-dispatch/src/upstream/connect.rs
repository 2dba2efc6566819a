//! A fresh connection to a user's serve on 127.0.0.1, ready for HTTP/1.1.

use std::{io, net::SocketAddr, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use t3_record::{
    evidence::{Listeners, OpenFailure},
    wire::Leg,
};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    routing::table::Route,
    settings::Timeouts,
    sys::{
        descriptors::{self, Purpose},
        listeners, tcp,
        timeout::timeout,
    },
    upstream::{
        request_body::RequestBody,
        serve_owner::{self, OwnerError, ServeOwners},
        serve_socket::ServeSocket,
    },
};

/// A connect that takes this long is not answered: a SYN to this host is answered immediately or
/// sent again after 1 s (RFC 6298 section 2.1).
const UNANSWERED: Duration = Duration::from_millis(300);
/// Limit of header fields of a response; their size is limited, too.
const RESPONSE_FIELDS: usize = 1_000;
/// Time after which the SYN was sent again.
const SYN_REPEATED: Duration = Duration::from_millis(1_100);

/// Overflows of accept queues before the SYN was sent again, and whether it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueOverflows {
    before: Option<u64>,
    is_syn_repeated: bool,
}

impl QueueOverflows {
    /// Whether a full accept queue dropped a SYN since; `None` if that is not known.
    fn since(self) -> Option<bool> {
        let more = listeners::overflows()? > self.before?;
        (more || self.is_syn_repeated).then_some(more)
    }
}

/// Maximum size of the head of serve's response, and of the buffers of an upload.
const MAX_HEAD: usize = 128 * 1024;

/// Error of [`connect`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("timed out connecting to serve at {0}")]
    Timeout(SocketAddr, QueueOverflows),
    #[error("cannot connect to serve at {0}: {1}")]
    Io(SocketAddr, io::Error),
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

impl ConnectError {
    /// The cause is a local resource, not serve.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.failure(), OpenFailure::Local(_))
    }

    /// uid of the process behind the port, if the connection was refused because of it.
    #[must_use]
    pub const fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Owner(error) => error.uid(),
            _ => None,
        }
    }

    /// Reads the listening sockets that explain the error, if they can. Reads files of procfs.
    pub async fn listeners(&self) -> Option<Listeners> {
        let (address, overflows) = match (self, self.failure()) {
            (Self::Timeout(address, overflows), _) => (*address, *overflows),
            (Self::Io(address, _), OpenFailure::Refused | OpenFailure::ConnectTimeout) => {
                (*address, QueueOverflows::default())
            }
            _ => return None,
        };
        let read = move || Some(Listeners { overflowed: overflows.since(), ..listeners::of(address)? });
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// Returns the error as evidence.
    #[must_use]
    pub fn failure(&self) -> OpenFailure {
        match self {
            Self::Timeout(..) => OpenFailure::ConnectTimeout,
            Self::Owner(OwnerError::Lookup { errno, .. }) => OpenFailure::Local(*errno),
            Self::Owner(_) => OpenFailure::ForeignListener,
            Self::Io(_, error) => match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => OpenFailure::Refused,
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => OpenFailure::Unreach,
                Some(libc::ETIMEDOUT) => OpenFailure::ConnectTimeout,
                Some(libc::ECONNRESET) => OpenFailure::HandshakeReset,
                Some(errno) => OpenFailure::Local(errno),
                None => OpenFailure::Local(libc::EIO),
            },
        }
    }
}

/// Connection to a serve.
#[derive(Debug)]
pub struct Connected {
    pub stream: TcpStream,
    pub leg: Leg,
    /// uid of the process behind it; `None` if it has already closed its end.
    pub uid: Option<u32>,
}

/// Connects to the serve of a route, checks that it belongs to the user, and sets the socket
/// options. `receive_buffer`: its size in bytes.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    route: &Route,
    timeouts: &Timeouts,
    owners: &ServeOwners,
    receive_buffer: u32,
) -> Result<Connected, ConnectError> {
    let address = serve_owner::address(route);
    owners.check_listener(route).await?;
    let failed = |error| ConnectError::Io(address, error);
    let socket = TcpSocket::new_v4().map_err(failed)?;
    if !descriptors::leaves_reserve(&socket, Purpose::Upstream) {
        return Err(failed(io::Error::from_raw_os_error(libc::EMFILE)));
    }
    // Before the connect, because it limits the window scale.
    socket.set_recv_buffer_size(receive_buffer).map_err(failed)?;
    let attempt = socket.connect(address);
    tokio::pin!(attempt);
    let first = timeouts.connect.min(UNANSWERED);
    let connected = match timeout(first, &mut attempt).await {
        Ok(connected) => connected,
        Err(_) => {
            let before = listeners::overflows();
            let rest = timeouts.connect.saturating_sub(first);
            let is_syn_repeated = timeouts.connect >= SYN_REPEATED;
            timeout(rest, attempt)
                .await
                .map_err(|_| ConnectError::Timeout(address, QueueOverflows { before, is_syn_repeated }))?
        }
    };
    let stream = connected.map_err(failed)?;
    let local = stream.local_addr().map_err(failed)?;
    let uid = owners.check_connection(route, &stream, local).await?;
    let leg = tcp::leg(&stream, local, address).map_err(failed)?;
    // No FIN was sent, so only an RST of serve has ended the connection.
    stream.peer_addr().map_err(|_| failed(io::Error::from_raw_os_error(libc::ECONNRESET)))?;
    tcp::prepare(&stream, &timeouts.legs).map_err(failed)?;
    Ok(Connected { stream, leg, uid })
}

/// Starts HTTP/1.1 on a connection. It ends when the sender is dropped, or becomes the upgraded
/// stream.
///
/// # Errors
/// When the connection has already ended.
pub async fn http(stream: TcpStream) -> hyper::Result<SendRequest<RequestBody>> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(RESPONSE_FIELDS)
        .max_buf_size(MAX_HEAD)
        .handshake::<_, RequestBody>(TokioIo::new(ServeSocket::new(stream)))
        .await?;
    tokio::spawn(async move {
        // The request reports the same error.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
