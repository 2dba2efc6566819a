//! Replacement for Traefik for your own browser: one loopback port per user. Each request is
//! forwarded to t3-dispatch with the identity header of that user, the bytes after its head
//! unchanged, and FIN and RST as they arrive.
//!
//! For the demo only: the port does not authenticate.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use socket2::SockRef;

use crate::{
    error::{Attempt, Result},
    handshake,
};

/// Maximum length of a request head in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Listens on this port (0: a free one) for this user until the process ends.
pub fn open(user: &'static str, dispatch: SocketAddr, port: u16) -> Result<SocketAddr> {
    let what = || format!("listen on 127.0.0.1:{port} for {user}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).attempt(what)?;
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
    let head = with_identity(&String::from_utf8_lossy(&bytes), user);
    // One write: a peer that reads once gets the complete head.
    serve.write_all(&[head.as_bytes(), &rest].concat())?;
    let (from_browser, to_serve) = (browser.try_clone()?, serve.try_clone()?);
    let there = thread::spawn(move || copy(from_browser, to_serve));
    copy(serve, browser);
    let _ = there.join();
    Ok(())
}

/// Copies until the end of `from`, and ends `to` in the same way.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    match io::copy(&mut from, &mut to) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            // The last close sends RST. The other thread holds a copy of the socket and reads from
            // it: end that read, without a FIN.
            let _ = SockRef::from(&to).set_linger(Some(Duration::ZERO));
            let _ = to.shutdown(Shutdown::Read);
        }
        _ => drop(to.shutdown(Shutdown::Write)),
    }
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
    use super::*;

    #[test]
    fn a_reset_is_passed_on() {
        let dispatch = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open("bob", dispatch.local_addr().unwrap(), 0).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").unwrap();
        let (mut forwarded, _) = dispatch.accept().unwrap();
        let mut head = [0; 1024];
        let n = forwarded.read(&mut head).unwrap();
        assert!(head[..n].ends_with(b"X-authentik-username: bob\r\n\r\n"));
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let error = forwarded.read(&mut head).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

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
