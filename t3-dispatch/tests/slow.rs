//! Slow clients and a slow serve: each timeout gives its response, and no connection stays open
//! indefinitely. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, TIMEOUT, head, rest};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const LIMIT: Duration = Duration::from_millis(600);

/// Starts a fixture in which only the named timeout is short.
async fn start(short: &str) -> Fixture {
    Fixture::new(&["--no-pairing", short, "600ms"]).await
}

/// Returns all bytes until the end.
async fn response(mut client: TcpStream) -> String {
    let bytes = rest(&mut client).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn no_connection_to_serve(fixture: &Fixture) {
    assert!(
        timeout(Duration::from_millis(150), fixture.serve.accept()).await.is_err(),
        "serve received a connection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_head_gets_408() {
    let fixture = start("--header-timeout").await;
    // Before anything that can start the timer of t3-dispatch.
    let began = Instant::now();
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Us").await.unwrap();
    let (text, elapsed) = (response(client).await, began.elapsed());
    assert!(text.starts_with("HTTP/1.1 408 "), "{text:?}");
    assert!(elapsed >= LIMIT, "{elapsed:?}");
    no_connection_to_serve(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickling_head_gets_408() {
    let fixture = start("--header-timeout").await;
    let client = TcpStream::connect(fixture.address).await.unwrap();
    let (mut from, mut to) = client.into_split();
    let trickle = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nHost: t3\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
            if to.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = Vec::new();
    timeout(TIMEOUT, tokio::io::AsyncReadExt::read_to_end(&mut from, &mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&answer));
    trickle.abort();
    no_connection_to_serve(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_gets_408_and_the_upstream_connection_closes() {
    let fixture = start("--body-timeout").await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request =
        "POST / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nContent-Length: 10\r\n\r\nhalf";
    let began = Instant::now();
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    let (text, elapsed) = (response(client).await, began.elapsed());
    assert!(text.starts_with("HTTP/1.1 408 "), "{text:?}");
    assert!(elapsed >= LIMIT, "{elapsed:?}");
    assert_eq!(rest(&mut serve).await.unwrap_or_default(), b"half");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_without_a_response() {
    let fixture = start("--idle-timeout").await;
    let began = Instant::now();
    let fresh = TcpStream::connect(fixture.address).await.unwrap();
    let (text, elapsed) = (response(fresh).await, began.elapsed());
    assert_eq!(text, "");
    assert!(elapsed >= LIMIT, "{elapsed:?}");

    let mut used = TcpStream::connect(fixture.address).await.unwrap();
    let began = Instant::now();
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: t3\r\n\r\n").await.unwrap();
    assert!(head(&mut used).await.starts_with("HTTP/1.1 200 "));
    fixture::exactly(&mut used, 3).await;
    let (text, elapsed) = (response(used).await, began.elapsed());
    assert_eq!(text, "");
    assert!(elapsed >= LIMIT, "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_serve_gets_504() {
    let fixture = start("--response-timeout").await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = "GET /slow HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (_serve, _) = fixture.accept().await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer:?}");
    assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer:?}");
}
