//! Clients that begin something and do not go on: each gets its answer after its time, and none
//! holds a connection for ever. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{PATIENCE, Stage, head, rest};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const LIMIT: Duration = Duration::from_millis(600);

/// A stage on which only the time named is short.
async fn stage(short: &str) -> Stage {
    Stage::new(&["--no-pairing", short, "600ms"]).await
}

/// Everything until the end, and after how long it came.
async fn told(mut client: TcpStream) -> (String, Duration) {
    let begun = Instant::now();
    let bytes = rest(&mut client).await.unwrap();
    (String::from_utf8(bytes).unwrap(), begun.elapsed())
}

async fn nobody_connects(stage: &Stage) {
    assert!(timeout(Duration::from_millis(150), stage.serve.accept()).await.is_err(), "serve was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_begun_and_not_finished_gets_408() {
    let stage = stage("--header-timeout").await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Us").await.unwrap();
    let (answer, after) = told(client).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert!(after >= LIMIT, "{after:?}");
    nobody_connects(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_gets_408_however_busy_it_looks() {
    let stage = stage("--header-timeout").await;
    let client = TcpStream::connect(stage.address).await.unwrap();
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
    timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut from, &mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&answer));
    trickle.abort();
    nobody_connects(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_coming_gets_408_and_serve_is_let_go() {
    let stage = stage("--body-timeout").await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    let request =
        "POST / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nContent-Length: 10\r\n\r\nhalf";
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, _) = stage.accept().await;
    let (answer, after) = told(client).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert!(after >= LIMIT, "{after:?}");
    assert_eq!(rest(&mut serve).await.unwrap_or_default(), b"half");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_without_a_word() {
    let stage = stage("--idle-timeout").await;
    let fresh = TcpStream::connect(stage.address).await.unwrap();
    let (answer, after) = told(fresh).await;
    assert_eq!(answer, "");
    assert!(after >= LIMIT, "{after:?}");

    let mut used = TcpStream::connect(stage.address).await.unwrap();
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: t3\r\n\r\n").await.unwrap();
    assert!(head(&mut used).await.starts_with("HTTP/1.1 200 "));
    fixture::exactly(&mut used, 3).await;
    let (answer, after) = told(used).await;
    assert_eq!(answer, "");
    assert!(after >= LIMIT, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_does_not_answer_is_504() {
    let stage = stage("--response-timeout").await;
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    let request = "GET /slow HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (_serve, _) = stage.accept().await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer:?}");
    assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer:?}");
}
