//! Router: identifies the user of a request and selects the component that answers it.

use std::sync::Arc;

use ::http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{HOST, RETRY_AFTER},
};
use hyper::body::Incoming;

use crate::{
    admission::client::Client,
    http::{headers, peer::Peer},
    metrics::reject_reason::RejectReason,
    pages, pairing,
    proxy::{http, request::ClientIdentity, websocket},
    response::{body::ResponseBody, refused::close, text::plain},
    routing::{
        host,
        identity::{self, IdentityError, shortened},
        trust,
    },
    server::app::App,
};

const TOO_MANY_REQUESTS: &str = "too many requests of this user in flight; see --max-requests-per-user";

/// Answers one request. Each step answers it or passes it to the next one.
pub async fn answer(app: Arc<App>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // 1. Own pages that need no identity.
    let client = |headers: &HeaderMap| match app.trust.hops.check(peer.ip, peer.owner, headers) {
        Ok(()) => Client::Address(identity::client(headers, peer.ip, peer.owner, &app.trust)),
        Err(_) => Client::from(peer),
    };
    if let Some(page) = pages::answer(&app.pages, client, &mut request) {
        return page;
    }
    // 2. Own host names.
    if let Err(error) = host::check(&app.trust.hosts, request.uri(), request.headers()) {
        let line = format_args!("421: {error} (Host {:?})", host_of(request.headers()));
        app.rejections.record(RejectReason::Host, &Client::from(peer).to_string(), line);
        return plain(StatusCode::MISDIRECTED_REQUEST, &error.to_string());
    }
    // 3. Identity.
    let client = match identify(&app, peer, request.headers()) {
        Ok(client) => client,
        Err(error) => return rejected(&app, peer, &error, request.uri().path()),
    };
    // It is for t3-dispatch only.
    request.headers_mut().remove(trust::SECRET);
    // 4. WebSockets.
    if headers::wants_websocket(request.headers()) {
        return websocket::answer(Arc::clone(&app.websocket), peer, client, request).await;
    }
    // 5. Requests in flight of this user.
    let user = &client.route.os_user;
    let Ok(permit) = app.requests.acquire(user) else {
        let line = format_args!("429: {TOO_MANY_REQUESTS}");
        app.rejections.record(RejectReason::UserRequests, user, line);
        let mut response = plain(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        // Idle connections of this user would take those of others.
        close(&mut response);
        return response;
    };
    let response = answer_user(&app, peer, &client, request).await;
    response.map(|body| body.holding(permit))
}

/// Answers a request of a user.
async fn answer_user(
    app: &App,
    peer: Peer,
    client: &ClientIdentity,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    // 5. Pairing.
    if let Some(pairing) = &app.pairing {
        let line = pairing::RequestLine { method: request.method(), path: request.uri().path() };
        let answer =
            pairing::answer(pairing, peer.ip, client.ip, &client.route, line, request.headers()).await;
        if let Some(answer) = answer {
            return answer;
        }
    }
    // 6. Everything else is forwarded to serve.
    http::forward(&app.forwarder, peer, client, request).await
}

fn identify(app: &App, peer: Peer, headers: &HeaderMap) -> Result<ClientIdentity, IdentityError> {
    let trust = &app.trust;
    trust.hops.check(peer.ip, peer.owner, headers)?;
    let login = identity::login(headers)?;
    let table = app.table();
    Ok(ClientIdentity {
        login: login.to_owned(),
        route: identity::route(&table, login, &trust.login_domains)?.clone(),
        ip: identity::client(headers, peer.ip, peer.owner, trust),
    })
}

/// Counts and logs a request without an identity, and returns the response.
fn rejected(app: &App, peer: Peer, error: &IdentityError, path: &str) -> Response<ResponseBody> {
    let status = match error {
        IdentityError::InvalidName(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    let why = match error {
        IdentityError::Untrusted(_) => RejectReason::Peer,
        _ => RejectReason::Identity,
    };
    let who = match error {
        IdentityError::UnknownLogin(login) => shortened(login),
        _ => Client::from(peer).to_string(),
    };
    let (code, path) = (status.as_u16(), shortened(path));
    app.rejections.record(why, &who, format_args!("{code}: {error} (peer {}, path {path:?})", peer.ip));
    let mut response = plain(status, &error.to_string());
    if matches!(error, IdentityError::Untrusted(_)) {
        close(&mut response);
    }
    response
}

fn host_of(headers: &HeaderMap) -> String {
    headers.get(HOST).map(|host| shortened(&String::from_utf8_lossy(host.as_bytes()))).unwrap_or_default()
}
