//! Router: identifies the user of a request and selects the component that answers it.

use std::{net::IpAddr, sync::Arc};

use ::http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::{
    admission::rejections,
    http::{headers, peer::Peer},
    metrics::reject_reason::RejectReason,
    pages, pairing,
    proxy::{http, request::ClientIdentity, websocket},
    response::{body::ResponseBody, text::plain},
    routing::identity::{self, IdentityError},
    server::app::App,
};

/// Answers one request. Each step answers it or passes it to the next one.
pub async fn answer(app: Arc<App>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // 1. Own pages that need no identity.
    if let Some(page) = pages::answer(&app.pages, &mut request) {
        return page;
    }
    // 2. Identity.
    let client = match identify(&app, peer.ip, request.headers()) {
        Ok(client) => client,
        Err(error) => {
            record_rejection(&app, peer.ip, &error, request.uri().path());
            return plain(StatusCode::FORBIDDEN, &error.to_string());
        }
    };
    // 3. WebSockets.
    if headers::wants_websocket(request.headers()) {
        return websocket::answer(Arc::clone(&app.websocket), peer, client.route, request).await;
    }
    // 4. Pairing.
    if let Some(pairing) = &app.pairing
        && let Some(answer) =
            pairing::answer(pairing, peer.ip, &client.route, request.method(), request.headers()).await
    {
        return answer;
    }
    // 5. Everything else is forwarded to serve.
    http::forward(&app.forwarder, peer, &client, request).await
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
