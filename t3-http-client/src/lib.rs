//! Small HTTP/1.1 client: one request per connection, the response read completely up to a limit.
//!
//! Follows no redirect, keeps no connection and sets no time limit: the caller bounds the time, and
//! dropping the future closes the connection. Log messages and errors never contain a header.

mod endpoint;
mod exchange;
mod stream;
mod tls;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, Uri};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::rustls::ClientConfig;

pub use endpoint::Endpoint;
pub use exchange::{exchange, exchange_body};
pub use stream::Stream;
pub use tls::RootsError;

/// A request without a usable response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The TLS handshake failed, certificate check included.
    #[error("cannot set up TLS: {0}")]
    Tls(std::io::Error),
    /// No HTTP response.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The response body is longer than the limit.
    #[error("the response is longer than {0} bytes")]
    TooLong(usize),
    /// The connection ended within the response body.
    #[error("the response is incomplete: {0}")]
    Incomplete(String),
}

/// TLS settings for connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
}

impl HttpClient {
    /// Trusts the certificates of the system (without a store, the public roots, which are built
    /// in) and those of `ca_file` (PEM).
    ///
    /// # Errors
    /// [`RootsError`] if the file cannot be used.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, RootsError> {
        Ok(Self { tls: tls::config(ca_file)? })
    }

    /// Connects to one of `addresses`, with TLS for a `https` or `wss` endpoint. Host name and
    /// certificate are those of the endpoint, whatever the address.
    ///
    /// # Errors
    /// [`HttpError::Connect`] or [`HttpError::Tls`].
    pub async fn connect(
        &self,
        endpoint: &Endpoint<'_>,
        addresses: impl ToSocketAddrs,
    ) -> Result<Stream, HttpError> {
        self.secure(endpoint, tcp(addresses).await?).await
    }

    /// Adds TLS to a connection if the endpoint asks for it.
    ///
    /// # Errors
    /// [`HttpError::Tls`].
    pub async fn secure(&self, endpoint: &Endpoint<'_>, stream: TcpStream) -> Result<Stream, HttpError> {
        if !endpoint.tls {
            return Ok(Stream::Plain(stream));
        }
        let stream = tls::handshake(&self.tls, endpoint.host, stream).await.map_err(HttpError::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Sends `request` to the host of `url`, resolved by the system resolver, and reads
    /// the response, up to `limit` bytes.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn send(
        &self,
        url: &Uri,
        request: Request<()>,
        limit: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        self.send_body(url, request.map(|()| Bytes::new()), limit).await
    }

    /// As [`Self::send`], for a request with a body.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn send_body(
        &self,
        url: &Uri,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let endpoint = Endpoint::of(url);
        let stream = self.connect(&endpoint, (endpoint.host, endpoint.port)).await?;
        exchange_body(stream, request, limit).await
    }
}

/// Connects without Nagle's algorithm.
///
/// # Errors
/// [`HttpError::Connect`].
pub async fn tcp(addresses: impl ToSocketAddrs) -> Result<TcpStream, HttpError> {
    let stream = TcpStream::connect(addresses).await.map_err(HttpError::Connect)?;
    stream.set_nodelay(true).map_err(HttpError::Connect)?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
