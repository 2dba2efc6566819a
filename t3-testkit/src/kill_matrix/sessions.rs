//! WebSockets of a cell: one task each, which closes on request or sees the end of the connection.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, runtime::Handle, sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    chaos::socket::Peer,
    error::{Attempt, Result, TestError},
    frame::{self, opcode},
    handshake,
};

/// Timeout for the 101 and for the end of a connection.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Handshakes at the same time.
const AT_ONCE: usize = 50;

/// An open WebSocket.
#[derive(Debug)]
pub struct Session {
    pub ray: String,
    close: Option<oneshot::Sender<()>>,
    end: Option<JoinHandle<bool>>,
}

impl Session {
    /// Sends a Close frame; does not wait.
    pub fn close(&mut self) {
        if let Some(close) = self.close.take() {
            let _ = close.send(());
        }
    }

    /// Waits for the end of the connection; whether the Close frame was answered.
    pub fn wait_end(&mut self, runtime: &Handle) -> Result<bool> {
        let Some(end) = self.end.take() else { return Ok(false) };
        let ended = runtime.block_on(async { timeout(TIMEOUT, end).await });
        let late = || TestError::Timeout { what: format!("the end of {}", self.ray), after: TIMEOUT };
        ended.map_err(|_| late())?.map_err(std::io::Error::other).attempt(|| format!("run {}", self.ray))
    }
}

/// Opens a WebSocket for each ray.
pub fn open(runtime: &Handle, address: SocketAddr, user: &str, rays: &[String]) -> Result<Vec<Session>> {
    let mut sessions = Vec::with_capacity(rays.len());
    for rays in rays.chunks(AT_ONCE) {
        let opening: Vec<_> = rays.iter().map(|ray| start(runtime, address, user, ray)).collect();
        for (opened, session) in opening {
            let opened = runtime.block_on(async { timeout(TIMEOUT, opened).await });
            match opened {
                Ok(Ok(Ok(()))) => sessions.push(session),
                Ok(Ok(Err(got))) => {
                    return Err(TestError::Unexpected { what: format!("101 for {}", session.ray), got });
                }
                _ => {
                    return Err(TestError::Timeout {
                        what: format!("101 for {}", session.ray),
                        after: TIMEOUT,
                    });
                }
            }
        }
    }
    Ok(sessions)
}

type Opened = oneshot::Receiver<Result<(), String>>;

fn start(runtime: &Handle, address: SocketAddr, user: &str, ray: &str) -> (Opened, Session) {
    let (opened, is_opened) = oneshot::channel();
    let (close, closes) = oneshot::channel();
    let (user, own_ray) = (user.to_owned(), ray.to_owned());
    let task = runtime.spawn(async move {
        let mut peer = match shake_hands(address, &user, &own_ray).await {
            Ok(peer) => peer,
            Err(why) => {
                let _ = opened.send(Err(why));
                return false;
            }
        };
        let _ = opened.send(Ok(()));
        tokio::select! {
            () = cut(&mut peer) => return false,
            _ = closes => {}
        }
        let _ = peer.close_frame(&frame::close_payload(Some(1000), "")).await;
        answered(&mut peer).await
    });
    (is_opened, Session { ray: ray.to_owned(), close: Some(close), end: Some(task) })
}

async fn shake_hands(address: SocketAddr, user: &str, ray: &str) -> Result<Peer, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut peer = Peer::new(stream, false);
    let fields = [("X-authentik-username", user), ("X-Forwarded-For", "203.0.113.7"), ("Cf-Ray", ray)];
    let request = handshake::request("/ws?wsTicket=secret", fields);
    peer.write(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let head = peer.head().await.map_err(|error| error.to_string())?;
    match head {
        Some(head) if handshake::opens(&head) => Ok(peer),
        other => Err(format!("{other:?}")),
    }
}

/// Reads until the connection ends.
async fn cut(peer: &mut Peer) {
    while peer.next().await.is_ok() {}
}

/// Reads until the connection ends; whether there was a Close frame.
async fn answered(peer: &mut Peer) -> bool {
    let mut closed = false;
    while let Ok(frame) = peer.next().await {
        closed |= frame.opcode == opcode::CLOSE;
    }
    closed
}
