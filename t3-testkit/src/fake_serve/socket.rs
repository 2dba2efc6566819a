//! WebSocket of a session: tungstenite, or frames with permessage-deflate, which tungstenite lacks.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};

use crate::{
    deflate::{COMPRESSED, Codec},
    frame::{self, Frame, Reader, opcode},
};

pub(super) enum Socket {
    Plain(Box<WebSocketStream<TcpStream>>),
    Compressed(Box<Compressed>),
}

/// A connection with permessage-deflate.
pub(super) struct Compressed {
    stream: TcpStream,
    codec: Codec,
    reader: Reader,
    /// Read and not yet processed.
    ready: VecDeque<Frame>,
    /// A Close frame was sent.
    is_closed: bool,
}

impl Socket {
    /// A connection after its handshake; `early` was read with it.
    pub(super) async fn new(stream: TcpStream, early: Vec<u8>, is_compressed: bool) -> Self {
        if !is_compressed {
            let socket = WebSocketStream::from_partially_read(stream, early, Role::Server, None).await;
            return Self::Plain(Box::new(socket));
        }
        let mut reader = Reader::default();
        let ready = reader.feed(&early).into();
        let codec = Codec::default();
        Self::Compressed(Box::new(Compressed { stream, codec, reader, ready, is_closed: false }))
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket.get_mut(),
            Self::Compressed(socket) => &mut socket.stream,
        }
    }

    /// The next message; `None` at the end. Replies to Ping and Close frames.
    pub(super) async fn next(&mut self) -> Option<Message> {
        match self {
            Self::Plain(socket) => socket.next().await?.ok(),
            Self::Compressed(socket) => socket.next().await,
        }
    }

    /// Sends a message; an error shows at the next read.
    pub(super) async fn send(&mut self, message: Message) {
        match self {
            Self::Plain(socket) => drop(socket.send(message).await),
            Self::Compressed(socket) => {
                if message.is_ping() {
                    let ping = frame::from_server(opcode::PING, &message.into_data());
                    return socket.write(&ping).await;
                }
                let opcode = if message.is_text() { opcode::TEXT } else { opcode::BINARY };
                let payload = socket.codec.compress(&message.into_data());
                socket.write(&frame::raw(0x80 | COMPRESSED | opcode, &payload, false)).await;
            }
        }
    }

    /// Sends a Close frame.
    pub(super) async fn close(&mut self, close: Option<CloseFrame>) {
        match self {
            Self::Plain(socket) => drop(socket.as_mut().close(close).await),
            Self::Compressed(socket) => {
                let (code, reason) = close.map_or((None, String::new()), |close| {
                    (Some(u16::from(close.code)), close.reason.as_str().to_owned())
                });
                socket.is_closed = true;
                socket.write(&frame::from_server(opcode::CLOSE, &frame::close_payload(code, &reason))).await;
            }
        }
    }
}

impl Compressed {
    async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            while let Some(mut frame) = self.ready.pop_front() {
                if frame.is_compressed {
                    frame.payload = self.codec.decompress(&frame.payload)?;
                }
                match frame.opcode {
                    opcode::TEXT => return Some(Message::text(String::from_utf8(frame.payload).ok()?)),
                    opcode::BINARY => return Some(Message::binary(frame.payload)),
                    opcode::PONG => return Some(Message::Pong(frame.payload.into())),
                    opcode::PING => self.write(&frame::from_server(opcode::PONG, &frame.payload)).await,
                    opcode::CLOSE => {
                        if !self.is_closed {
                            self.write(&frame::from_server(opcode::CLOSE, &frame.payload)).await;
                        }
                        return None;
                    }
                    _ => {}
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(n @ 1..) => self.ready.extend(self.reader.feed(bytes.get(..n)?)),
                _ => return None,
            }
        }
    }
}
