//! One WebSocket from its handshake to its disconnect: a ping as text every beat, its echo in time.
//! The same protocol as the browser's, so that what ends this one would have ended a browser's.
//!
//! Bounds every wait, and never decides when to try again: that is [`crate::run`]'s.

use futures_util::{SinkExt, StreamExt};
use http::{Request, Uri};
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

/// Nothing but echoes comes back.
const MOST: usize = 64 << 10;
/// For our own part of a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// An established leg.
#[derive(Debug)]
pub struct Echo<S> {
    socket: WebSocketStream<S>,
    pings: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Echo<S> {
    /// Shakes hands over an established stream. The caller bounds the time.
    ///
    /// # Errors
    /// The answer's status, or what went wrong.
    pub async fn open(leg: &Leg, stream: S, progress: &Progress) -> Result<Self, Failure> {
        progress.begin(Phase::Upgrade);
        let request = request(&leg.url).map_err(|error| Failure::new(Reason::ConnectFailed, &error))?;
        let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
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

    /// One ping and its echo: the time between.
    ///
    /// # Errors
    /// The leg is dead, and why.
    pub async fn beat(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<Duration, Failure> {
        progress.begin(Phase::Echo);
        let sent = Instant::now();
        let deadline = sent + timeouts.answer;
        self.pings += 1;
        // Unique on this connection, so that no late echo passes for this one's; nanoseconds as the
        // prober before this one sent them.
        let unix = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let ping = format!("ping {unix} {}", self.pings);
        let late = || Failure {
            reason: Reason::RttTimeout,
            detail: format!("no echo within {} s", timeouts.answer.as_secs_f32()),
        };
        match timeout_at(deadline, self.socket.send(Message::text(ping.clone()))).await {
            Err(_) => return Err(late()),
            // What the other side said before it went away tells more than that nothing can be sent
            // any more.
            Ok(Err(error)) => {
                return Err(match timeout(GOODBYE, self.text()).await {
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

    /// Listens until the next beat is due, so that a disconnect is known when it happens.
    ///
    /// # Errors
    /// The leg is dead, and why.
    pub async fn idle(&mut self, timeouts: &Timeouts, progress: &Progress) -> Result<(), Failure> {
        progress.begin(Phase::Echo);
        let deadline = Instant::now() + timeouts.beat;
        loop {
            match timeout_at(deadline, self.text()).await {
                Err(_) => return Ok(()),
                Ok(text) => text?,
            };
        }
    }

    /// The next text; pings are answered on the way.
    async fn text(&mut self) -> Result<String, Failure> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
                    // Whatever answer there is to send goes out with the flush.
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
                    let _ = timeout(GOODBYE, self.socket.flush()).await;
                    let detail = frame.map_or_else(
                        || "close frame without a code".to_owned(),
                        |frame| format!("close frame {} {}", u16::from(frame.code), frame.reason),
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

    /// Says goodbye, for a leg that is given up in health.
    pub async fn close(mut self) {
        let _ = timeout(GOODBYE, self.socket.close(None)).await;
    }
}

fn request(url: &Uri) -> Result<Request<()>, Error> {
    url.clone().into_client_request()
}

fn ended() -> Failure {
    Failure { reason: Reason::ClosedClosed, detail: "ended without a close frame".to_owned() }
}

/// What an error of an established WebSocket means.
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
