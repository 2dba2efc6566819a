//! The client's side of the opening handshake on its socket.

use std::io::{Read, Write};

use socket2::Socket;

use super::Config;
use crate::{
    deflate,
    error::{Attempt, Result, TestError},
    handshake,
};

/// Sends the request and reads the head of the response; returns the bytes after it.
pub(super) fn shake(socket: &mut Socket, config: &Config) -> Result<Vec<u8>> {
    let fields = config.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let offer = config.is_compressed.then_some(("Sec-WebSocket-Extensions", deflate::OFFER));
    let request = handshake::request(&config.target, fields.chain(offer));
    socket.write_all(request.as_bytes()).attempt(|| "send the handshake".to_owned())?;
    let mut response = Vec::new();
    let end = loop {
        if let Some(end) = handshake::head_length(&response) {
            break end;
        }
        let mut piece = [0; 1024];
        match socket.read(&mut piece).attempt(|| "read the response to the handshake".to_owned())? {
            0 => return Err(unexpected(&response)),
            n => response.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    };
    let rest = response.split_off(end);
    let text = String::from_utf8_lossy(&response);
    let extension = handshake::field(&text, "sec-websocket-extensions").unwrap_or_default();
    let is_compressed = extension.starts_with(deflate::EXTENSION);
    if handshake::opens(&text) && is_compressed == config.is_compressed {
        Ok(rest)
    } else {
        Err(unexpected(&response))
    }
}

fn unexpected(response: &[u8]) -> TestError {
    let text = String::from_utf8_lossy(response);
    TestError::Unexpected {
        what: "101 and the right Sec-WebSocket-Accept".to_owned(),
        got: text.lines().next().unwrap_or("the connection ended").to_owned(),
    }
}
