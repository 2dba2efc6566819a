//! A fresh connection to a user's serve on 127.0.0.1, ready for HTTP/1.1.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use t3_record::{evidence::OpenFailure, wire::Leg};
use tokio::{net::TcpStream, time::timeout};

use crate::{settings::Timeouts, sys::tcp, upstream::request_body::RequestBody};

/// Error of [`connect`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("timed out connecting to serve at {0}")]
    Timeout(SocketAddr),
    #[error("cannot connect to serve at {0}: {1}")]
    Io(SocketAddr, io::Error),
}

impl ConnectError {
    /// The cause is a local resource, not serve.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.failure(), OpenFailure::Local(_))
    }

    /// Returns the error as evidence.
    #[must_use]
    pub fn failure(&self) -> OpenFailure {
        match self {
            Self::Timeout(_) => OpenFailure::ConnectTimeout,
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

/// Connects to serve on `port` and sets the socket options.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(port: u16, timeouts: &Timeouts) -> Result<(TcpStream, Leg), ConnectError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |error| ConnectError::Io(address, error);
    let stream = timeout(timeouts.connect, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::Timeout(address))?
        .map_err(failed)?;
    let leg = tcp::leg(&stream).map_err(failed)?;
    tcp::prepare(&stream, &timeouts.legs).map_err(failed)?;
    Ok((stream, leg))
}

/// Starts HTTP/1.1 on a connection. It ends when the sender is dropped, or becomes the upgraded
/// stream.
///
/// # Errors
/// When the connection has already ended.
pub async fn http(stream: TcpStream) -> hyper::Result<SendRequest<RequestBody>> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake::<_, RequestBody>(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        // The request reports the same error.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
