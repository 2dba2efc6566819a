//! Request of t3-dispatch to a user's serve, on a separate connection: connect, send, read the head
//! and a body of bounded size.

use std::net::IpAddr;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response,
    header::{HOST, HeaderValue, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use crate::{
    http::headers,
    routing::table::Route,
    settings::Timeouts,
    sys::receive_buffer,
    upstream::{
        connect::{self, ConnectError},
        serve_owner::ServeOwners,
    },
};

/// Maximum size of a response head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Maximum size of a response body, in bytes.
const MAX_BODY: usize = 64 << 10;
const FORWARDED: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// serve of a user, and how it is reached.
#[derive(Clone, Copy)]
pub(super) struct Serve<'a> {
    pub route: &'a Route,
    pub timeouts: &'a Timeouts,
    pub owners: &'a ServeOwners,
}

/// Error of a request to serve.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The response was not HTTP, or the connection failed.
    #[error("serve on port {port} did not respond to {path}: {source}")]
    Http { port: u16, path: &'static str, source: hyper::Error },
}

/// Returns the headers that identify the browser to serve: Host, User-Agent and forwarding headers.
/// serve lists sessions by them.
pub(super) fn client_headers(browser: &HeaderMap, peer: IpAddr) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in [HOST, USER_AGENT].into_iter().chain(FORWARDED) {
        for value in browser.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers::forwarded(&mut headers, peer);
    headers
}

/// Sends a request and reads the head of the response.
pub(super) async fn send(
    serve: &Serve<'_>,
    path: &'static str,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, RequestError> {
    let port = serve.route.port;
    let failed = |source| RequestError::Http { port, path, source };
    *request.uri_mut() = http::Uri::from_static(path);
    if !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(&format!("127.0.0.1:{port}"))
    {
        request.headers_mut().insert(HOST, host);
    }
    let stream =
        connect::connect(serve.route, serve.timeouts, serve.owners, receive_buffer::SMALL).await?.stream;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        // The request reports the same error.
        let _ = connection.await;
    });
    sender.send_request(request).await.map_err(failed)
}

/// Reads a body; `None` when it is incomplete or longer than 64 KiB.
pub(super) async fn body(body: Incoming) -> Option<Bytes> {
    Limited::new(body, MAX_BODY).collect().await.ok().map(http_body_util::Collected::to_bytes)
}
