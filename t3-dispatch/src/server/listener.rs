//! The listening sockets and the accept loop. A socket passed by systemd (sd_listen_fds(3)) wins
//! over the address.
//!
//! Accepting never ends the process: when descriptors run out it waits for some to come back.
#![expect(unsafe_code, reason = "descriptors passed by systemd come as numbers")]

use std::{
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    server::{app::App, connection},
    sys::bind::{adopt, bind},
};

const OUT_OF_RESOURCES_WAIT: Duration = Duration::from_millis(100);

/// No socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// What systemd passed is of no use.
    #[error("cannot use the sockets passed by systemd: {0}")]
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
            // SAFETY: LISTEN_PID named this process, so the descriptor was opened for us, and
            // nobody else in this process owns it: this runs once, at the start.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
            if !is_listening_tcp(&socket) {
                let what = format!("descriptor {fd} is no listening TCP socket (ListenStream=, Accept=no)");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            adopt(socket.into())
        })
        .collect()
}

fn is_listening_tcp(socket: &Socket) -> bool {
    matches!(socket.domain(), Ok(Domain::IPV4 | Domain::IPV6))
        && matches!(socket.r#type(), Ok(Type::STREAM))
        && matches!(socket.is_listener(), Ok(true))
}

/// Accepts until the word to stop.
pub async fn accept(app: Arc<App>, listener: TcpListener) {
    let mut in_trouble = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.shutdown.wait() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                in_trouble = false;
                tokio::spawn(connection::serve(Arc::clone(&app), stream));
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

/// Errors of the connection that was to be accepted, not of the listener (accept(2), "Error
/// handling").
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
