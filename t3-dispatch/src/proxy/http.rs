//! Forwards one HTTP request to a user's serve and streams the response. Errors become a response
//! with the request id.
//!
//! A request is retried only when that is safe: when it was not sent, or when its method is safe
//! and serve closed the connection without a response. Other requests use a new connection, because
//! serve may close an idle one at any time.

use std::{error::Error as _, io, sync::Arc, time::Duration};

use ::http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING},
};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::SendRequest,
};

use crate::{
    admission::{
        client::Client,
        rejections::{self, LogCause, Rejections},
    },
    http::{guard, headers, peer::Peer, request_id},
    metrics::{self, ConnectResult, Metrics},
    pages::pwa,
    proxy::request::{self, ClientIdentity},
    record::serve_versions::{self, LONGEST_ANSWER, ServeVersions},
    response::{
        body::ResponseBody,
        observed::Observed,
        refused::refused,
        text::{FOREIGN_LISTENER, plain},
    },
    routing::table::Route,
    settings::{HttpSettings, Timeouts},
    sys::{clock, receive_buffer},
    upstream::{
        connect::{self, ConnectError},
        pool::{Lease, Pool},
        request_body::{self, RequestBody, UploadProgress},
        response_check::check_framing,
        serve_owner::ServeOwners,
    },
};

/// Longest login or path in a log line, in characters.
const LONGEST_IN_LOG: usize = 128;

/// Error of a forwarded request.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("serve on port {0} closed the connection without a response: {1}")]
    Closed(u16, hyper::Error),
    #[error("serve on port {0} did not respond with HTTP: {1}")]
    NotHttp(u16, hyper::Error),
    #[error("serve on port {0}: {1}")]
    BadFraming(u16, &'static str),
    #[error("serve on port {0} timed out after {1:?}")]
    Timeout(u16, Duration),
    #[error("the client aborted its request: {0}")]
    Rejected(guard::Violation),
    #[error("the client disconnected before its request was complete")]
    ClientGone,
}

impl ForwardError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Connect(ConnectError::Timeout(..)) | Self::Timeout(..) => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(error) if error.is_local() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Closed(..) | Self::NotHttp(..) | Self::BadFraming(..) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Rejected(why) => why.status(),
            Self::ClientGone => StatusCode::BAD_REQUEST,
        }
    }

    /// Text for the client; the log has the details.
    fn text(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Timeout(..)) | Self::Timeout(..) => "t3 serve timed out",
            Self::Connect(error) if error.is_local() => "t3-dispatch is out of resources",
            Self::Connect(ConnectError::Owner(_)) => FOREIGN_LISTENER,
            Self::Connect(_) => "cannot reach t3 serve; is it running?",
            Self::Closed(..) => "t3 serve closed the connection without a response",
            Self::NotHttp(..) | Self::BadFraming(..) => "invalid response from t3 serve",
            Self::Rejected(_) | Self::ClientGone => "the request was aborted",
        }
    }
}

/// Forwards plain HTTP requests to serve.
pub struct HttpForwarder {
    pub pool: Arc<Pool>,
    pub metrics: Arc<Metrics>,
    /// Versions that serves report.
    pub versions: Arc<ServeVersions>,
    pub rejections: Arc<Rejections>,
    pub http: HttpSettings,
    pub timeouts: Timeouts,
    /// Pages get the tags of an installable app.
    pub pwa: bool,
    pub owners: ServeOwners,
}

/// Forwards a request to serve and returns its response, or a response for the error.
pub async fn forward(
    forwarder: &HttpForwarder,
    peer: Peer,
    client: &ClientIdentity,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let path = request.uri().clone();
    let id = request_id::given(request.headers());
    let page = if forwarder.pwa { pwa::prepare(&mut request) } else { None };
    let names_version = request.method() == Method::GET && path.path() == serve_versions::PATH;
    let sent = send(forwarder, peer, &client.route, request).await;
    match (sent, page) {
        (Ok(response), _) if names_version && is_plain_json(&response) => {
            read_version(&forwarder.versions, &client.route, response)
        }
        (Ok(response), Some(page)) => page.answer(response).await,
        (Ok(response), None) => response,
        (Err(error), _) => failed(forwarder, peer, client, path.path(), id, &error),
    }
}

/// A complete answer in JSON that no one has compressed.
fn is_plain_json(response: &Response<ResponseBody>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    response.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.starts_with("application/json"))
        && !response.headers().contains_key(CONTENT_ENCODING)
}

/// Reads serve's version from an answer as it passes.
fn read_version(
    versions: &Arc<ServeVersions>,
    route: &Route,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let (versions, user, port) = (Arc::clone(versions), route.os_user.clone(), route.port);
    let read = move |answer: &[u8]| versions.read(&user, port, answer, clock::now());
    response.map(|body| ResponseBody::boxed(Observed::new(body, LONGEST_ANSWER, read)))
}

fn failed(
    forwarder: &HttpForwarder,
    peer: Peer,
    client: &ClientIdentity,
    path: &str,
    id: Option<HeaderValue>,
    error: &ForwardError,
) -> Response<ResponseBody> {
    match error {
        ForwardError::Rejected(why) => {
            forwarder.metrics.invalid_request(why.status());
            let (who, status) = (Client::from(peer).to_string(), why.status().as_u16());
            forwarder.rejections.log(LogCause::InvalidRequest, &who, |suppressed| {
                tracing::info!(peer = %peer.ip, suppressed, "{status}: {why}");
            });
            refused(*why)
        }
        _ => {
            let (id, status) = (request_id::or_fresh(id), error.status());
            let (user, code) = (&client.route.os_user, status.as_u16());
            let id_text = id.to_str().unwrap_or_default();
            let is_logged =
                matches!(error, ForwardError::Connect(ConnectError::Owner(error)) if error.is_reported());
            if is_logged || matches!(error, ForwardError::ClientGone) {
                tracing::debug!(%user, id = id_text, "{error}");
            } else {
                forwarder.rejections.log(LogCause::Serve, user, |suppressed| {
                    let login = rejections::cut(&client.login, LONGEST_IN_LOG);
                    let path = rejections::cut(path, LONGEST_IN_LOG);
                    tracing::warn!(%user, %login, path, id = id_text, suppressed, "{code}: {error}");
                });
            }
            let mut response = plain(status, &format!("{} (request {id_text})", error.text()));
            response.headers_mut().insert(request_id::HEADER, id);
            response
        }
    }
}

async fn send(
    forwarder: &HttpForwarder,
    peer: Peer,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, ForwardError> {
    let (mut request, upload) = outgoing(request, peer, route.port);
    let retriable = upload.is_none() && is_safe(request.method());
    let mut pooled = if retriable { forwarder.pool.take(route) } else { None };
    loop {
        let reused = pooled.is_some();
        let mut sender = match pooled.take() {
            Some(sender) => {
                forwarder.metrics.connection(ConnectResult::Reused);
                sender
            }
            None => connect(forwarder, route).await?,
        };
        let retry = reused.then(|| copy(&request));
        let limit = forwarder.http.response_timeout;
        let response = sender.try_send_request(request);
        match request_body::with_timeout(response, upload.as_deref(), limit).await {
            None => return Err(ForwardError::Timeout(route.port, limit)),
            Some(Ok(response)) => {
                let lease = Lease::new(&forwarder.pool, route, sender, upload, &response);
                return received(response, route.port, lease);
            }
            Some(Err(mut failed)) => match failed.take_message().or(retry) {
                Some(unsent) if reused && is_close(failed.error()) => request = unsent,
                _ => return Err(failure(failed.into_error(), route.port)),
            },
        }
    }
}

/// Safe methods of RFC 9110 section 9.2.1.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Returns a copy of a request without a body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Returns the request for serve, and the upload progress if it has a body.
fn outgoing(
    mut request: Request<Incoming>,
    peer: Peer,
    port: u16,
) -> (Request<RequestBody>, Option<Arc<UploadProgress>>) {
    headers::strip_hop_by_hop(request.headers_mut());
    request::prepare(&mut request, peer.ip);
    headers::ensure_host(request.headers_mut(), port);
    if request.body().is_end_stream() {
        // Without a body, 100 Continue has no meaning.
        request.headers_mut().remove(EXPECT);
        request::pass_interims(&mut request, None);
        return (request.map(|_| RequestBody::empty()), None);
    }
    if request.body().size_hint().exact().is_none() {
        // hyper does not send a body of unknown length with methods that rarely have one.
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let expects = headers::expects_continue(request.headers());
    let (parts, body) = request.into_parts();
    let (body, upload) = RequestBody::upload(body, expects);
    let mut request = Request::from_parts(parts, body);
    request::pass_interims(&mut request, expects.then(|| Arc::clone(&upload)));
    (request, Some(upload))
}

async fn connect(forwarder: &HttpForwarder, route: &Route) -> Result<SendRequest<RequestBody>, ForwardError> {
    let connected =
        connect::connect(route, &forwarder.timeouts, &forwarder.owners, receive_buffer::SMALL).await;
    let stream = forwarder.metrics.connected(connected)?.stream;
    connect::http(stream).await.map_err(|error| ForwardError::Closed(route.port, error))
}

/// Converts hyper's error.
fn failure(error: hyper::Error, port: u16) -> ForwardError {
    if error.is_user() {
        // The only user-provided part of the request is its body, which the client sends.
        return match violation(&error) {
            Some(why) => ForwardError::Rejected(why),
            None => ForwardError::ClientGone,
        };
    }
    if is_close(&error) { ForwardError::Closed(port, error) } else { ForwardError::NotHttp(port, error) }
}

/// Returns the guard's violation from the error chain.
fn violation(error: &hyper::Error) -> Option<guard::Violation> {
    let mut source = error.source();
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(why) = io.and_then(|error| error.downcast_ref::<guard::Violation>()) {
            return Some(*why);
        }
        source = error.source();
    }
    None
}

/// The connection was closed or reset before any byte of a response.
fn is_close(error: &hyper::Error) -> bool {
    !error.is_user() && !error.is_parse()
}

/// Returns the response for the client.
fn received(
    response: Response<Incoming>,
    port: u16,
    lease: Lease,
) -> Result<Response<ResponseBody>, ForwardError> {
    let mut response = check_framing(response).map_err(|why| ForwardError::BadFraming(port, why))?;
    metrics::mark_as_serve(&mut response);
    headers::strip_hop_by_hop(response.headers_mut());
    // serve may use HTTP/1.0; the client's connection does not.
    *response.version_mut() = Version::HTTP_11;
    Ok(response.map(|body| ResponseBody::leased(body, lease)))
}
