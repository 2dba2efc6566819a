//! Pages that t3-dispatch serves itself: health check, probe echo and PWA manifest.
//!
//! They are served before the identity check, to every peer that can connect, because a probe has
//! no identity; so they contain no user data and do not reach serve.

mod echo;
pub mod probe_token;
pub mod pwa;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::echo::{ProbeEcho, ProbeSettings};
use crate::{
    admission::client::Client,
    response::{body::ResponseBody, text::plain},
};

/// Settings of these pages.
#[derive(Debug)]
pub struct Pages {
    pub echo: Arc<ProbeEcho>,
    /// Pages can be installed as an app.
    pub pwa: bool,
}

/// Responds to a request for one of these pages; `None` for any other path. `client` returns the
/// client of the request.
pub fn answer(
    pages: &Pages,
    client: impl FnOnce(&HeaderMap) -> Client,
    request: &mut Request<Incoming>,
) -> Option<Response<ResponseBody>> {
    enum Page {
        Health,
        Probe,
        Manifest,
    }
    let page = match request.uri().path() {
        "/healthz" | "/probe/healthz" => Page::Health,
        "/probe/ws" => Page::Probe,
        pwa::MANIFEST_PATH if pages.pwa => Page::Manifest,
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    Some(match page {
        Page::Health => healthy(),
        Page::Probe => {
            let client = client(request.headers());
            echo::answer(&pages.echo, client, request)
        }
        Page::Manifest => manifest(),
    })
}

fn healthy() -> Response<ResponseBody> {
    let mut response = plain(StatusCode::OK, "ok");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn manifest() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(pwa::MANIFEST));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/manifest+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
