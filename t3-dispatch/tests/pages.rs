//! Pages that t3-dispatch serves: health check, probe echo, manifest. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{ACCEPT, Fixture, TIMEOUT, UNTRUSTED, exactly, frame, head, rest};
use t3_dispatch::metrics::reject_reason::RejectReason;
use t3_record::evidence::Shutdown;
use t3_testkit::handshake;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Sends a request without an identity; returns head and body.
async fn get_page(fixture: &Fixture, method: &str, path: &str) -> (String, String) {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    (head, String::from_utf8(rest(&mut client).await.unwrap()).unwrap())
}

async fn probe(fixture: &Fixture) -> TcpStream {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = handshake::request("/probe/ws", [("Origin", "https://anywhere.example")]);
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn connected(fixture: &Fixture) -> TcpStream {
    let mut client = probe(fixture).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "{answer}");
    client
}

/// Reads a Close frame; returns its code.
async fn closed(client: &mut TcpStream) -> u16 {
    let start = exactly(client, 2).await;
    assert_eq!(start[0], 0x88, "not a close frame");
    let body = exactly(client, usize::from(start[1])).await;
    u16::from_be_bytes([body[0], body[1]])
}

async fn none(fixture: &Fixture) {
    timeout(TIMEOUT, fixture.app.pages.echo.none()).await.expect("a probe is still connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_ok_for_any_peer_and_does_not_reach_serve() {
    // The client is not trusted here.
    let fixture = Fixture::new(&["--trusted-user", UNTRUSTED]).await;
    for path in ["/healthz", "/probe/healthz", "/healthz?x=1"] {
        let (head, body) = get_page(&fixture, "GET", path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 3\r\n"), "{head}");
        assert_eq!(body, "ok\n");
        let (head, body) = get_page(&fixture, "HEAD", path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 3\r\n"), "{head}");
        assert_eq!(body, "");
        let (head, _) = get_page(&fixture, "POST", path).await;
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("Allow: GET, HEAD\r\n"), "{head}");
    }
    for path in ["/healthz/x", "/probe", "/Healthz"] {
        assert!(get_page(&fixture, "GET", path).await.0.starts_with("HTTP/1.1 403 "), "{path}");
    }
    assert!(
        timeout(Duration::from_millis(100), fixture.serve.accept()).await.is_err(),
        "serve received a connection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_exists_only_with_install_tags() {
    let fixture = Fixture::new(&[]).await;
    let (head, body) = get_page(&fixture, "GET", "/manifest.webmanifest").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/manifest+json"), "{head}");
    let manifest: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&manifest["display"], &manifest["start_url"]), (&"standalone".into(), &"/".into()));
    let without = Fixture::new(&["--no-install-tags"]).await;
    let (head, _) = get_page(&without, "GET", "/manifest.webmanifest").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "the path belongs to serve: {head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_returns_text_and_binary_and_replies_to_ping_and_close() {
    let mut fixture = Fixture::new(&["--trusted-user", UNTRUSTED]).await;
    let mut client = connected(&fixture).await;
    for first in [0x81, 0x82] {
        client.write_all(&frame(first, b"ping 1700000000000000000", true)).await.unwrap();
        assert_eq!(exactly(&mut client, 26).await, frame(first, b"ping 1700000000000000000", false));
    }
    client.write_all(&frame(0x89, b"p", true)).await.unwrap();
    assert_eq!(exactly(&mut client, 3).await, frame(0x8a, b"p", false));
    assert_eq!(fixture.app.pages.echo.count(), 1);
    client.write_all(&frame(0x88, &1000_u16.to_be_bytes(), true)).await.unwrap();
    assert_eq!(closed(&mut client).await, 1000);
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    none(&fixture).await;
    fixture.no_more_records().await;
    assert_eq!(fixture.messages("ws").len(), 0, "a probe is not a session");
    assert_eq!(fixture.app.websocket.admission.in_use(), (0, 0));
    assert!(
        timeout(Duration::from_millis(50), fixture.serve.accept()).await.is_err(),
        "serve received a connection"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_probe_is_closed_and_an_active_one_is_not() {
    let fixture = Fixture::new(&["--probe-silence", "600ms"]).await;
    // Its idle time starts when it is connected.
    let began = Instant::now();
    let mut silent = connected(&fixture).await;
    let mut talking = connected(&fixture).await;
    let talk = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(150)).await;
            talking.write_all(&frame(0x81, b"x", true)).await.unwrap();
            assert_eq!(exactly(&mut talking, 3).await, frame(0x81, b"x", false));
        }
    };
    let reaped = async {
        let code = closed(&mut silent).await;
        (code, began.elapsed())
    };
    let ((code, after), ()) = tokio::join!(reaped, talk);
    assert_eq!(code, 1001);
    assert!(after >= Duration::from_millis(600), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_sends_half_a_message_or_does_not_read_is_idle() {
    let fixture = Fixture::new(&["--probe-silence", "300ms"]).await;
    let mut half = connected(&fixture).await;
    let mut deaf = connected(&fixture).await;
    half.write_all(&[0x81, 0xfe]).await.unwrap();
    let mut large = vec![0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0];
    large.resize(8 + 65535, 7);
    // The echoes fill every buffer on the path; then the echo cannot write and stops reading.
    let flood = async { while deaf.write_all(&large).await.is_ok() {} };
    timeout(TIMEOUT, flood).await.expect("the echo reads without limit");
    none(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_messages_are_closed_with_their_code() {
    let fixture = Fixture::new(&[]).await;
    let mut announced = vec![0x82, 0xff];
    announced.extend_from_slice(&(64 * 1024 + 1_u64).to_be_bytes());
    announced.extend_from_slice(&[0; 4]);
    for (bytes, code) in [
        (announced, 1009),
        (frame(0x81, b"not masked", false), 1002),
        (frame(0x81, &[0xff, 0xfe], true), 1007),
    ] {
        let mut client = connected(&fixture).await;
        client.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&mut client).await, code);
        assert_eq!(rest(&mut client).await.unwrap(), b"", "FIN, not RST");
        drop(client);
        none(&fixture).await;
    }
    let mut largest = vec![0x82, 0xff];
    largest.extend_from_slice(&(64 * 1024_u64).to_be_bytes());
    largest.resize(largest.len() + 4 + 64 * 1024, 0);
    let mut client = connected(&fixture).await;
    client.write_all(&largest).await.unwrap();
    assert_eq!(exactly(&mut client, 10 + 64 * 1024).await.len(), 10 + 64 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_limited() {
    let fixture = Fixture::new(&["--max-probes", "2"]).await;
    let (first, second) = (connected(&fixture).await, connected(&fixture).await);
    assert!(head(&mut probe(&fixture).await).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(fixture.app.rejections.count(RejectReason::Probes), 1);
    drop((first, second));
    none(&fixture).await;
    connected(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_upgrade_gets_426_or_400() {
    let fixture = Fixture::new(&[]).await;
    let (head, _) = get_page(&fixture, "GET", "/probe/ws").await;
    assert!(head.starts_with("HTTP/1.1 426 ") && head.contains("Upgrade: websocket\r\n"), "{head}");
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = "GET /probe/ws HTTP/1.1\r\nHost: t3\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(fixture::head(&mut client).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(fixture.app.pages.echo.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_receive_close_1001_on_shutdown() {
    let fixture = Fixture::new(&["--drain-time", "3s"]).await;
    let (mut polite, mut silent) = (connected(&fixture).await, connected(&fixture).await);
    let signal = Shutdown { signal: Some(15), at: t3_dispatch::sys::clock::now() };
    let app = std::sync::Arc::clone(&fixture.app);
    let drain = tokio::spawn(async move { t3_dispatch::process::run::drain(&app, signal).await });
    assert_eq!(closed(&mut polite).await, 1001);
    polite.write_all(&frame(0x88, &1001_u16.to_be_bytes(), true)).await.unwrap();
    assert_eq!(rest(&mut polite).await.unwrap(), b"");
    drop(polite);
    assert_eq!(closed(&mut silent).await, 1001);
    drain.await.unwrap();
    assert_eq!(fixture.app.pages.echo.count(), 0, "a probe is still connected");
}
