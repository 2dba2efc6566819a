//! One HTTP request: who asks, where to, and the answer streamed back. Upgrades are handed on.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use t3_record::wire::Leg;

use crate::{
    app::App,
    headers,
    identity::{self, Refusal},
    table::Route,
    upgrade,
    upstream::{self, ConnectError},
};

/// A body streamed through, or an answer of our own.
pub type Body = Either<Incoming, Full<Bytes>>;

/// What is known of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The peer's address.
    pub ip: IpAddr,
    /// The socket.
    pub leg: Leg,
}

/// Answers one request.
pub async fn answer(app: Arc<App>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let (login, route) = match who(&app, peer.ip, &request) {
        Ok(found) => found,
        Err(refusal) => {
            tracing::warn!(peer = %peer.ip, path = request.uri().path(), "403: {refusal}");
            return plain(StatusCode::FORBIDDEN, &refusal.to_string());
        }
    };
    if headers::wants_websocket(request.headers()) {
        return upgrade::answer(app, peer, route, request).await;
    }
    let path = request.uri().path().to_owned();
    proxy(&app, peer, &route, request).await.unwrap_or_else(|error| {
        tracing::warn!(user = %route.os_user, %login, path, "{error}");
        error.answer()
    })
}

fn who(app: &App, peer: IpAddr, request: &Request<Incoming>) -> Result<(String, Route), Refusal> {
    let login = identity::login(request.headers(), peer, &app.trusted)?;
    let table = app.table();
    let route = table.route(login).ok_or_else(|| Refusal::Unknown(login.to_owned()))?;
    Ok((login.to_owned(), route.clone()))
}

#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("serve on port {0} did not answer as HTTP: {1}")]
    Http(u16, hyper::Error),
}

impl ProxyError {
    fn answer(&self) -> Response<Body> {
        match self {
            Self::Connect(ConnectError::Timeout(_)) => {
                plain(StatusCode::GATEWAY_TIMEOUT, "serve does not answer")
            }
            Self::Connect(_) => plain(StatusCode::BAD_GATEWAY, "serve is not there"),
            Self::Http(..) => plain(StatusCode::BAD_GATEWAY, "serve gave no proper answer"),
        }
    }
}

async fn proxy(
    app: &App,
    peer: Peer,
    route: &Route,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, ProxyError> {
    let (stream, _) = upstream::connect(route.port, &app.times).await?;
    headers::strip_hop_by_hop(request.headers_mut());
    prepare(&mut request, peer.ip);
    let http = |error| ProxyError::Http(route.port, error);
    let mut sender = upstream::http(stream).await.map_err(http)?;
    let mut response = sender.send_request(request.map(Either::Left)).await.map_err(http)?;
    headers::strip_hop_by_hop(response.headers_mut());
    Ok(response.map(Either::Left))
}

/// A request as serve should see it: origin form, HTTP/1.1, with the hop before us in its forwarding headers.
pub fn prepare<B>(request: &mut Request<B>, peer: IpAddr) {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = path.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    headers::forwarded(request.headers_mut(), peer);
}

/// An answer of our own.
#[must_use]
pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
