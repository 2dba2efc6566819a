//! One end of a WebSocket, for the clients and serves of chaos: reads heads and frames, with every
//! kind of end.

use std::{io, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    frame::{self, Frame, Reader, opcode},
    handshake,
};

/// Maximum length of a head.
const HEAD_LIMIT: usize = 16 << 10;

/// A message of a plan, and its reply.
pub(crate) const MESSAGE: &[u8] = b"m";
/// Last message of the client: serve may act.
pub(crate) const GO: &[u8] = b"go";

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// A socket with its decoder.
pub(crate) struct Peer {
    stream: TcpStream,
    reader: Reader,
    frames: std::collections::VecDeque<Frame>,
    is_serve: bool,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream, is_serve: bool) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, reader: Reader::default(), frames: std::collections::VecDeque::new(), is_serve }
    }

    /// Reads an HTTP head; keeps the bytes after it. `None`: the stream ended first.
    pub(crate) async fn head(&mut self) -> io::Result<Option<String>> {
        let mut head = Vec::with_capacity(1024);
        loop {
            if let Some(end) = handshake::head_length(&head) {
                let rest = head.split_off(end);
                self.frames.extend(self.reader.feed(&rest));
                return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
            }
            if self.stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_LIMIT {
                return Ok(None);
            }
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn text(&mut self, payload: &[u8]) -> io::Result<()> {
        self.frame(opcode::TEXT, payload).await
    }

    pub(crate) async fn close_frame(&mut self, payload: &[u8]) -> io::Result<()> {
        self.frame(opcode::CLOSE, payload).await
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let make = if self.is_serve { frame::from_server } else { frame::from_client };
        self.write(&make(opcode, payload)).await
    }

    /// Sends the first half of a frame.
    pub(crate) async fn half_a_frame(&mut self) -> io::Result<()> {
        self.write(&frame::half(!self.is_serve)).await
    }

    /// Returns the next frame, or the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Frame, End> {
        let mut bytes = [0; 512];
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) => return Err(End::Fin),
                Ok(n) => self.frames.extend(self.reader.feed(bytes.get(..n).unwrap_or_default())),
                Err(_) => return Err(End::Reset),
            }
        }
    }

    /// Reads until the stream ends; drops frames.
    pub(crate) async fn drain(&mut self) -> End {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }

    /// Sends FIN and keeps the socket.
    pub(crate) async fn fin(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends RST by closing.
    pub(crate) fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
