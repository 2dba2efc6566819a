//! Pages of dispatch's own: whether it lives, the echo that probes of the path talk to, and the
//! manifest of the standalone app.
//!
//! They are answered before anybody's identity is asked, to every peer that reaches the port,
//! because a prober has none; so they hold nothing of any user and reach no serve.

mod echo;
pub mod pwa;

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

pub use self::echo::ProbeEcho;
use crate::response::{body::ResponseBody, text::plain};

/// Pages that dispatch answers itself.
#[derive(Debug)]
pub struct Pages {
    pub echo: Arc<ProbeEcho>,
    /// Whether pages can be installed as an app.
    pub pwa: bool,
}

/// Answers a request for one of our own pages; `None` when it is for none of them.
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
