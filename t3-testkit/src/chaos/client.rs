//! The client of a plan.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::TcpStream;

use super::{
    clock::now,
    plan::{Act, Plan},
    socket::{GO, MESSAGE, Peer},
};
use crate::{
    frame::{self, opcode},
    handshake,
};

/// Timeout for a session.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Observations of the client. Times in nanoseconds of `CLOCK_MONOTONIC`, 0 for none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub plan: Plan,
    /// Time before the handshake was sent.
    pub asked: u64,
    /// Time of the response.
    pub answered: u64,
    /// HTTP status; 0 for none.
    pub status: u16,
    /// Time before the client's act.
    pub acted: u64,
    /// Time at which the end was seen.
    pub ended: u64,
    /// Time at which the client was done.
    pub over: u64,
    /// The plan was carried out.
    pub finished: bool,
}

impl Seen {
    pub(crate) fn nothing(plan: Plan) -> Self {
        Self { plan, asked: 0, answered: 0, status: 0, acted: 0, ended: 0, over: 0, finished: false }
    }
}

/// Carries out a plan.
pub(crate) async fn run(address: SocketAddr, user: &str, plan: Plan) -> Seen {
    let mut seen = Seen::nothing(plan);
    let done = tokio::time::timeout(TIMEOUT, live(address, user, &mut seen)).await;
    seen.finished = matches!(done, Ok(Ok(())));
    seen.over = now();
    seen
}

async fn live(address: SocketAddr, user: &str, seen: &mut Seen) -> io::Result<()> {
    let Some(mut peer) = open(address, user, seen).await? else { return Ok(()) };
    for _ in 0..seen.plan.messages {
        peer.text(MESSAGE).await?;
        peer.next().await.map_err(|_| io::ErrorKind::UnexpectedEof)?;
    }
    end(peer, seen).await
}

/// Sends the upgrade. `None`: no WebSocket, as planned.
pub(crate) async fn open(address: SocketAddr, user: &str, seen: &mut Seen) -> io::Result<Option<Peer>> {
    let plan = seen.plan;
    let mut peer = Peer::new(connect(address).await?, false);
    let (ip, ray) = (plan.ip(), plan.ray());
    let fields = [("X-authentik-username", user), ("X-Forwarded-For", &ip), ("Cf-Ray", &ray)];
    let request = handshake::request(&plan.to_target(), fields);
    seen.asked = now();
    peer.write(request.as_bytes()).await?;
    if plan.act == Act::Gone {
        tokio::time::sleep(plan.life).await;
        seen.acted = now();
        return Ok(None);
    }
    let head = peer.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    seen.answered = now();
    seen.status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((seen.status == 101 && plan.act.opens()).then_some(peer))
}

/// Ends an open WebSocket as planned.
pub(crate) async fn end(mut peer: Peer, seen: &mut Seen) -> io::Result<()> {
    let plan = seen.plan;
    if plan.act.is_serves() {
        peer.text(GO).await?;
        observe_end(&mut peer, seen).await;
        return Ok(());
    }
    tokio::time::sleep(plan.life).await;
    seen.acted = now();
    match plan.act {
        Act::ClientClose(code) => {
            peer.close_frame(&frame::close_payload(Some(code), "")).await?;
            peer.drain().await;
        }
        Act::ClientFin => {
            peer.fin().await;
            peer.drain().await;
        }
        Act::ClientMidFrame => {
            peer.half_a_frame().await?;
            peer.fin().await;
            peer.drain().await;
        }
        Act::ClientReset => peer.reset(),
        _ => drop(peer),
    }
    Ok(())
}

/// serve acts: the client replies to a Close frame, and closes when the stream ends.
async fn observe_end(peer: &mut Peer, seen: &mut Seen) {
    while let Ok(frame) = peer.next().await {
        if frame.opcode == opcode::CLOSE {
            seen.ended = now();
            let _ = peer.close_frame(&frame.payload).await;
        }
    }
    if seen.ended == 0 {
        seen.ended = now();
    }
}

/// Retries while ephemeral ports are exhausted by connections in TIME_WAIT, and while dispatch is
/// dead.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrNotAvailable | io::ErrorKind::ConnectionRefused
                ) =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}
