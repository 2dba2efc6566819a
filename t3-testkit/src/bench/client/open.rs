//! Connects and upgrades, blocking.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::{TIMEOUT, USER};
use crate::handshake;

/// Opens a session. One at a time keeps accept queues short.
pub(super) fn open(address: SocketAddr, target: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let fields =
        [("X-authentik-username", USER), ("X-Forwarded-For", "203.0.113.7"), ("Cookie", "t3_session=bench")];
    let request = handshake::request(target, fields);
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 512];
        match stream.read(&mut piece)? {
            0 => break,
            length => head.extend_from_slice(piece.get(..length).unwrap_or_default()),
        }
    }
    let text = String::from_utf8_lossy(&head);
    if handshake::opens(&text) {
        return Ok(stream);
    }
    let answer = text.lines().next().unwrap_or("the end of the connection");
    Err(std::io::Error::other(format!("expected 101, got {answer}")))
}
