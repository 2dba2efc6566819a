//! Replacement for Traefik for your own browser: one loopback port per demo user. Each request is
//! forwarded to t3-dispatch with the identity header of that user, and the bytes after its head
//! unchanged.
//!
//! For the demo only: the port does not authenticate.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{
    error::{Attempt, Result},
    handshake,
};

/// Maximum length of a request head in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Listens for this user until the process ends.
pub fn open(user: &'static str, dispatch: SocketAddr) -> Result<SocketAddr> {
    let what = || format!("listen on loopback for {user}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).attempt(what)?;
    let address = listener.local_addr().attempt(what)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The browser sees an error as the end of its connection.
            thread::spawn(move || forward(stream, user, dispatch));
        }
    });
    Ok(address)
}

fn forward(mut browser: TcpStream, user: &str, dispatch: SocketAddr) -> io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = handshake::head_length(&bytes) {
            break end - 2;
        }
        let mut piece = [0; 4096];
        let n = browser.read(&mut piece)?;
        if n == 0 || bytes.len() > MAX_HEAD {
            return Ok(());
        }
        bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
    };
    let rest = bytes.split_off(end);
    let mut serve = TcpStream::connect(dispatch)?;
    serve.set_nodelay(true)?;
    browser.set_nodelay(true)?;
    serve.write_all(with_identity(&String::from_utf8_lossy(&bytes), user).as_bytes())?;
    serve.write_all(&rest)?;
    let (from_browser, to_serve) = (browser.try_clone()?, serve.try_clone()?);
    let there = thread::spawn(move || copy(from_browser, to_serve));
    copy(serve, browser);
    let _ = there.join();
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Returns the head (without its empty line) with exactly one identity header. Except for an
/// upgrade, it allows one request per connection, because only this head is rewritten.
fn with_identity(head: &str, user: &str) -> String {
    let named = |line: &str, name: &str| {
        line.split_once(':').is_some_and(|(have, _)| have.trim().eq_ignore_ascii_case(name))
    };
    let upgrade = head.lines().any(|line| named(line, "upgrade"));
    let mut out = String::with_capacity(head.len() + 64);
    for line in head.split_terminator("\r\n") {
        if !named(line, "x-authentik-username") && (upgrade || !named(line, "connection")) {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str(&format!("X-authentik-username: {user}\r\n"));
    if !upgrade {
        out.push_str("Connection: close\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_identity;

    #[test]
    fn the_identity_header_is_replaced_and_an_upgrade_is_kept() {
        let plain = with_identity(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nX-Authentik-Username: eve\r\n",
            "bob",
        );
        assert_eq!(plain, "GET / HTTP/1.1\r\nHost: x\r\nX-authentik-username: bob\r\nConnection: close\r\n");
        let upgrade =
            with_identity("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", "bob");
        assert_eq!(
            upgrade,
            "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-authentik-username: bob\r\n"
        );
    }
}
