//! One WebSocket from the handshake to the disconnect: periodic pings, each of them a text that is
//! echoed and a Ping frame (RFC 6455 section 5.5.2).
//!
//! The text is that of the browser, so that the same causes end the leg. Every wait is bounded;
//! [`crate::run`] reconnects.

use bytes::Bytes;
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

/// Times to the two answers of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub echo: Duration,
    pub pong: Duration,
}

impl Answered {
    /// Time until both answers had arrived.
    #[must_use]
    pub fn both(self) -> Duration {
        self.echo.max(self.pong)
    }
}

/// A message that can answer a ping.
enum Answer {
    Text(String),
    Pong(Bytes),
}

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

    /// Sends a text and an RFC 6455 Ping; returns when both were answered.
    ///
    /// # Errors
    /// The cause of the disconnect.
    pub async fn ping(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<Answered, Failure> {
        progress.begin(Phase::Echo);
        let sent = Instant::now();
        let deadline = sent + timeouts.response_timeout;
        self.pings += 1;
        // Unique on this connection, so that a late answer does not match; nanoseconds, as the
        // Python prober sent them.
        let unix = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let ping = format!("ping {unix} {}", self.pings);
        let (mut echo, mut pong) = (None, None);
        match timeout_at(deadline, self.send(&ping)).await {
            Err(_) => return Err(late(timeouts.response_timeout, echo, pong)),
            // A Close frame received before the error is more specific than the failed send.
            Ok(Err(error)) => {
                return Err(match timeout(CLOSE_TIMEOUT, self.answer()).await {
                    Ok(Err(last)) => last,
                    Ok(Ok(_)) | Err(_) => broke(&error),
                });
            }
            Ok(Ok(())) => {}
        }
        loop {
            if let (Some(echo), Some(pong)) = (echo, pong) {
                return Ok(Answered { echo, pong });
            }
            let answer = timeout_at(deadline, self.answer()).await;
            match answer.map_err(|_| late(timeouts.response_timeout, echo, pong))?? {
                Answer::Text(text) if text == ping => echo = Some(sent.elapsed()),
                Answer::Pong(payload) if payload == ping.as_bytes() => pong = Some(sent.elapsed()),
                Answer::Text(_) | Answer::Pong(_) => {}
            }
        }
    }

    /// Sends the text and a Ping with the same payload in one write; the text first, so that its
    /// RTT is that of a text alone.
    async fn send(&mut self, ping: &str) -> Result<(), Error> {
        self.socket.feed(Message::text(ping)).await?;
        self.socket.feed(Message::Ping(Bytes::copy_from_slice(ping.as_bytes()))).await?;
        self.socket.flush().await
    }

    /// Reads until the next ping is due, so that a disconnect is noticed when it happens.
    ///
    /// # Errors
    /// The cause of the disconnect.
    pub async fn idle(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<(), Failure> {
        progress.begin(Phase::Echo);
        let deadline = Instant::now() + timeouts.ping_interval;
        loop {
            match timeout_at(deadline, self.answer()).await {
                Err(_) => return Ok(()),
                Ok(answer) => answer?,
            };
        }
    }

    /// The next text message or Pong; answers Pings of the peer.
    async fn answer(&mut self) -> Result<Answer, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Answer::Text(text.as_str().to_owned())),
                Some(Ok(Message::Pong(payload))) => return Ok(Answer::Pong(payload)),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {
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
                    return Err(Failure::with_text(Reason::ClosedClose, &detail));
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

/// Failure of a ping without both answers at the end of the timeout.
fn late(limit: Duration, echo: Option<Duration>, pong: Option<Duration>) -> Failure {
    let limit = limit.as_secs_f32();
    let (reason, detail) = match (echo, pong) {
        (Some(echo), _) => (
            Reason::PongTimeout,
            format!("no Pong within {limit} s, but the echo after {:.3} s", echo.as_secs_f32()),
        ),
        (None, Some(pong)) => (
            Reason::RttTimeout,
            format!("no echo within {limit} s, but a Pong after {:.3} s", pong.as_secs_f32()),
        ),
        (None, None) => (Reason::RttTimeout, format!("no echo within {limit} s")),
    };
    Failure { reason, detail }
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
