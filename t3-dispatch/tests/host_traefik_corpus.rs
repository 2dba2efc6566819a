//! The smuggling corpus and hostile answers behind a real Traefik, whose connections to dispatch
//! carry the requests of all users: no user gets an answer to, or sends a request as, another one.
//!
//! Needs pip (for Traefik).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use fixture::{Fixture, TIMEOUT, head};
use t3_dispatch::routing::table::Table;
use t3_testkit::{harness::Traefik, prerequisite};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Heads that serve received.
type Heads = Arc<Mutex<Vec<String>>>;

/// What ann's serve answers besides its proper answer.
const HOSTILE: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 6\r\n\r\nokevil",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
    "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokevil",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
];

/// A serve that answers each request with its user and path, and `/hostile/N` with [`HOSTILE`].
async fn serve(user: &'static str, heads: Heads) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let heads = Arc::clone(&heads);
            tokio::spawn(async move {
                loop {
                    let mut bytes = Vec::new();
                    while !bytes.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => bytes.push(byte),
                            Err(_) => return,
                        }
                    }
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    heads.lock().unwrap().push(text);
                    let hostile = path.strip_prefix("/hostile/").and_then(|n| n.parse::<usize>().ok());
                    let body = format!("{user} {path}");
                    let proper = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    let answer = hostile.map_or(proper, |n| HOSTILE[n].to_owned());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn request(user: &str, line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {user}\r\n{more}\r\n")
}

/// What ann sends: one request to Traefik, two to a parser that errs.
fn corpus() -> Vec<String> {
    let inner = request("ann", "GET /smuggled", "");
    let chunk = format!("0\r\n\r\n{inner}");
    let length = |body: &str| format!("Content-Length: {}\r\n", body.len());
    let te = "Transfer-Encoding: chunked\r\n";
    let post = |more: &str, body: &str| request("ann", "POST /a", more) + body;
    let mut all = vec![
        post(&format!("{}{te}", length(&chunk)), &chunk),
        post(&format!("{te}{}", length("5\r\n")), &chunk),
        post("Content-Length: 0\r\nContent-Length: 44\r\n", &inner),
        post("Content-Length: 0, 44\r\n", &inner),
        post("Content-Length: +0\r\n", &inner),
        post("Content-Length : 0\r\n", &inner),
        post("Content-Length: 0\r\nConnection: Content-Length\r\n", &inner),
        post(&format!("{te}Connection: Transfer-Encoding\r\n"), &chunk),
        post(te, &format!("0;x=\"\r\n\r\n{inner}")),
        post(te, &format!("1\r\nAB\r\n0\r\n\r\n{inner}")),
        post(te, &format!("0\r\nX: y\r\nContent-Length: 9\r\n\r\n{inner}")),
        post(te, &format!("ffffffffffffffff1\r\n{inner}")),
        request("ann", "GET /a", "Expect: 100-continue\r\nContent-Length: 4\r\n") + &inner,
        request(
            "ann",
            "GET /a",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n",
        ) + &inner,
        request("ann", "GET /a", "Upgrade: websocket\r\nConnection: Upgrade\r\n") + &inner,
        request("ann", "HEAD /a", "Content-Length: 3\r\n") + &inner,
        request("ann", "GET /a", "X-Authentik-Username: bob\r\n"),
        request("ann", "GET /a", "x_authentik_username: bob\r\n"),
        request("ann", "GET /a", "Connection: X-Authentik-Username\r\n"),
        format!("GET http://t3/a HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n{inner}"),
    ];
    for coding in
        ["xchunked", "identity, chunked", "chunked, chunked", "\u{b}chunked", "chunked;q=1", "CHUNKED"]
    {
        all.push(post(&format!("{}Transfer-Encoding: {coding}\r\n", length(&chunk)), &chunk));
    }
    all
}

/// Sends bytes and reads until Traefik is silent or the connection ends.
async fn attack(to: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut got = Vec::new();
    let read = async { while stream.read_buf(&mut got).await.unwrap_or(0) > 0 {} };
    let _ = timeout(Duration::from_millis(150), read).await;
    String::from_utf8_lossy(&got).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_share_traefiks_connections_get_only_their_own() {
    let fixture = Fixture::new(&[]).await;
    let (ann_heads, bob_heads) = (Heads::default(), Heads::default());
    let ann = serve("ann", Arc::clone(&ann_heads)).await;
    let bob = serve("bob", Arc::clone(&bob_heads)).await;
    let uid = rustix::process::geteuid().as_raw();
    let entry = |user, port| format!(r#""{user}": {{"os_user": "{user}", "port": {port}, "uid": {uid}}}"#);
    let text = format!("{{{}, {}}}", entry("ann", ann), entry("bob", bob));
    *fixture.app.table.write().unwrap() = Arc::new(Table::parse(&text, &PathBuf::from("test")).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = (dir.path().to_owned(), fixture.address);
    let started = tokio::task::spawn_blocking(move || Traefik::start(&path, address)).await.unwrap();
    let Some(traefik) = prerequisite::or_skip("Traefik in front", started) else { return };

    let mut victim = TcpStream::connect(traefik.address).await.unwrap();
    let mut asked = 0;
    let hostile = (0..HOSTILE.len()).map(|n| request("ann", &format!("GET /hostile/{n}"), ""));
    let attacks: Vec<_> = corpus().into_iter().chain(hostile).collect();
    let count = attacks.len();
    for (n, bytes) in attacks.into_iter().enumerate() {
        let got = attack(traefik.address, bytes.as_bytes()).await;
        assert!(!got.contains("bob /") && !got.contains("evil"), "{n}: {bytes}\n{got}");
        for _ in 0..3 {
            asked += 1;
            let wanted = format!("bob /mine/{asked}");
            victim.write_all(request("bob", &format!("GET /mine/{asked}"), "").as_bytes()).await.unwrap();
            let answer = head(&mut victim).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{n}: {bytes}\n{answer}");
            let mut body = vec![0; wanted.len()];
            timeout(TIMEOUT, victim.read_exact(&mut body)).await.unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&body), wanted, "{n}: {bytes}");
        }
    }
    let paths: Vec<_> = bob_heads.lock().unwrap().clone();
    assert_eq!(paths.len(), asked, "only bob's own requests: {paths:?}");
    assert!(paths.iter().all(|head| head.starts_with("GET /mine/")), "{paths:?}");
    for seen in ann_heads.lock().unwrap().iter() {
        assert!(!seen.to_lowercase().contains("x-authentik-username: bob"), "{seen}");
    }
    eprintln!("{count} attacks by ann, {asked} requests by bob");
}
