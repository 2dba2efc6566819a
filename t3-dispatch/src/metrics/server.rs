//! Metrics listener: one page, on a separate socket, so that clients of the proxy cannot reach it.
//!
//! It does not slow the proxy: pages are rendered on a blocking thread, and a connection carries
//! one request. Above the limit, the connection that has been silent for longest is closed:
//! connections without a request do not lock out Prometheus, which sends its request immediately.

use std::{
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

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
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{Metrics, gauges::Gauges, page};

/// Maximum number of open connections. One Prometheus needs one.
const MAX_CONNECTIONS: usize = 32;
/// Timeout for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for a complete connection; the default scrape timeout of Prometheus is 10 s.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Value of `--metrics-listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenOption {
    /// No listener.
    Off,
    At(SocketAddr),
}

impl FromStr for ListenOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address
                .parse()
                .map(Self::At)
                .map_err(|_| format!("expected ADDR:PORT or off, got {address:?}")),
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

/// Error of binding the metrics address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics: {source}; see --metrics-listen")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Binds the listener if enabled. Warns when other hosts can reach it.
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
        tracing::warn!(
            "{address} is not a loopback address: every host that can connect can read the metrics"
        );
    }
    Ok(Some(listener))
}

/// Renders the page.
type Render = dyn Fn() -> prometheus::Result<String> + Send + Sync;

/// Serves the page until the process exits, so that a drain can be monitored, too.
pub async fn serve(
    metrics: Arc<Metrics>,
    gauges: impl Fn() -> Gauges + Send + Sync + 'static,
    listener: TcpListener,
) {
    let render: Arc<Render> = Arc::new(move || page::render(&metrics, &gauges()));
    let mut open = OpenConnections::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        if !open.make_room() {
            continue;
        }
        let render = Arc::clone(&render);
        let has_request = Arc::new(AtomicBool::new(false));
        let connection = connection(render, stream, Arc::clone(&has_request));
        // A slow reader is disconnected.
        let task = tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
        });
        open.0.push((has_request, task.abort_handle()));
    }
}

/// Open connections, the oldest first, and whether each has sent a request.
#[derive(Default)]
struct OpenConnections(Vec<(Arc<AtomicBool>, AbortHandle)>);

impl OpenConnections {
    /// Returns whether there is room for another one, at the expense of a silent one if necessary.
    fn make_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < MAX_CONNECTIONS {
            return true;
        }
        let silent = self.0.iter().position(|(has_request, _)| !has_request.load(Ordering::Relaxed));
        let Some(silent) = silent else { return false };
        self.0.remove(silent).1.abort();
        true
    }
}

async fn connection(render: Arc<Render>, stream: TcpStream, has_request: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        has_request.store(true, Ordering::Relaxed);
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
        tracing::debug!("metrics connection failed: {error}");
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
    fn the_value_is_an_address_or_off() {
        for text in ["off", "127.0.0.1:9780", "[::1]:0"] {
            assert_eq!(text.parse::<ListenOption>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "OFF", "9780", "localhost:9780", "127.0.0.1"] {
            assert!(text.parse::<ListenOption>().is_err(), "{text:?}");
        }
    }
}
