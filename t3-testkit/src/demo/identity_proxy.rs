//! Stands for Traefik when you look with a browser of your own: one loopback port per demo user,
//! from which each request goes on to t3-dispatch with that user's identity header. Bytes after the
//! request's head pass as they are.
//!
//! For the demo only: whoever reaches the port is the user.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{
    error::{Attempt, Result},
    handshake,
};

/// No request head is longer.
const MAX_HEAD: usize = 64 << 10;

/// Serves until the process ends.
pub fn open(user: &'static str, dispatch: SocketAddr) -> Result<SocketAddr> {
    let what = || format!("listen on loopback for {user}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).attempt(what)?;
    let address = listener.local_addr().attempt(what)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Its end is the browser's business; there is nobody to tell.
            thread::spawn(move || pass(stream, user, dispatch));
        }
    });
    Ok(address)
}

fn pass(mut browser: TcpStream, user: &str, dispatch: SocketAddr) -> io::Result<()> {
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
    serve.write_all(posed(&String::from_utf8_lossy(&bytes), user).as_bytes())?;
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

/// The head (without its empty line) as the user's: one identity header, ours; one request per
/// connection unless it is an upgrade, because only this head is rewritten.
fn posed(head: &str, user: &str) -> String {
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
    use super::posed;

    #[test]
    fn a_request_becomes_the_users_and_an_upgrade_stays_one() {
        let plain = posed(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nX-Authentik-Username: eve\r\n",
            "bob",
        );
        assert_eq!(plain, "GET / HTTP/1.1\r\nHost: x\r\nX-authentik-username: bob\r\nConnection: close\r\n");
        let upgrade = posed("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", "bob");
        assert_eq!(
            upgrade,
            "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-authentik-username: bob\r\n"
        );
    }
}
