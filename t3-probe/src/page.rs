//! HTTP pages: `/metrics` for Prometheus, `/healthz` for health checks, `/` as a text overview.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use crate::leg_states::LegStates;

/// Limit of concurrent connections.
const READERS: usize = 32;
/// Timeout for the request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after a failed accept (out of descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves the pages; does not return.
pub async fn serve(listener: TcpListener, states: Arc<LegStates>) {
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok(permit) = Arc::clone(&readers).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let states = Arc::clone(&states);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let answer = answer(request.method(), request.uri().path(), &states);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "metrics connection failed");
            }
            drop(permit);
        });
    }
}

fn answer(method: &Method, path: &str, states: &LegStates) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET or HEAD\n".to_owned());
    }
    match path {
        "/metrics" => match states.metrics.page() {
            Ok(page) => respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/" => text(StatusCode::OK, overview(states)),
        _ => text(StatusCode::NOT_FOUND, "not found; see /, /metrics and /healthz\n".to_owned()),
    }
}

fn overview(states: &LegStates) -> String {
    let mut page = String::new();
    let window = states.window.as_secs();
    for view in states.view() {
        let now = match view.up {
            Some(true) => "up",
            Some(false) => "down",
            None => "no attempt yet",
        };
        let _ = write!(page, "{:<16} {now}, in the last {window} s {}", view.leg.name, view.state);
        if let Some(rtt) = view.rtt {
            let _ = write!(page, ", RTT {:.0} ms", rtt.as_secs_f64() * 1000.0);
        }
        if let Some(disconnect) = view.last_disconnect {
            let _ = write!(
                page,
                "; last disconnect: {} in {}: {}",
                disconnect.reason, disconnect.phase, disconnect.detail
            );
        }
        page.push('\n');
    }
    let attribution = states.attribution();
    let _ = writeln!(page, "\nResult: {}\n{attribution}", attribution.place);
    page
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
