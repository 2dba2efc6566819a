//! A session of the fake serve: replies to heartbeats, echoes other messages, ends as ordered.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, Utf8Bytes, protocol::CloseFrame},
};

use super::{Order, Ordered, Shared};
use crate::frame::{self, HEARTBEAT, HEARTBEAT_ANSWER, opcode};

type Socket = WebSocketStream<TcpStream>;

/// State of a session after an order.
enum Next {
    /// It continues.
    On,
    /// FIN, then read until the peer closes.
    Finish,
    /// The socket is closed immediately.
    Drop,
    /// It stays open, and nothing is read.
    Hold,
}

pub(super) async fn run(mut socket: Socket, shared: Arc<Shared>) {
    let (sender, mut orders) = mpsc::unbounded_channel::<Ordered>();
    shared.enlist(sender);
    let (mut mute, mut deaf) = (false, false);
    loop {
        let next = tokio::select! {
            Some(ordered) = orders.recv() => {
                let next = obey(&mut socket, &ordered.order, &mut mute).await;
                // The reply must come after the act, and dropping the socket is part of the act.
                match next {
                    Next::Drop => drop(socket),
                    Next::Finish => {
                        let _ = socket.get_mut().shutdown().await;
                        answer(ordered);
                        return drain(socket.get_mut()).await;
                    }
                    next => {
                        deaf |= matches!(next, Next::Hold);
                        answer(ordered);
                        continue;
                    }
                }
                return answer(ordered);
            }
            message = socket.next(), if !deaf => react(&mut socket, message, mute, &shared).await,
        };
        if !matches!(next, Next::On) {
            return;
        }
    }
}

fn answer(ordered: Ordered) {
    if let Some(done) = ordered.done {
        let _ = done.send(());
    }
}

async fn react(
    socket: &mut Socket,
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    mute: bool,
    shared: &Arc<Shared>,
) -> Next {
    let reply = match message {
        Some(Ok(Message::Text(text))) if text.as_str() == HEARTBEAT => {
            if mute {
                return Next::On;
            }
            Message::text(HEARTBEAT_ANSWER)
        }
        Some(Ok(Message::Text(text))) if text.starts_with('!') => {
            if let Ok(order) = text[1..].parse::<Order>() {
                let shared = Arc::clone(shared);
                tokio::spawn(async move { shared.carry_out(order).await });
            }
            return Next::On;
        }
        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
        // tungstenite replies to control frames.
        Some(Ok(_)) => return Next::On,
        Some(Err(_)) | None => return Next::Drop,
    };
    let _ = socket.send(reply).await;
    Next::On
}

async fn obey(socket: &mut Socket, order: &Order, mute: &mut bool) -> Next {
    match order {
        Order::Close(code, reason) => {
            let reason = Utf8Bytes::from(reason.as_str());
            let frame = code.map(|code| CloseFrame { code: code.into(), reason });
            let _ = socket.close(frame).await;
        }
        Order::Send(text) => drop(socket.send(Message::text(text.as_str())).await),
        Order::Flood(bytes) => flood(socket.get_mut(), *bytes).await,
        Order::Mute => *mute = true,
        Order::Unmute => *mute = false,
        Order::Deaf => return Next::Hold,
        Order::Fin => return Next::Finish,
        Order::HalfClose => {
            let _ = socket.get_mut().shutdown().await;
            *mute = true;
        }
        Order::Drop => return Next::Drop,
        Order::Reset => {
            let _ = SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO));
            return Next::Drop;
        }
        Order::MidFrame => {
            raw(socket, &frame::half(false)).await;
            return Next::Finish;
        }
        Order::ReservedOpcode => raw(socket, &frame::raw(0x83, b"reserved", false)).await,
        Order::Masked => raw(socket, &frame::raw(0x81, b"masked", true)).await,
        Order::Garbage => raw(socket, b"\xff\xff\xff\xff not a frame").await,
        // Orders for the process are handled elsewhere.
        _ => {}
    }
    Next::On
}

async fn raw(socket: &mut Socket, bytes: &[u8]) {
    let _ = socket.get_mut().write_all(bytes).await;
}

/// Writes one binary message in pieces: building it first would block the event loop of a slow host
/// for seconds, which is a stall.
async fn flood(stream: &mut TcpStream, bytes: usize) {
    const PIECE: [u8; 16 << 10] = [0x55; 16 << 10];
    let mut written = stream.write_all(&frame::header(0x80 | opcode::BINARY, bytes, false)).await;
    let mut left = bytes;
    while written.is_ok() && left > 0 {
        let piece = PIECE.get(..left.min(PIECE.len())).unwrap_or(&PIECE);
        left -= piece.len();
        written = stream.write_all(piece).await;
    }
}

/// Sends FIN, reads to the end, then closes, which cannot cause a RST.
pub(super) async fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    drain(&mut stream).await;
}

async fn drain(stream: &mut TcpStream) {
    let mut sink = [0; 4096];
    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
}
