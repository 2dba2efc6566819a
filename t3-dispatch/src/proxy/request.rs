//! One HTTP request: who asks, where to, and the answer streamed back. Upgrades are handed on.

use std::{net::IpAddr, sync::Arc};

use ::http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::{
    admission::rejections,
    http::{headers, peer::Peer},
    metrics::reject_reason::RejectReason,
    pages, pairing,
    proxy::{http, websocket},
    response::{body::ResponseBody, text::plain},
    routing::{
        identity::{self, Refusal},
        table::Route,
    },
    server::app::App,
};

/// Who asks, and where that goes.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The login that the trusted proxy named.
    pub login: String,
    /// Its entry in the routing table.
    pub route: Route,
}

/// Answers one request. Each step either answers it or hands it on.
pub async fn answer(app: Arc<App>, peer: Peer, mut request: Request<Incoming>) -> Response<ResponseBody> {
    // 1. Pages of our own that need no identity.
    if let Some(page) = pages::answer(&app, &mut request) {
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
        return websocket::answer(app, peer, asker.route, request).await;
    }
    // 4. Pairing.
    if let Some(answer) =
        pairing::answer(&app, peer.ip, &asker.route, request.method(), request.headers()).await
    {
        return answer;
    }
    // 5. Everything else goes to serve as it is.
    http::forward(&app, peer, &asker, request).await
}

fn who(app: &App, peer: IpAddr, headers: &HeaderMap) -> Result<Asker, Refusal> {
    let login = identity::login(headers, peer, &app.trusted)?;
    let table = app.table();
    let route = table.route(login).ok_or_else(|| Refusal::Unknown(login.to_owned()))?;
    Ok(Asker { login: login.to_owned(), route: route.clone() })
}

fn turned_away(app: &App, peer: IpAddr, refusal: &Refusal, path: &str) {
    let network = rejections::network(peer);
    let (why, who) = match refusal {
        Refusal::Untrusted(_) => (RejectReason::Peer, network.as_str()),
        Refusal::Nobody | Refusal::Unclear => (RejectReason::Identity, network.as_str()),
        Refusal::Unknown(login) => (RejectReason::Identity, login.as_str()),
    };
    app.refusals.tell(why, who, format_args!("403: {refusal} (path {path:?})"));
}

/// A request as serve should see it: origin form, HTTP/1.1, with the hop before us in its
/// forwarding headers.
pub fn prepare<B>(request: &mut Request<B>, peer: IpAddr) {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // Of a URL without a path only the query is left.
    let slash = if path.starts_with('/') { "" } else { "/" };
    if let Ok(uri) = format!("{slash}{path}").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_11;
    headers::forwarded(request.headers_mut(), peer);
}
