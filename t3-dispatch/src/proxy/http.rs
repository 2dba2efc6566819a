//! One HTTP request to a user's serve and its answer back, both streamed. Whatever goes wrong
//! becomes an answer that says so, with an id.
//!
//! A request is sent again only when that can do no harm: when it was never sent, or when it asks
//! for nothing to be done and serve closed the connection instead of answering. What cannot be sent
//! again gets a fresh connection, which serve is not about to close.

use std::{error::Error as _, io, sync::Arc, time::Duration};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{EXPECT, TRANSFER_ENCODING},
};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::SendRequest,
};

use crate::{
    http::{guard, headers, peer::Peer, request_id},
    metrics::{self, Metrics, Upstream},
    pages::pwa,
    proxy::request::{self, ClientIdentity},
    response::{body::ResponseBody, refused::refused, text::plain},
    routing::table::Route,
    settings::{HttpSettings, Timeouts},
    upstream::{
        connect::{self, ConnectError},
        pool::{Lease, Pool},
        request_body::{self, RequestBody, UploadProgress},
        response_check::proper,
    },
};

/// Why serve's answer could not be passed on.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("serve on port {0} closed the connection without a response: {1}")]
    Closed(u16, hyper::Error),
    #[error("serve on port {0} did not respond with HTTP: {1}")]
    Garbage(u16, hyper::Error),
    #[error("serve on port {0}: {1}")]
    Improper(u16, &'static str),
    #[error("serve on port {0} timed out after {1:?}")]
    Silent(u16, Duration),
    #[error("the client aborted its request: {0}")]
    Refused(guard::Refusal),
    #[error("the client disconnected before its request was complete")]
    Left,
}

impl ForwardError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Connect(ConnectError::Timeout(_)) | Self::Silent(..) => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(error) if error.is_ours() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Closed(..) | Self::Garbage(..) | Self::Improper(..) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Refused(why) => why.status(),
            Self::Left => StatusCode::BAD_REQUEST,
        }
    }

    /// For the client; the log has the rest.
    fn text(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Timeout(_)) | Self::Silent(..) => "t3 serve timed out",
            Self::Connect(error) if error.is_ours() => "t3-dispatch is out of resources",
            Self::Connect(_) => "cannot reach t3 serve; is it running?",
            Self::Closed(..) => "t3 serve closed the connection without a response",
            Self::Garbage(..) | Self::Improper(..) => "invalid response from t3 serve",
            Self::Refused(_) | Self::Left => "the request was aborted",
        }
    }
}

/// Forwards plain HTTP requests to serve.
pub struct HttpForwarder {
    pub pool: Arc<Pool>,
    pub metrics: Arc<Metrics>,
    pub http: HttpSettings,
    pub timeouts: Timeouts,
    /// Whether pages can be installed as an app.
    pub pwa: bool,
}

/// Asks serve and streams its answer back; what goes wrong becomes an answer, too.
pub async fn forward(
    forwarder: &HttpForwarder,
    peer: Peer,
    asker: &ClientIdentity,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let path = request.uri().clone();
    let id = request_id::given(request.headers());
    let page = if forwarder.pwa { pwa::ask(&mut request) } else { None };
    match (ask(forwarder, peer, &asker.route, request).await, page) {
        (Ok(response), Some(page)) => page.answer(response).await,
        (Ok(response), None) => response,
        (Err(error), _) => failed(forwarder, peer, asker, path.path(), id, &error),
    }
}

fn failed(
    forwarder: &HttpForwarder,
    peer: Peer,
    asker: &ClientIdentity,
    path: &str,
    id: Option<HeaderValue>,
    error: &ForwardError,
) -> Response<ResponseBody> {
    match error {
        ForwardError::Refused(why) => {
            forwarder.metrics.bad(why.status());
            refused(peer, *why)
        }
        _ => {
            let (id, status) = (request_id::or_fresh(id), error.status());
            let (user, login, code) = (&asker.route.os_user, &asker.login, status.as_u16());
            let word = id.to_str().unwrap_or_default();
            if matches!(error, ForwardError::Left) {
                tracing::debug!(%user, %login, path, id = word, "{error}");
            } else {
                tracing::warn!(%user, %login, path, id = word, "{code}: {error}");
            }
            let mut response = plain(status, &format!("{} (request {word})", error.text()));
            response.headers_mut().insert(request_id::HEADER, id);
            response
        }
    }
}

async fn ask(
    forwarder: &HttpForwarder,
    peer: Peer,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, ForwardError> {
    let (mut request, sent) = outgoing(request, peer, route.port);
    let repeatable = sent.is_none() && is_safe(request.method());
    let mut pooled = if repeatable { forwarder.pool.take(route) } else { None };
    loop {
        let reused = pooled.is_some();
        let mut sender = match pooled.take() {
            Some(sender) => {
                forwarder.metrics.upstream(Upstream::Reused);
                sender
            }
            None => connect(forwarder, route.port).await?,
        };
        let again = reused.then(|| copy(&request));
        let answer = sender.try_send_request(request);
        let answer = request_body::in_time(answer, sent.as_deref(), forwarder.http.response).await;
        match answer {
            None => return Err(ForwardError::Silent(route.port, forwarder.http.response)),
            Some(Ok(response)) => {
                let lease = Lease::new(&forwarder.pool, route, sender, sent, &response);
                return received(response, route.port, lease);
            }
            Some(Err(mut failed)) => match failed.take_message().or(again) {
                Some(unanswered) if reused && is_close(failed.error()) => request = unanswered,
                _ => return Err(failure(failed.into_error(), route.port)),
            },
        }
    }
}

/// Asking changes nothing at serve's (RFC 9110 section 9.2.1).
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A request without a body, once more.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// The request as serve gets it, and the state of its body if it has one.
fn outgoing(
    mut request: Request<Incoming>,
    peer: Peer,
    port: u16,
) -> (Request<RequestBody>, Option<Arc<UploadProgress>>) {
    headers::strip_hop_by_hop(request.headers_mut());
    request::prepare(&mut request, peer.ip);
    headers::ensure_host(request.headers_mut(), port);
    if request.body().is_end_stream() {
        // There is nothing to go on with.
        request.headers_mut().remove(EXPECT);
        return (request.map(|_| RequestBody::empty()), None);
    }
    if request.body().size_hint().exact().is_none() {
        // hyper sends a body of unknown length in chunks, but not with methods that rarely have
        // one.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let expects = headers::expects_continue(request.headers());
    let (parts, body) = request.into_parts();
    let (body, sent) = RequestBody::upload(body, expects);
    let mut request = Request::from_parts(parts, body);
    if expects {
        let sent = Arc::clone(&sent);
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                sent.agree();
            }
        });
    }
    (request, Some(sent))
}

async fn connect(forwarder: &HttpForwarder, port: u16) -> Result<SendRequest<RequestBody>, ForwardError> {
    let (stream, _) = forwarder.metrics.connected(connect::connect(port, &forwarder.timeouts).await)?;
    connect::http(stream).await.map_err(|error| ForwardError::Closed(port, error))
}

/// What hyper's error means.
fn failure(error: hyper::Error, port: u16) -> ForwardError {
    if error.is_user() {
        // Nothing of the request is made by us but its body, which is the client's.
        return match refusal(&error) {
            Some(why) => ForwardError::Refused(why),
            None => ForwardError::Left,
        };
    }
    if is_close(&error) { ForwardError::Closed(port, error) } else { ForwardError::Garbage(port, error) }
}

/// The guard's reason, somewhere beneath.
fn refusal(error: &hyper::Error) -> Option<guard::Refusal> {
    let mut source = error.source();
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(why) = io.and_then(|error| error.downcast_ref::<guard::Refusal>()) {
            return Some(*why);
        }
        source = error.source();
    }
    None
}

/// The connection was closed or reset and nothing of an answer came.
fn is_close(error: &hyper::Error) -> bool {
    !error.is_user() && !error.is_parse()
}

/// serve's answer as the client gets it.
fn received(
    response: Response<Incoming>,
    port: u16,
    lease: Lease,
) -> Result<Response<ResponseBody>, ForwardError> {
    let mut response = proper(response).map_err(|why| ForwardError::Improper(port, why))?;
    metrics::serves(&mut response);
    headers::strip_hop_by_hop(response.headers_mut());
    // What serve speaks is between serve and us.
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|body| ResponseBody::leased(body, lease)))
}
