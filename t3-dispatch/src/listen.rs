//! The listening sockets and the accept loop. A socket passed by systemd (sd_listen_fds(3)) wins over the address.
//!
//! Accepting never ends the process: when descriptors run out it waits for some to come back.
#![expect(unsafe_code, reason = "descriptors passed by systemd come as numbers")]

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    app::App,
    http_proxy::{self, Peer},
    tcp,
};

const BACKLOG: i32 = 4096;
const OUT_OF_RESOURCES_WAIT: Duration = Duration::from_millis(100);

/// No socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// What systemd passed is of no use.
    #[error("use the sockets passed by systemd: {0}")]
    Passed(io::Error),
}

/// Sockets passed by systemd, else one bound to `address`.
///
/// # Errors
/// [`ListenError`].
pub fn sockets(address: SocketAddr) -> Result<Vec<TcpListener>, ListenError> {
    let passed = passed().map_err(ListenError::Passed)?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    bind(address).map(|listener| vec![listener]).map_err(|error| ListenError::Bind(address, error))
}

fn passed() -> io::Result<Vec<TcpListener>> {
    sd_notify::listen_fds()?
        .map(|fd| {
            // SAFETY: LISTEN_PID named this process, so the descriptor was opened for us, nobody else in this process
            // owns it, and the variables that named it are gone now.
            let owned = unsafe { OwnedFd::from_raw_fd(fd) };
            adopt(owned.into())
        })
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] also takes IPv4, whatever the system's default says.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    adopt(socket.into())
}

fn adopt(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts until the word to stop.
pub async fn accept(app: Arc<App>, listener: TcpListener) {
    let mut in_trouble = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.stop.wait() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                in_trouble = false;
                tokio::spawn(connection(Arc::clone(&app), stream));
            }
            Err(error) if gone_already(&error) => {}
            Err(error) => {
                if !in_trouble {
                    tracing::error!("cannot accept connections for now: {error}");
                    in_trouble = true;
                }
                sleep(OUT_OF_RESOURCES_WAIT).await;
            }
        }
    }
}

/// Errors of the connection that was to be accepted, not of the listener (accept(2), "Error handling").
fn gone_already(error: &io::Error) -> bool {
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

/// Serves one connection until it ends or becomes a WebSocket.
async fn connection(app: Arc<App>, stream: TcpStream) {
    // Asked before anything can happen to the socket: this makes its cookie exist. Fails when the peer is gone already.
    let Ok(leg) = tcp::leg(&stream) else { return };
    if tcp::prepare(&stream, &app.times.legs).is_err() {
        return;
    }
    let peer = Peer { ip: leg.remote.ip(), leg };
    let service = service_fn({
        let app = Arc::clone(&app);
        move |request| {
            let app = Arc::clone(&app);
            async move { Ok::<_, std::convert::Infallible>(http_proxy::answer(app, peer, request).await) }
        }
    });
    let connection = http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        // serve's answers pass as they are; a date is its to add.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(app.times.idle)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = app.stop.wait() => {
            connection.as_mut().graceful_shutdown();
            match timeout(app.times.relay.farewell, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %peer.ip, "HTTP connection: {error}");
    }
}
