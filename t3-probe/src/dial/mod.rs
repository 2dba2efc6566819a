//! Connection of a leg: address, TCP, TLS. Each phase is reported, so that a disconnect names it.
//!
//! [`Dial`] lets the rest of the crate run on any stream, for example in memory.

mod doh;

use std::{future::Future, net::SocketAddr};

use t3_http_client::{HttpClient, HttpError, Stream, tcp};
use t3_record::probe::{Phase, Reason};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    leg::{Address, Leg},
    progress::{Failure, Progress},
};

/// Establishes the connection of a leg.
pub trait Dial: Send + Sync {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects. The caller bounds the time.
    fn dial(
        &self,
        leg: &Leg,
        progress: &Progress,
    ) -> impl Future<Output = Result<Self::Stream, Failure>> + Send;
}

/// The real network.
#[derive(Debug, Clone)]
pub struct Network {
    client: HttpClient,
}

impl Network {
    /// A network with the TLS settings of `client`.
    #[must_use]
    pub fn new(client: HttpClient) -> Self {
        Self { client }
    }

    async fn resolve(&self, leg: &Leg) -> Result<SocketAddr, Failure> {
        let endpoint = leg.endpoint();
        let (host, port) = (endpoint.host, endpoint.port);
        match &leg.address {
            Address::Pinned(address) => Ok(*address),
            Address::Doh(resolver) => {
                let ip = doh::resolve(&self.client, resolver, host)
                    .await
                    .map_err(|error| Failure::new(Reason::ConnectFailed, &error))?;
                Ok(SocketAddr::from((ip, port)))
            }
            Address::System => tokio::net::lookup_host((host, port))
                .await
                .and_then(|mut found| found.next().ok_or_else(|| std::io::ErrorKind::NotFound.into()))
                .map_err(|error| Failure {
                    reason: Reason::ConnectFailed,
                    detail: format!("cannot resolve {host}: {error}"),
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
        let failed = |error: HttpError| {
            let text = match error {
                HttpError::Connect(error) => format!("cannot connect to {address}: {error}"),
                HttpError::Tls(error) => {
                    format!("cannot set up TLS with {} at {address}: {error}", leg.endpoint().host)
                }
                error => error.to_string(),
            };
            Failure::with_text(Reason::ConnectFailed, &text)
        };
        progress.begin(Phase::Tcp);
        let stream = tcp(address).await.map_err(failed)?;
        if leg.endpoint().tls {
            progress.begin(Phase::Tls);
        }
        self.client.secure(&leg.endpoint(), stream).await.map_err(failed)
    }
}
