//! `/probe/ws`: echoes messages, so that a probe can measure the path to t3-dispatch. Buffers one
//! small message at a time.
//!
//! Not a session: it has no user, no serve, no quota and no `ws close` record. Its Origin is not
//! checked, because it exposes no data.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

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
    admission::rejections::Rejections,
    http::{guard::guarded_socket, headers},
    metrics::reject_reason::RejectReason,
    response::{body::ResponseBody, text::plain},
    shutdown::signal::ShutdownSignal,
};

/// Maximum message size, in bytes; t3-probe sends about 20.
const MAX_MESSAGE: usize = 64 * 1024;
/// Timeout for the peer's Close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The echo and its connected probes.
#[derive(Debug)]
pub struct ProbeEcho {
    permits: Arc<Semaphore>,
    max: u32,
    idle_timeout: Duration,
    handshake_timeout: Duration,
    rejections: Arc<Rejections>,
    shutdown: Arc<ShutdownSignal>,
}

impl ProbeEcho {
    #[must_use]
    pub fn new(
        max_probes: NonZeroU16,
        idle_timeout: Duration,
        handshake_timeout: Duration,
        rejections: Arc<Rejections>,
        shutdown: Arc<ShutdownSignal>,
    ) -> Self {
        let max = u32::from(max_probes.get());
        let permits = Arc::new(Semaphore::new(max_probes.get().into()));
        Self { permits, max, idle_timeout, handshake_timeout, rejections, shutdown }
    }

    /// Number of connected probes.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.max as usize).saturating_sub(self.permits.available_permits())
    }

    /// Returns when no probe is connected.
    pub async fn none(&self) {
        // Fails only when the semaphore is closed, which never happens.
        let _ = self.permits.acquire_many(self.max).await;
    }
}

/// Responds to a request for the echo.
pub fn answer(echo: &Arc<ProbeEcho>, request: &mut Request<Incoming>) -> Response<ResponseBody> {
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
    let Ok(permit) = Arc::clone(&echo.permits).try_acquire_owned() else {
        let max = echo.max;
        echo.rejections.record(
            RejectReason::Probes,
            "probes",
            format_args!("503: {max} probes are open; see --max-probes"),
        );
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many probes");
    };
    tokio::spawn(run_probe(Arc::clone(echo), hyper::upgrade::on(request), permit));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn run_probe(settings: Arc<ProbeEcho>, upgraded: OnUpgrade, _permit: OwnedSemaphorePermit) {
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
    echo(socket, settings.idle_timeout, &settings.shutdown).await;
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
