//! The listener that Prometheus reads from: one page, on a socket of its own, so that nobody who
//! reaches the proxy reaches it.
//!
//! Never in the proxy's way: pages are made on a thread that may block, connections are few, short
//! and carry one request, and those beyond the few are closed at once.

use std::{convert::Infallible, fmt, io, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{Metrics, gauges::Gauges, page};

/// Connections at once. One Prometheus needs one.
const MAX_CONNECTIONS: usize = 8;
/// For a request head to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection from its first to its last byte; Prometheus itself gives up after 10 s unless
/// told otherwise.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Where to listen, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenOption {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for ListenOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| {
                format!("{address:?} is neither an address with a port, like 127.0.0.1:9780, nor off")
            }),
        }
    }
}

impl fmt::Display for ListenOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// The address for metrics cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for metrics (--metrics-listen takes another address, or off): {source}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens, if it is to. Says so, and warns when others than this machine may read.
///
/// # Errors
/// [`BindError`].
pub fn bind(option: ListenOption) -> Result<Option<TcpListener>, BindError> {
    let ListenOption::At(address) = option else { return Ok(None) };
    let failed = |source| BindError { address, source };
    let listener = crate::sys::bind::bind(address).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics on http://{address}/metrics");
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!("{address} is not a loopback address: metrics can be read by whoever reaches it");
    }
    Ok(Some(listener))
}

/// Renders the page.
type Render = dyn Fn() -> prometheus::Result<String> + Send + Sync;

/// Answers until the process ends, so that a drain can be watched, too.
pub async fn serve(
    metrics: Arc<Metrics>,
    gauges: impl Fn() -> Gauges + Send + Sync + 'static,
    listener: TcpListener,
) {
    let render: Arc<Render> = Arc::new(move || page::render(&metrics, &gauges()));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let render = Arc::clone(&render);
        tokio::spawn(async move {
            // A reader that takes too long is cut off.
            let _ = timeout(CONNECTION_TIMEOUT, connection(render, stream)).await;
            drop(permit);
        });
    }
}

async fn connection(render: Arc<Render>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let render = Arc::clone(&render);
        async move { Ok::<_, Infallible>(answer(render, &request).await) }
    });
    let result = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!("connection for metrics: {error}");
    }
}

async fn answer(render: Arc<Render>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => metrics(render).await,
        "/" => text(StatusCode::OK, "t3-dispatch: metrics are at /metrics\n"),
        _ => text(StatusCode::NOT_FOUND, "not found; metrics are at /metrics\n"),
    }
}

async fn metrics(render: Arc<Render>) -> Response<Full<Bytes>> {
    match tokio::task::spawn_blocking(move || render()).await {
        Ok(Ok(page)) => {
            let mut response = Response::new(Full::from(page));
            let kind = HeaderValue::from_static(page::CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Ok(Err(error)) => {
            tracing::error!("cannot encode metrics: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics; see the log of t3-dispatch\n")
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_off() {
        for text in ["off", "127.0.0.1:9780", "[::1]:0"] {
            assert_eq!(text.parse::<ListenOption>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "OFF", "9780", "localhost:9780", "127.0.0.1"] {
            assert!(text.parse::<ListenOption>().is_err(), "{text:?}");
        }
    }
}
