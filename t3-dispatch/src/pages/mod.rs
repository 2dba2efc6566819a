//! Pages that t3-dispatch serves itself: health check, probe echo and PWA manifest.
//!
//! They are served before the identity check, to every peer that can connect, because a probe has
//! no identity; so they contain no user data and do not reach serve.

mod echo;
pub mod pwa;

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::echo::ProbeEcho;
use crate::response::{body::ResponseBody, text::plain};

/// Settings of these pages.
#[derive(Debug)]
pub struct Pages {
    pub echo: Arc<ProbeEcho>,
    /// Pages can be installed as an app.
    pub pwa: bool,
}

/// Responds to a request for one of these pages; `None` for any other path.
pub fn answer(pages: &Pages, request: &mut Request<Incoming>) -> Option<Response<ResponseBody>> {
    let page: fn(&Pages, &mut Request<Incoming>) -> Response<ResponseBody> = match request.uri().path() {
        "/healthz" | "/probe/healthz" => |_, _| healthy(),
        "/probe/ws" => |pages, request| echo::answer(&pages.echo, request),
        pwa::MANIFEST_PATH if pages.pwa => |_, _| manifest(),
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    Some(page(pages, request))
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
