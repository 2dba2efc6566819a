//! From a leg to a stream: address, TCP, TLS. Each step says that it begins, so that a disconnect
//! names the phase.
//!
//! [`Dial`] is the seam: everything above it runs on any stream, in memory as well.

mod doh;
mod tls;

pub use tls::{Roots, RootsError, client as tls_client};

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use t3_record::probe::{Phase, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};

use crate::{
    leg::{Address, Leg},
    progress::{Failure, Progress},
};

/// Establishes the transport of a leg.
pub trait Dial: Send + Sync {
    /// What comes of it.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Establishes it. The caller bounds the time.
    fn dial(
        &self,
        leg: &Leg,
        progress: &Progress,
    ) -> impl Future<Output = Result<Self::Stream, Failure>> + Send;
}

/// The real network.
#[derive(Debug, Clone)]
pub struct Network {
    tls: Arc<ClientConfig>,
}

impl Network {
    /// With these TLS settings.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    async fn resolve(&self, leg: &Leg) -> Result<SocketAddr, Failure> {
        let (host, port) = leg.authority();
        match &leg.address {
            Address::Pinned(address) => Ok(*address),
            Address::Doh(endpoint) => {
                let ip = doh::resolve(endpoint, host, &self.tls)
                    .await
                    .map_err(|error| Failure::new(Reason::ConnectFailed, &error))?;
                Ok(SocketAddr::from((ip, port)))
            }
            Address::System => tokio::net::lookup_host((host, port))
                .await
                .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::NotFound.into()))
                .map_err(|error| Failure {
                    reason: Reason::ConnectFailed,
                    detail: format!("look up {host}: {error}"),
                }),
        }
    }
}

impl Dial for Network {
    type Stream = Stream;

    async fn dial(&self, leg: &Leg, progress: &Progress) -> Result<Stream, Failure> {
        progress.begin(Phase::Dns);
        let address = self.resolve(leg).await?;
        progress.address(address);
        progress.begin(Phase::Tcp);
        let tcp = tcp(address).await.map_err(|error| Failure {
            reason: Reason::ConnectFailed,
            detail: format!("connect to {address}: {error}"),
        })?;
        if !leg.tls() {
            return Ok(Stream::Plain(tcp));
        }
        progress.begin(Phase::Tls);
        let (host, _) = leg.authority();
        let tls = tls::handshake(&self.tls, host, tcp).await.map_err(|error| Failure {
            reason: Reason::ConnectFailed,
            detail: format!("TLS with {host} at {address}: {error}"),
        })?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A stream with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
