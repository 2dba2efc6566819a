//! Router: identifies the user of a request and selects the component that answers it.

use std::{net::IpAddr, sync::Arc};

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use hyper::body::Incoming;

use crate::{
    admission::rejections,
    http::{headers, peer::Peer},
    metrics::reject_reason::RejectReason,
    pages, pairing,
    proxy::{http, request::ClientIdentity, websocket},
    response::{body::ResponseBody, refused::close, text::plain},
    routing::identity::{self, IdentityError},
    server::app::App,
};

const TOO_MANY_REQUESTS: &str = "too many requests of this user in flight; see --max-requests-per-user";

/// Answers one request. Each step answers it or passes it to the next one.
pub async fn answer(app: Arc<App>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // 1. Own pages that need no identity.
    let address = |headers: &HeaderMap| identity::client(headers, peer.ip, &app.trusted);
    if let Some(page) = pages::answer(&app.pages, address, &mut request) {
        return page;
    }
    // 2. Identity.
    let client = match identify(&app, peer.ip, request.headers()) {
        Ok(client) => client,
        Err(error) => {
            record_rejection(&app, peer.ip, &error, request.uri().path());
            let mut response = plain(StatusCode::FORBIDDEN, &error.to_string());
            if matches!(error, IdentityError::Untrusted(_)) {
                close(&mut response);
            }
            return response;
        }
    };
    // 3. WebSockets.
    if headers::wants_websocket(request.headers()) {
        return websocket::answer(Arc::clone(&app.websocket), peer, client.route, request).await;
    }
    // 4. Requests in flight of this user.
    let user = &client.route.os_user;
    let Ok(permit) = app.requests.acquire(user) else {
        let line = format_args!("429: {TOO_MANY_REQUESTS}");
        app.rejections.record(RejectReason::UserRequests, user, line);
        let mut response = plain(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
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
    if let Some(pairing) = &app.pairing
        && let Some(answer) =
            pairing::answer(pairing, peer.ip, &client.route, request.method(), request.headers()).await
    {
        return answer;
    }
    // 6. Everything else is forwarded to serve.
    http::forward(&app.forwarder, peer, client, request).await
}

fn identify(app: &App, peer: IpAddr, headers: &HeaderMap) -> Result<ClientIdentity, IdentityError> {
    let login = identity::login(headers, peer, &app.trusted)?;
    let table = app.table();
    let route = table.route(login).ok_or_else(|| IdentityError::UnknownLogin(login.to_owned()))?;
    Ok(ClientIdentity { login: login.to_owned(), route: route.clone() })
}

fn record_rejection(app: &App, peer: IpAddr, error: &IdentityError, path: &str) {
    let network = rejections::network(peer);
    let (why, who) = match error {
        IdentityError::Untrusted(_) => (RejectReason::Peer, network.as_str()),
        IdentityError::MissingName | IdentityError::InvalidName => (RejectReason::Identity, network.as_str()),
        IdentityError::UnknownLogin(login) => (RejectReason::Identity, login.as_str()),
    };
    app.rejections.record(why, who, format_args!("403: {error} (path {path:?})"));
}
