//! Listening sockets and accept loop. Sockets passed by systemd (sd_listen_fds(3)) take precedence
//! over the address.
//!
//! A connection above a limit is answered and closed (--max-connections and others). A failed
//! accept does not end the process: without free descriptors the loop waits and tries again.
#![expect(unsafe_code, reason = "descriptors passed by systemd come as numbers")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{
    admission::client::Client,
    fd_store::{descriptors::STATE, slot},
    metrics::reject_reason::RejectReason,
    server::{
        app::App,
        connection::{self, Accepted, ConnectionCount},
        overload,
    },
    sys::{
        bind::{adopt, bind},
        descriptors::{self, Purpose},
        inherited_options::InheritedOptions,
        peer_owner::{self, PeerEnd},
        socket_owner,
    },
};

const OUT_OF_RESOURCES_WAIT: Duration = Duration::from_millis(100);

/// Error of [`sockets`].
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    #[error("cannot use the sockets passed by systemd: {0}")]
    Passed(io::Error),
}

/// Sockets passed by systemd.
#[derive(Debug, Default)]
pub struct Passed {
    pub tcp: Vec<TcpListener>,
    /// For lookups of the owners of sockets (`t3-dispatch-diag.socket`).
    pub sock_diag: Option<OwnedFd>,
    /// State of the sessions of the process before.
    pub state: Option<OwnedFd>,
    /// Sockets of its sessions, with their names in the descriptor store.
    pub legs: Vec<(String, OwnedFd)>,
    /// Names of other descriptors in the store, which are closed.
    pub foreign: Vec<String>,
}

/// Returns the passed listeners, or else one bound to `address`.
///
/// # Errors
/// [`ListenError`].
pub fn sockets(passed: Vec<TcpListener>, address: SocketAddr) -> Result<Vec<TcpListener>, ListenError> {
    if !passed.is_empty() {
        return Ok(passed);
    }
    bind(address).map(|listener| vec![listener]).map_err(|error| ListenError::Bind(address, error))
}

/// Returns the sockets passed by systemd. To be called once, at the start.
///
/// # Errors
/// [`ListenError::Passed`] for a socket of another kind.
pub fn passed() -> Result<Passed, ListenError> {
    let mut passed = Passed::default();
    for (fd, name) in sd_notify::listen_fds_with_names().map_err(ListenError::Passed)? {
        // SAFETY: LISTEN_PID names this process, so the descriptor is open, and nothing else in
        // this process owns it: this runs once, at the start.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        if socket_owner::is_sock_diag(&socket) {
            passed.sock_diag = Some(socket);
            continue;
        }
        if name == STATE {
            passed.state = Some(socket);
            continue;
        }
        let socket = Socket::from(socket);
        if slot::is_name(&name) && is_tcp(&socket) && !matches!(socket.is_listener(), Ok(true)) {
            passed.legs.push((name, socket.into()));
            continue;
        }
        if !is_listening_tcp(&socket) {
            // Wrong in a socket unit, it is an error of the configuration. In the descriptor store,
            // which a restart keeps, it would be an error at every start.
            if !is_of_socket_unit(&name) {
                tracing::warn!("closing descriptor {fd} named {name:?}: not a listening TCP socket");
                passed.foreign.push(name);
                continue;
            }
            let text = format!(
                "descriptor {fd} is not a listening TCP socket; set ListenStream= and Accept=no in the unit"
            );
            return Err(ListenError::Passed(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        if matches!(socket.protocol(), Ok(Some(Protocol::MPTCP))) {
            tracing::warn!(
                "descriptor {fd} is an MPTCP socket: connections over MPTCP have no TCP_USER_TIMEOUT, and \
                 their records lack kernel evidence of the client; remove SocketProtocol=mptcp from the unit"
            );
        }
        passed.tcp.push(adopt(socket.into()).map_err(ListenError::Passed)?);
    }
    Ok(passed)
}

fn is_tcp(socket: &Socket) -> bool {
    matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6)) && matches!(socket.r#type(), Ok(Type::STREAM))
}

/// Whether a name is that of a socket unit (systemd.socket(5), `FileDescriptorName=`), or unknown.
fn is_of_socket_unit(name: &str) -> bool {
    name.ends_with(".socket") || name == "unknown" || name.is_empty()
}

fn is_listening_tcp(socket: &Socket) -> bool {
    is_tcp(socket) && matches!(socket.is_listener(), Ok(true))
}

/// Accepts connections until the shutdown.
pub async fn accept(app: Arc<App>, listener: TcpListener) {
    let mut failing = false;
    let mut options = InheritedOptions::set(&listener, app.timeouts.legs);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.shutdown.wait() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                let is_prepared = options.has(&stream);
                admit(&app, stream, peer, is_prepared);
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::error!("cannot accept connections: {error}; retrying");
                    failing = true;
                }
                sleep(OUT_OF_RESOURCES_WAIT).await;
            }
        }
    }
}

/// Serves a connection, or refuses it above a limit. `is_prepared`: it has the options of
/// [`tcp::prepare`](crate::sys::tcp::prepare).
fn admit(app: &Arc<App>, stream: TcpStream, peer: SocketAddr, is_prepared: bool) {
    let ip = peer.ip().to_canonical();
    if !descriptors::leaves_reserve(&stream, Purpose::Client) {
        let text = "too few free file descriptors; raise LimitNOFILE=";
        let client = Client::Address(ip);
        return refuse(app, stream, client, RejectReason::Descriptors, StatusCode::SERVICE_UNAVAILABLE, text);
    }
    // Before the task: a shutdown that begins now waits for this connection.
    let count = ConnectionCount::new(app);
    let app = Arc::clone(app);
    tokio::spawn(async move {
        // Fails only for what is not a socket.
        let Ok(local) = stream.local_addr() else { return };
        // A local peer is trusted by its user, which is looked up once per connection.
        let PeerEnd { owner, queued } = peer_owner::of(&app.sockets, &stream, local, peer).await;
        let trusted = app.trust.hops.check_peer(ip, owner).is_ok();
        let client = Client::of(ip, owner);
        match app.quota.acquire(client, trusted) {
            Ok(permit) => {
                let accepted = Accepted { stream, local, remote: peer, owner, queued, trusted, is_prepared };
                connection::serve(app, accepted, (permit, count)).await;
            }
            Err(why) => refuse(&app, stream, client, why.reason(), overload::status(why), &why.to_string()),
        }
    });
}

fn refuse(
    app: &App,
    stream: TcpStream,
    client: Client,
    reason: RejectReason,
    status: StatusCode,
    text: &str,
) {
    let line = format_args!("{}: {text}", status.as_u16());
    app.rejections.record(reason, &client.to_string(), line);
    app.refuser.refuse(stream, status, text);
}

/// Errors of the accepted connection, not of the listener (accept(2), "Error handling").
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPERM
        )
    )
}
