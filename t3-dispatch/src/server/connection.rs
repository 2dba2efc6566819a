//! One client's connection: the guard, then HTTP, request by request, until it ends or becomes a
//! WebSocket.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    http::{
        guard::{self, Exchanges, Guarded},
        peer::Peer,
    },
    response::{
        body::ResponseBody,
        refused::{close, refused},
    },
    server::{app::App, router},
    sys::tcp,
};

/// hyper takes a head out of its buffer when it is whole; the buffer has to hold the longest that
/// the guard lets through.
const BEYOND_A_HEAD: usize = 16 * 1024;
/// hyper finds room for so many fields without asking for memory.
const FIELDS_FOR_FREE: usize = 100;

/// Serves one connection until it ends or becomes a WebSocket.
pub async fn serve(app: Arc<App>, stream: TcpStream) {
    // Asked before anything can happen to the socket: this makes its cookie exist. Fails when the
    // peer is gone already.
    let Ok(leg) = tcp::leg(&stream) else { return };
    if tcp::prepare(&stream, &app.times.legs).is_err() {
        return;
    }
    let _open = Open::count(&app);
    let peer = Peer { ip: leg.remote.ip(), leg };
    let stream = Guarded::new(stream, app.http.limits, app.http.patience);
    let exchanges = stream.exchanges();
    let service = service_fn({
        let app = Arc::clone(&app);
        move |request| {
            let (app, exchanges) = (Arc::clone(&app), Arc::clone(&exchanges));
            async move { Ok::<_, Infallible>(exchange(app, peer, &exchanges, request).await) }
        }
    });
    let limits = app.http.limits;
    let mut http = http1::Builder::new();
    http.preserve_header_case(true)
        .title_case_headers(true)
        // serve's answers pass as they are; a date is its to add.
        .auto_date_header(false)
        .max_buf_size(limits.head_bytes + BEYOND_A_HEAD);
    if limits.fields > FIELDS_FOR_FREE {
        http.max_headers(limits.fields);
    }
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = app.shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = timeout(app.times.relay.going_away, connection) => match result {
                    Ok(result) => result,
                    Err(_) => return,
                },
                () = app.shutdown.wait_for_force() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %peer.ip, "HTTP connection: {error}");
    }
}

/// Counts a connection for as long as it speaks HTTP.
struct Open(Arc<App>);

impl Open {
    fn count(app: &Arc<App>) -> Self {
        app.connections.opened();
        Self(Arc::clone(app))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.closed();
    }
}

/// Answers one request, or the guard's stand-in for one.
async fn exchange(
    app: Arc<App>,
    peer: Peer,
    exchanges: &Arc<Exchanges>,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    // For observers of the client's end.
    request.extensions_mut().insert(Arc::clone(exchanges));
    let exchange = exchanges.begin();
    let mut response = match exchanges.refusal() {
        Some(why) if guard::is_stand_in(request.uri()) => {
            app.metrics.bad(why.status());
            refused(peer, why)
        }
        _ => router::answer(Arc::clone(&app), peer, request).await,
    };
    app.metrics.answered(&response);
    if exchanges.is_last() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The guard has let nothing through behind it.
        close(&mut response);
    }
    response.map(|body| body.during(exchange))
}
