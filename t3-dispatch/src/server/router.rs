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
    routing::identity::{self, Refusal},
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
        Err(refusal) => {
            record_rejection(&app, peer.ip, &refusal, request.uri().path());
            return plain(StatusCode::FORBIDDEN, &refusal.to_string());
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

fn identify(app: &App, peer: IpAddr, headers: &HeaderMap) -> Result<ClientIdentity, Refusal> {
    let login = identity::login(headers, peer, &app.trusted)?;
    let table = app.table();
    let route = table.route(login).ok_or_else(|| Refusal::Unknown(login.to_owned()))?;
    Ok(ClientIdentity { login: login.to_owned(), route: route.clone() })
}

fn record_rejection(app: &App, peer: IpAddr, refusal: &Refusal, path: &str) {
    let network = rejections::network(peer);
    let (why, who) = match refusal {
        Refusal::Untrusted(_) => (RejectReason::Peer, network.as_str()),
        Refusal::Nobody | Refusal::Unclear => (RejectReason::Identity, network.as_str()),
        Refusal::Unknown(login) => (RejectReason::Identity, login.as_str()),
    };
    app.rejections.record(why, who, format_args!("403: {refusal} (path {path:?})"));
}
