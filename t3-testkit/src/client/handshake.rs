//! The opening handshake of RFC 6455 section 4.1, byte by byte.

use std::io::{Read, Write};

use socket2::Socket;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Config;
use crate::error::{Attempt, Result, TestError};

/// The example key of RFC 6455 section 1.3: a test wants the same bytes each time.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Sends the request and reads the answer's head; gives what came after it.
pub(super) fn shake(socket: &mut Socket, config: &Config) -> Result<Vec<u8>> {
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: t3.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
        config.target
    );
    for (name, value) in &config.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).attempt(|| "send the handshake".to_owned())?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 1024];
        match socket.read(&mut piece).attempt(|| "read the answer to the handshake".to_owned())? {
            0 => return Err(unexpected(&answer)),
            n => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    };
    let rest = answer.split_off(end);
    let text = String::from_utf8_lossy(&answer);
    let accept = derive_accept_key(KEY.as_bytes());
    if text.starts_with("HTTP/1.1 101 ") && text.contains(&accept) {
        Ok(rest)
    } else {
        Err(unexpected(&answer))
    }
}

fn unexpected(answer: &[u8]) -> TestError {
    let text = String::from_utf8_lossy(answer);
    TestError::Unexpected {
        what: "101 and the right Sec-WebSocket-Accept".to_owned(),
        got: text.lines().next().unwrap_or("the connection ended").to_owned(),
    }
}
