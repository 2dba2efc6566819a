//! WebSocket upgrade: forwards the handshake to serve, checks the response, and starts the relay.
//!
//! An HTTP error from serve is relayed unchanged; every other failure becomes 502, 503 or 504. In
//! all cases there is exactly one record, because the [`SessionRecorder`] is created before
//! anything can fail.

use std::{error::Error as _, fmt, io, sync::Arc};

use ::http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::{
    body::{Bytes, Incoming},
    upgrade::{OnUpgrade, Parts, Upgraded},
};
use hyper_util::rt::TokioIo;
use t3_record::{Side, evidence::OpenFailure, wire};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    admission::{
        Admission,
        quota::UserPermit,
        rejections::{LogCause, Rejections},
    },
    fd_store::{Store, slot::Slot},
    http::{
        guard::{Exchanges, guarded_socket},
        headers,
        peer::Peer,
    },
    metrics::{self, Metrics},
    proxy::{
        extensions,
        request::{self, ClientIdentity},
    },
    record::{close::SessionRecorder, recorder::Recorder},
    relay::{self, Legs, Relayed, kept::Kept, session::Session},
    response::{
        body::ResponseBody,
        text::{FOREIGN_LISTENER, plain},
    },
    routing::table::Route,
    settings::Timeouts,
    shutdown::signal::ShutdownSignal,
    sys::{clock, random_id, receive_buffer::ReceiveBuffer, timeout::timeout},
    upstream::{
        connect::{self, ConnectError, Connected},
        request_body::RequestBody,
        response_check::check_framing,
        serve_owner::ServeOwners,
        serve_socket::ServeSocket,
    },
};

/// Opens WebSockets to serve and relays them.
pub struct WebsocketProxy {
    pub admission: Admission,
    pub rejections: Arc<Rejections>,
    pub recorder: Arc<Recorder>,
    pub metrics: Arc<Metrics>,
    pub timeouts: Timeouts,
    pub shutdown: Arc<ShutdownSignal>,
    pub owners: ServeOwners,
    /// Keeps sessions for the next process; `None` without a service manager that does.
    pub store: Option<Store>,
}

/// What a session holds until it ends.
pub(super) struct Permits {
    pub(super) _user: UserPermit,
    /// That of the upstream socket.
    pub(super) buffer: ReceiveBuffer,
}

/// Answers an upgrade request.
pub async fn answer(
    proxy: Arc<WebsocketProxy>,
    peer: Peer,
    client: ClientIdentity,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let route = client.route;
    let key = match headers::check_upgrade(&request) {
        Ok(key) => key,
        Err(malformed) => {
            proxy.rejections.log(LogCause::InvalidRequest, &route.os_user, |suppressed| {
                tracing::info!(user = %route.os_user, peer = %peer.ip, suppressed, "400: {malformed}");
            });
            proxy.metrics.invalid_request(StatusCode::BAD_REQUEST);
            let mut response = plain(StatusCode::BAD_REQUEST, &malformed.to_string());
            let version = header::HeaderValue::from_static("13");
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, version);
            return response;
        }
    };
    let permit = match proxy.admission.admit(request.headers(), &route.os_user, clock::now()) {
        Ok(permit) => permit,
        Err(error) => {
            let status = error.status().as_u16();
            proxy.rejections.record(error.reason(), &route.os_user, format_args!("{status}: {error}"));
            return error.answer();
        }
    };
    let identity = wire::Session {
        conn: random_id::fresh(),
        user: route.os_user.clone(),
        ip: client.ip.to_string(),
        ray: ray(request.headers()),
        opened_at: None,
        down: Some(peer.leg),
        up: None,
        serve_port: route.port,
        kept: false,
        resumed: 0,
    };
    let connection = request.extensions_mut().remove::<Arc<Exchanges>>();
    let mut recorder =
        SessionRecorder::open(&proxy.recorder, Session::new(identity, clock::now()), connection);
    let down = hyper::upgrade::on(&mut request);
    let permits = Permits { _user: permit, buffer: ReceiveBuffer::reserve() };
    match send_upgrade(&proxy, &mut recorder, peer, &route, request, permits.buffer.size()).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            switch(proxy, recorder, permits, &key, down, response)
        }
        Ok(response) => match check_framing(response) {
            Ok(mut response) => {
                recorder.failed(OpenFailure::Status(response.status().as_u16()));
                headers::strip_hop_by_hop(response.headers_mut());
                response.map(ResponseBody::from)
            }
            Err(why) => {
                log_failure(
                    &proxy,
                    &route,
                    format_args!("handshake with serve on port {}: {why}", route.port),
                );
                fail(recorder, OpenFailure::Garbage)
            }
        },
        Err(why) => fail(recorder, why),
    }
}

/// The `Cf-Ray` header, if it is short text.
fn ray(headers: &HeaderMap) -> Option<String> {
    let ray = headers.get("cf-ray")?.to_str().ok()?;
    (ray.len() <= 64).then(|| ray.to_owned())
}

async fn send_upgrade(
    proxy: &WebsocketProxy,
    recorder: &mut SessionRecorder,
    peer: Peer,
    route: &Route,
    mut request: Request<Incoming>,
    receive_buffer: u32,
) -> Result<Response<Incoming>, OpenFailure> {
    let connected = connect::connect(route, &proxy.timeouts, &proxy.owners, receive_buffer).await;
    let connected = proxy.metrics.connected(connected);
    let Connected { stream, leg, uid } = match connected {
        Ok(connected) => connected,
        Err(error) => {
            // Foreign listeners have their own line.
            if !matches!(&error, ConnectError::Owner(error) if error.is_reported()) {
                log_failure(proxy, route, format_args!("{error}"));
            }
            recorder.session().facts.peer_uid = error.peer_uid();
            recorder.session().facts.listeners = error.listeners().await;
            return Err(error.failure());
        }
    };
    recorder.session().identity.up = Some(leg);
    recorder.session().facts.peer_uid = uid;
    request::prepare(&mut request, peer.ip);
    request::pass_interims(&mut request, None);
    let request = request.map(|_| RequestBody::empty());
    let handshake = async {
        let mut sender = connect::http(stream).await?;
        sender.send_request(request).await
    };
    match timeout(proxy.timeouts.handshake, handshake).await {
        Ok(Ok(mut response)) => {
            metrics::mark_as_serve(&mut response);
            Ok(response)
        }
        Ok(Err(error)) => {
            log_failure(proxy, route, format_args!("handshake with serve on port {}: {error}", route.port));
            Err(failure(&error))
        }
        Err(_) => Err(OpenFailure::HandshakeTimeout),
    }
}

fn log_failure(proxy: &WebsocketProxy, route: &Route, line: fmt::Arguments<'_>) {
    proxy.rejections.log(LogCause::Serve, &route.os_user, |suppressed| {
        tracing::warn!(user = %route.os_user, suppressed, "{line}");
    });
}

/// Converts hyper's error.
fn failure(error: &hyper::Error) -> OpenFailure {
    let errno = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    match errno {
        Some(libc::ECONNRESET | libc::EPIPE) => OpenFailure::HandshakeReset,
        Some(errno) => OpenFailure::Local(errno),
        None if error.is_parse() => OpenFailure::Garbage,
        None => OpenFailure::HandshakeEof,
    }
}

fn fail(recorder: SessionRecorder, why: OpenFailure) -> Response<ResponseBody> {
    recorder.failed(why);
    match why {
        OpenFailure::ConnectTimeout | OpenFailure::HandshakeTimeout => {
            plain(StatusCode::GATEWAY_TIMEOUT, "t3 serve timed out")
        }
        OpenFailure::Refused | OpenFailure::Unreach => {
            plain(StatusCode::BAD_GATEWAY, "cannot reach t3 serve; is it running?")
        }
        OpenFailure::ForeignListener => plain(StatusCode::BAD_GATEWAY, FOREIGN_LISTENER),
        OpenFailure::Local(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "t3-dispatch is out of resources"),
        _ => plain(StatusCode::BAD_GATEWAY, "invalid response from t3 serve"),
    }
}

/// Checks Sec-WebSocket-Accept (RFC 6455 section 4.2.2, item 5.4), relays the 101 and starts the
/// session.
fn switch(
    proxy: Arc<WebsocketProxy>,
    mut recorder: SessionRecorder,
    permits: Permits,
    key: &header::HeaderValue,
    down: OnUpgrade,
    mut response: Response<Incoming>,
) -> Response<ResponseBody> {
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str()) {
        return fail(recorder, OpenFailure::BadAccept);
    }
    let slot = proxy.store.as_ref().and_then(Store::take);
    recorder.session().identity.kept = slot.is_some();
    // Before the 101: whatever happens to dispatch from here on, the journal has the session of a
    // client that considers its WebSocket open.
    recorder.opened(extensions::names(response.headers()));
    let up = hyper::upgrade::on(&mut response);
    tokio::spawn(run_session(proxy, recorder, slot, permits, down, up));
    response.map(|_| ResponseBody::empty())
}

/// Runs one WebSocket until both sockets are closed.
async fn run_session(
    proxy: Arc<WebsocketProxy>,
    mut recorder: SessionRecorder,
    slot: Option<Slot>,
    permits: Permits,
    down: OnUpgrade,
    up: OnUpgrade,
) {
    // `down` resolves once the 101 is written, and fails if the client has disconnected.
    let switched = timeout(proxy.timeouts.handshake, async { tokio::try_join!(down, up) });
    let (down, up) = match switched.await {
        Ok(Ok((down, up))) => (guarded_socket(down), socket(up)),
        Ok(Err(error)) => {
            tracing::debug!("cannot relay the 101: {error}");
            return recorder.failed(OpenFailure::ClientGone);
        }
        Err(_) => return recorder.failed(OpenFailure::ClientGone),
    };
    let (Some((down, first_down)), Some((up, first_up))) = (down, up) else {
        return recorder.failed(OpenFailure::Local(libc::EPROTOTYPE));
    };
    recorder.upgraded();
    let session = recorder.session();
    // Bytes that arrived together with the handshake.
    let now = clock::now();
    for (side, bytes) in [(Side::Down, first_down), (Side::Up, first_up)] {
        if !bytes.is_empty() {
            session.received(side, &bytes, now);
            session.flow_mut(side).pending.extend_from_slice(&bytes);
        }
    }
    let legs = Box::new(Legs { down, up });
    let kept = slot.zip(proxy.store.as_ref()).and_then(|(slot, store)| {
        let kept = Kept::begin(slot, &store.descriptors, recorder.session(), &legs);
        if kept.is_none() {
            recorder.not_kept();
        }
        kept.map(Box::new)
    });
    relay_session(&proxy, recorder, kept, permits, legs).await;
}

/// Relays a session until it has ended or is left to the next process.
pub(super) async fn relay_session(
    proxy: &WebsocketProxy,
    mut recorder: SessionRecorder,
    kept: Option<Box<Kept>>,
    _permits: Permits,
    legs: Box<Legs>,
) {
    let listener = proxy.shutdown.subscribe();
    let observer = recorder.observer();
    let relayed =
        relay::run(recorder.session(), legs, kept, proxy.timeouts.relay, &listener, &observer).await;
    match relayed {
        Relayed::Ended => {}
        Relayed::Left => recorder.leave(),
    }
}

/// Returns serve's socket and the bytes read from it after the handshake.
fn socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<ServeSocket>>().ok()?;
    Some((io.into_inner().into_inner(), read_buf))
}
