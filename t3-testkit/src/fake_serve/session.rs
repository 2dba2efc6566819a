//! A session of the fake serve: replies to heartbeats, echoes other messages, ends as ordered.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Interval, interval},
};
use tokio_tungstenite::tungstenite::{Bytes, Message, Utf8Bytes, protocol::CloseFrame};

use super::{Order, Ordered, Shared, socket::Socket};
use crate::frame::{self, HEARTBEAT, HEARTBEAT_ANSWER, opcode};

/// The `number`th message of [`Order::Stream`]: different from the others, as output is, so that
/// compression does not make it as small as a reply to a heartbeat.
fn output(number: u64) -> String {
    let words = (0..4).map(|part| BuildHasherDefault::<DefaultHasher>::default().hash_one((number, part)));
    let line: String = words.map(|word| format!("{word:016x}")).collect();
    format!(r#"{{"_tag":"Chunk","values":["{line}"]}}"#)
}

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

/// Behaviour that orders change.
#[derive(Default)]
struct State {
    is_mute: bool,
    is_deaf: bool,
    stream: Option<Interval>,
    streamed: u64,
    pings: Option<Interval>,
    /// The last Ping frame is unanswered.
    is_ping_unanswered: bool,
}

pub(super) async fn run(mut socket: Socket, shared: Arc<Shared>) {
    let (sender, mut orders) = mpsc::unbounded_channel::<Ordered>();
    shared.enlist(sender);
    let mut state = State::default();
    loop {
        let next = tokio::select! {
            Some(ordered) = orders.recv() => {
                let next = obey(&mut socket, &ordered.order, &mut state).await;
                // The reply must come after the act, and dropping the socket is part of the act.
                match next {
                    Next::Drop => drop(socket),
                    Next::Finish => {
                        let _ = socket.stream().shutdown().await;
                        answer(ordered);
                        return drain(socket.stream()).await;
                    }
                    next => {
                        state.is_deaf |= matches!(next, Next::Hold);
                        answer(ordered);
                        continue;
                    }
                }
                return answer(ordered);
            }
            () = tick(&mut state.stream) => {
                state.streamed += 1;
                socket.send(Message::text(output(state.streamed))).await;
                Next::On
            }
            () = tick(&mut state.pings) => {
                if std::mem::replace(&mut state.is_ping_unanswered, true) {
                    return;
                }
                socket.send(Message::Ping(Bytes::from_static(b"alive"))).await;
                Next::On
            }
            message = socket.next(), if !state.is_deaf => {
                state.is_ping_unanswered &= !matches!(message, Some(Message::Pong(_)));
                react(&mut socket, message, state.is_mute, &shared).await
            }
        };
        if !matches!(next, Next::On) {
            return;
        }
    }
}

/// Waits for the next tick, if there is a timer.
async fn tick(stream: &mut Option<Interval>) {
    match stream {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn answer(ordered: Ordered) {
    if let Some(done) = ordered.done {
        let _ = done.send(());
    }
}

async fn react(socket: &mut Socket, message: Option<Message>, is_mute: bool, shared: &Arc<Shared>) -> Next {
    let reply = match message {
        Some(Message::Text(text)) if text.as_str() == HEARTBEAT => {
            if is_mute {
                return Next::On;
            }
            Message::text(HEARTBEAT_ANSWER)
        }
        Some(Message::Text(text)) if text.starts_with('!') => {
            if let Ok(order) = text[1..].parse::<Order>() {
                let shared = Arc::clone(shared);
                tokio::spawn(async move { shared.carry_out(order).await });
            }
            return Next::On;
        }
        Some(message @ (Message::Text(_) | Message::Binary(_))) => message,
        // The socket replies to control frames.
        Some(_) => return Next::On,
        None => return Next::Drop,
    };
    socket.send(reply).await;
    Next::On
}

async fn obey(socket: &mut Socket, order: &Order, state: &mut State) -> Next {
    match order {
        Order::Close(code, reason) => {
            let reason = Utf8Bytes::from(reason.as_str());
            let frame = code.map(|code| CloseFrame { code: code.into(), reason });
            socket.close(frame).await;
        }
        Order::Send(text) => socket.send(Message::text(text.as_str())).await,
        Order::Flood(bytes) => flood(socket.stream(), *bytes).await,
        Order::Stream(period) => state.stream = Some(interval(*period)),
        Order::Ping(period) => state.pings = Some(interval(*period)),
        Order::Inherit(seconds) => drop(inherit(socket.stream(), *seconds)),
        Order::Mute => state.is_mute = true,
        Order::Unmute => state.is_mute = false,
        Order::Deaf => return Next::Hold,
        Order::Fin => return Next::Finish,
        Order::HalfClose => {
            let _ = socket.stream().shutdown().await;
            state.is_mute = true;
        }
        Order::Drop => return Next::Drop,
        Order::Reset => {
            let _ = SockRef::from(&*socket.stream()).set_linger(Some(Duration::ZERO));
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
    let _ = socket.stream().write_all(bytes).await;
}

/// Starts a child that inherits the socket, and outlives serve.
fn inherit(stream: &TcpStream, seconds: u64) -> io::Result<()> {
    fcntl_setfd(stream, FdFlags::empty())?;
    let mut child = Command::new("sleep");
    child.arg(seconds.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = child.spawn();
    fcntl_setfd(stream, FdFlags::CLOEXEC)?;
    let mut child = child?;
    std::thread::spawn(move || child.wait());
    Ok(())
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
