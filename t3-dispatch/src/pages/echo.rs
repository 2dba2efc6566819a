//! `/probe/ws`: echoes messages, so that a probe can measure the path to t3-dispatch. Buffers one
//! small message at a time.
//!
//! Not a session: it has no user, no serve and no `ws close` record. Its Origin is not checked,
//! because it exposes no data. One client address or local user has a part of the places, and a
//! token can be required: without it, many addresses together can still take all places from
//! t3-probe.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    admission::{
        client::Client,
        quota::{UserPermit, UserQuota},
        rejections::Rejections,
    },
    http::{guard::guarded_socket, headers},
    metrics::reject_reason::RejectReason,
    pages::probe_token::ProbeToken,
    response::{body::ResponseBody, text::plain},
    shutdown::signal::ShutdownSignal,
};

/// Maximum message size, in bytes; t3-probe sends about 20.
const MAX_MESSAGE: usize = 64 * 1024;
/// Timeout for the peer's Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the echo.
#[derive(Debug)]
pub struct ProbeSettings {
    pub max: NonZeroU16,
    pub max_per_address: NonZeroU16,
    pub idle_timeout: Duration,
    pub handshake_timeout: Duration,
}

/// The echo and its connected probes.
#[derive(Debug)]
pub struct ProbeEcho {
    permits: Arc<Semaphore>,
    /// Open probes per client.
    clients: Arc<UserQuota>,
    settings: ProbeSettings,
    token: OnceLock<ProbeToken>,
    rejections: Arc<Rejections>,
    shutdown: Arc<ShutdownSignal>,
}

impl ProbeEcho {
    #[must_use]
    pub fn new(settings: ProbeSettings, rejections: Arc<Rejections>, shutdown: Arc<ShutdownSignal>) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max.get().into()));
        let clients = UserQuota::new(usize::MAX, settings.max_per_address.get().into());
        Self { permits, clients, settings, token: OnceLock::new(), rejections, shutdown }
    }

    /// Requires a token of every probe from now on. The first call counts.
    pub fn require(&self, token: ProbeToken) {
        let _ = self.token.set(token);
    }

    /// Maximum number of probes.
    #[must_use]
    pub fn max(&self) -> usize {
        self.settings.max.get().into()
    }

    /// Number of connected probes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.max().saturating_sub(self.permits.available_permits())
    }

    /// Returns when no probe is connected.
    pub async fn none(&self) {
        // Fails only when the semaphore is closed, which never happens.
        let _ = self.permits.acquire_many(self.settings.max.get().into()).await;
    }
}

/// Responds to a request for the echo.
pub fn answer(
    echo: &Arc<ProbeEcho>,
    client: Client,
    request: &mut Request<Incoming>,
) -> Response<ResponseBody> {
    let who = client.to_string();
    let reject = |why: RejectReason, status: StatusCode, text: &str| {
        echo.rejections.record(why, &who, format_args!("{}: {text}", status.as_u16()));
        plain(status, text)
    };
    if echo.token.get().is_some_and(|token| !token.is_in(request.headers())) {
        let text = "the probe needs the token; see --probe-token-file";
        let mut response = reject(RejectReason::ProbeToken, StatusCode::UNAUTHORIZED, text);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    if !headers::wants_websocket(request.headers()) {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "expected a WebSocket upgrade");
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return response;
    }
    let accept = match headers::check_upgrade(request) {
        Ok(key) => HeaderValue::from_str(&derive_accept_key(key.as_bytes())),
        Err(malformed) => {
            let mut response = plain(StatusCode::BAD_REQUEST, &malformed.to_string());
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return response;
        }
    };
    // base64 is always a valid header value.
    let Ok(accept) = accept else { return plain(StatusCode::INTERNAL_SERVER_ERROR, "no accept key") };
    let place = match client {
        Client::Address(address @ IpAddr::V4(_)) => echo.clients.acquire(&address.to_string()),
        // An IPv6 client has a network of its own.
        Client::Address(IpAddr::V6(_)) | Client::User(_) => echo.clients.acquire(&who),
    };
    let Ok(place) = place else {
        let text = "too many probes of this address or local user; see --max-probes-per-address";
        return reject(RejectReason::AddressProbes, StatusCode::TOO_MANY_REQUESTS, text);
    };
    let Ok(permit) = Arc::clone(&echo.permits).try_acquire_owned() else {
        return reject(
            RejectReason::Probes,
            StatusCode::SERVICE_UNAVAILABLE,
            "too many probes; see --max-probes",
        );
    };
    tokio::spawn(run_probe(Arc::clone(echo), hyper::upgrade::on(request), (permit, place)));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn run_probe(probes: Arc<ProbeEcho>, upgraded: OnUpgrade, _place: (OwnedSemaphorePermit, UserPermit)) {
    let settings = &probes.settings;
    // When the 101 cannot be written, the probe has disconnected.
    let Ok(Ok(upgraded)) = timeout(settings.handshake_timeout, upgraded).await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let Some((stream, first)) = guarded_socket(upgraded) else { return };
    let socket = WebSocketStream::from_partially_read(stream, first.into(), Role::Server, Some(config)).await;
    echo(socket, settings.idle_timeout, &probes.shutdown).await;
}

/// Echoes until the peer closes, violates the protocol or reaches the idle timeout, or until
/// shutdown.
async fn echo<S>(mut socket: WebSocketStream<S>, idle_timeout: Duration, stop: &ShutdownSignal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (code, reason) = loop {
        // A peer that does not read is treated like one that does not write.
        let step = tokio::select! {
            step = timeout(idle_timeout, echo_message(&mut socket)) => step,
            () = stop.wait() => break (CloseCode::Away, "t3-dispatch shuts down"),
        };
        match step {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(Error::Capacity(_)))) => break (CloseCode::Size, "message too large"),
            Ok(Some(Err(Error::Protocol(_)))) => break (CloseCode::Protocol, ""),
            Ok(Some(Err(Error::Utf8(_)))) => break (CloseCode::Invalid, ""),
            Ok(Some(Err(_)) | None) => return,
            Err(_) => break (CloseCode::Away, "idle timeout"),
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, close(&mut socket, CloseFrame { code, reason: reason.into() })).await;
}

/// Echoes one message. The library replies to Ping and Close while it waits for the next one.
async fn echo_message<S>(socket: &mut WebSocketStream<S>) -> Option<Result<(), Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match socket.next().await? {
        Ok(message @ (Message::Text(_) | Message::Binary(_))) => Some(socket.send(message).await),
        Ok(_) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    }
}

/// Sends Close and reads until the peer ends the connection: unread data would turn the FIN into an
/// RST, which can discard the Close frame.
async fn close<S>(socket: &mut WebSocketStream<S>, frame: CloseFrame)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if socket.close(Some(frame)).await.is_err() {
        return;
    }
    while let Some(Ok(_)) = socket.next().await {}
    let stream = socket.get_mut();
    let mut ignored = [0; 4096];
    if stream.shutdown().await.is_ok() {
        while stream.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    }
}
