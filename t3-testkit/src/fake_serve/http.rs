//! HTTP side of the fake serve: page, session check, and the WebSocket handshake with its failures.

use std::{sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Opening, Shared,
    auth::{self, Answer},
    session,
    socket::Socket,
};
use crate::{deflate, handshake};

/// Maximum length of a request head.
const MAX_HEAD: usize = 64 << 10;

/// A page that keeps a session open with the real heartbeat, for a browser.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>fake t3 serve</title><h1>fake t3 serve of USER</h1><pre id="log"></pre><script>
const log = text => document.getElementById("log").append(text + "\n");
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
socket.onopen = () => { log("open"); setInterval(() => socket.send('{"_tag":"Ping"}'), 5000); };
socket.onmessage = event => log(event.data);
socket.onclose = event => log("close " + event.code + " " + event.reason);
</script>
"#;

struct Head {
    method: String,
    target: String,
    key: Option<String>,
    cookie: String,
    length: usize,
    close: bool,
    /// permessage-deflate is offered.
    has_deflate: bool,
}

/// A response.
struct Page {
    status: String,
    kind: String,
    /// Further header lines.
    more: String,
    body: String,
}

/// Reads until the peer ends the connection.
async fn silent(mut stream: TcpStream) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
}

/// Responds to requests until the connection ends or becomes a session.
pub(super) async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let path = head.target.split('?').next().unwrap_or_default();
        if let (Some(key), "/ws") = (&head.key, path) {
            let is_compressed = head.has_deflate && shared.is_deflate_accepted;
            return upgrade(stream, buffer, key, is_compressed, shared).await;
        }
        while buffer.len() < head.length {
            if matches!(stream.read_buf(&mut buffer).await, Ok(0) | Err(_)) {
                return;
            }
        }
        let body: Vec<u8> = buffer.drain(..head.length).collect();
        let page = |status: &str, kind: &str, body: String| Page {
            status: status.to_owned(),
            kind: kind.to_owned(),
            more: String::new(),
            body,
        };
        let page = match (head.method.as_str(), path) {
            (_, "/") => page("200 OK", "text/html", PAGE.replace("USER", &shared.user)),
            ("GET", auth::SESSION) | ("POST", auth::BROWSER_SESSION | auth::BOOTSTRAP) => {
                let answer = shared.auth().answer(path, &head.cookie, &body);
                match answer {
                    Answer::Page { status, cookies, body } => Page {
                        status: format!("{status} Fake"),
                        kind: "application/json".to_owned(),
                        more: cookies.iter().map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect(),
                        body,
                    },
                    Answer::Silent => return silent(stream).await,
                    Answer::Eof => return session::finish(stream).await,
                }
            }
            (_, auth::ASKED) => page("200 OK", "text/plain", shared.auth().asked()),
            (_, "/headers") => page("200 OK", "text/plain", head.target.clone()),
            _ => page("404 Not Found", "text/plain", "no such page\n".to_owned()),
        };
        let Page { status, kind, more, body } = page;
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() || head.close {
            return;
        }
    }
}

async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Head> {
    let end = loop {
        if let Some(end) = handshake::head_length(buffer) {
            break end;
        }
        if buffer.len() > MAX_HEAD || matches!(stream.read_buf(buffer).await, Ok(0) | Err(_)) {
            return None;
        }
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let text = String::from_utf8_lossy(&head);
    let field = |name: &str| handshake::field(&text, name);
    Some(Head {
        method: text.split(' ').next().unwrap_or_default().to_owned(),
        target: text.split(' ').nth(1).unwrap_or_default().to_owned(),
        key: field("sec-websocket-key").map(str::to_owned),
        cookie: field("cookie").unwrap_or_default().to_owned(),
        length: field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
        has_deflate: field("sec-websocket-extensions")
            .is_some_and(|value| value.contains(deflate::EXTENSION)),
        close: field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    })
}

async fn upgrade(mut stream: TcpStream, early: Vec<u8>, key: &str, is_compressed: bool, shared: Arc<Shared>) {
    let response = match shared.opening() {
        Opening::Accept if is_compressed => {
            let accepted = format!("Sec-WebSocket-Extensions: {}\r\n", deflate::EXTENSION);
            handshake::response_with(key, &accepted)
        }
        Opening::Accept => handshake::response(key),
        Opening::WrongAccept => handshake::response("another key"),
        Opening::Silent => return silent(stream).await,
        Opening::Status(status) => {
            let answer =
                format!("HTTP/1.1 {status} Fake\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            return session::finish(stream).await;
        }
        Opening::Garbage => {
            let _ = stream.write_all(b"\x16\x03\x01 not HTTP\r\n\r\n").await;
            return session::finish(stream).await;
        }
        Opening::Eof => return session::finish(stream).await,
        Opening::Reset => {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
    };
    if stream.write_all(response.as_bytes()).await.is_ok() {
        session::run(Socket::new(stream, early, is_compressed).await, shared).await;
    }
}
