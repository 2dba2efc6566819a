//! One WebSocket from the handshake to the disconnect: periodic text pings and their echoes.
//!
//! The protocol is that of the browser, so that the same causes end it. Every wait is bounded;
//! [`crate::run`] reconnects.

use futures_util::{SinkExt, StreamExt};
use http::{Request, header::AUTHORIZATION};
use t3_record::probe::{Phase, Reason};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{
    leg::{Leg, Timeouts},
    progress::{Failure, Progress},
};

/// Limit of a message; only echoes are expected.
const MAX_MESSAGE: usize = 64 << 10;
/// Timeout for our side of the close handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An established leg.
#[derive(Debug)]
pub struct Echo<S> {
    socket: WebSocketStream<S>,
    pings: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Echo<S> {
    /// WebSocket handshake over a connection. The caller bounds the time.
    ///
    /// # Errors
    /// The status of the response, or the cause.
    pub async fn open(leg: &Leg, stream: S, progress: &Progress) -> Result<Self, Failure> {
        progress.begin(Phase::Upgrade);
        let request = request(leg).map_err(|error| Failure::new(Reason::ConnectFailed, &error))?;
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) =
            client_async_with_config(request, stream, Some(config)).await.map_err(|error| match error {
                Error::Http(answer) => Failure {
                    reason: Reason::Http(answer.status().as_u16()),
                    detail: format!("{} answered the upgrade with {}", leg.url, answer.status()),
                },
                error => Failure::new(Reason::ConnectFailed, &error),
            })?;
        progress.begin(Phase::Echo);
        Ok(Self { socket, pings: 0 })
    }

    /// Sends a ping and returns the time until its echo.
    ///
    /// # Errors
    /// The cause of the disconnect.
    pub async fn ping(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<Duration, Failure> {
        progress.begin(Phase::Echo);
        let sent = Instant::now();
        let deadline = sent + timeouts.response_timeout;
        self.pings += 1;
        // Unique on this connection, so that a late echo does not match; nanoseconds, as the Python
        // prober sent them.
        let unix = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let ping = format!("ping {unix} {}", self.pings);
        let late = || Failure {
            reason: Reason::RttTimeout,
            detail: format!("no echo within {} s", timeouts.response_timeout.as_secs_f32()),
        };
        match timeout_at(deadline, self.socket.send(Message::text(ping.clone()))).await {
            Err(_) => return Err(late()),
            // A Close frame received before the error is more specific than the failed send.
            Ok(Err(error)) => {
                return Err(match timeout(CLOSE_TIMEOUT, self.text()).await {
                    Ok(Err(last)) => last,
                    Ok(Ok(_)) | Err(_) => broke(&error),
                });
            }
            Ok(Ok(())) => {}
        }
        loop {
            let text = timeout_at(deadline, self.text()).await.map_err(|_| late())??;
            if text == ping {
                return Ok(sent.elapsed());
            }
        }
    }

    /// Reads until the next ping is due, so that a disconnect is noticed when it happens.
    ///
    /// # Errors
    /// The cause of the disconnect.
    pub async fn idle(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<(), Failure> {
        progress.begin(Phase::Echo);
        let deadline = Instant::now() + timeouts.ping_interval;
        loop {
            match timeout_at(deadline, self.text()).await {
                Err(_) => return Ok(()),
                Ok(text) => text?,
            };
        }
    }

    /// The next text message; answers pings.
    async fn text(&mut self) -> Result<String, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    // The flush sends a queued Pong.
                    if let Err(error) = self.socket.flush().await {
                        return Err(broke(&error));
                    }
                }
                Some(Ok(Message::Binary(_))) => {
                    return Err(Failure {
                        reason: Reason::ClosedBinary,
                        detail: "a binary message in place of the echo".to_owned(),
                    });
                }
                Some(Ok(Message::Close(frame))) => {
                    let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
                    let detail = frame.map_or_else(
                        || "Close frame without a code".to_owned(),
                        |frame| format!("Close {} {}", u16::from(frame.code), frame.reason),
                    );
                    return Err(Failure {
                        reason: Reason::ClosedClose,
                        detail: detail.trim_end().to_owned(),
                    });
                }
                Some(Err(error)) => return Err(broke(&error)),
                None => return Err(ended()),
            }
        }
    }

    /// Closes a healthy leg.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.socket.close(None)).await;
    }
}

fn request(leg: &Leg) -> Result<Request<()>, Error> {
    let mut request = leg.url.clone().into_client_request()?;
    if let Some(value) = &leg.authorization {
        request.headers_mut().insert(AUTHORIZATION, value.clone());
    }
    Ok(request)
}

fn ended() -> Failure {
    Failure { reason: Reason::ClosedClosed, detail: "ended without a Close frame".to_owned() }
}

/// Failure for an error of an established WebSocket.
fn broke(error: &Error) -> Failure {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ended(),
        Error::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => ended(),
        Error::Io(_) | Error::Tls(_) => Failure::new(Reason::IoError, error),
        _ => Failure::new(Reason::ClosedError, error),
    }
}
