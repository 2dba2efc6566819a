//! One HTTP request: who sent it, and which part of dispatch answers it.

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

/// Answers one request. Each step either answers it or hands it on.
pub async fn answer(app: Arc<App>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // 1. Pages of our own that need no identity.
    if let Some(page) = pages::answer(&app.pages, &mut request) {
        return page;
    }
    // 2. Who asks.
    let asker = match who(&app, peer.ip, request.headers()) {
        Ok(asker) => asker,
        Err(refusal) => {
            turned_away(&app, peer.ip, &refusal, request.uri().path());
            return plain(StatusCode::FORBIDDEN, &refusal.to_string());
        }
    };
    // 3. WebSockets.
    if headers::wants_websocket(request.headers()) {
        return websocket::answer(Arc::clone(&app.websocket), peer, asker.route, request).await;
    }
    // 4. Pairing.
    if let Some(pairing) = &app.pairing
        && let Some(answer) =
            pairing::answer(pairing, peer.ip, &asker.route, request.method(), request.headers()).await
    {
        return answer;
    }
    // 5. Everything else goes to serve as it is.
    http::forward(&app.forwarder, peer, &asker, request).await
}

fn who(app: &App, peer: IpAddr, headers: &HeaderMap) -> Result<ClientIdentity, Refusal> {
    let login = identity::login(headers, peer, &app.trusted)?;
    let table = app.table();
    let route = table.route(login).ok_or_else(|| Refusal::Unknown(login.to_owned()))?;
    Ok(ClientIdentity { login: login.to_owned(), route: route.clone() })
}

fn turned_away(app: &App, peer: IpAddr, refusal: &Refusal, path: &str) {
    let network = rejections::network(peer);
    let (why, who) = match refusal {
        Refusal::Untrusted(_) => (RejectReason::Peer, network.as_str()),
        Refusal::Nobody | Refusal::Unclear => (RejectReason::Identity, network.as_str()),
        Refusal::Unknown(login) => (RejectReason::Identity, login.as_str()),
    };
    app.rejections.record(why, who, format_args!("403: {refusal} (path {path:?})"));
}
