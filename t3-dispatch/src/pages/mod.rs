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

pub use self::echo::Probes;
use crate::{
    response::{body::ResponseBody, text::plain},
    server::app::App,
};

/// Answers a request for one of our own pages; `None` when it is for none of them.
pub fn answer(app: &Arc<App>, request: &mut Request<Incoming>) -> Option<Response<ResponseBody>> {
    let page: fn(&Arc<App>, &mut Request<Incoming>) -> Response<ResponseBody> = match request.uri().path() {
        "/healthz" | "/probe/healthz" => |_, _| healthy(),
        "/probe/ws" => echo::answer,
        pwa::MANIFEST_PATH if app.install => |_, _| manifest(),
        _ => return None,
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    Some(page(app, request))
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
