//! Pages of dispatch's own: health, the echo for probes, the manifest. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{ACCEPT, PATIENCE, Stage, exactly, frame, head, rest};
use t3_dispatch::metrics::reject_reason::RejectReason;
use t3_record::evidence::Shutdown;
use t3_testkit::handshake;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// An answer to a request without an identity.
async fn ask(stage: &Stage, method: &str, path: &str) -> (String, String) {
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: t3\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    (head, String::from_utf8(rest(&mut client).await.unwrap()).unwrap())
}

async fn probe(stage: &Stage) -> TcpStream {
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    let request = handshake::request("/probe/ws", [("Origin", "https://anywhere.example")]);
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn connected(stage: &Stage) -> TcpStream {
    let mut client = probe(stage).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains(ACCEPT), "{answer}");
    client
}

/// A close frame's code, and what follows until the end of file.
async fn closed(client: &mut TcpStream) -> u16 {
    let start = exactly(client, 2).await;
    assert_eq!(start[0], 0x88, "not a close frame");
    let body = exactly(client, usize::from(start[1])).await;
    u16::from_be_bytes([body[0], body[1]])
}

async fn none(stage: &Stage) {
    timeout(PATIENCE, stage.app.pages.echo.none()).await.expect("the place is never given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_ok_for_everybody_and_reaches_no_serve() {
    // Not even the loopback is trusted here.
    let stage = Stage::new(&["--trusted-proxy", "192.0.2.0/24"]).await;
    for path in ["/healthz", "/probe/healthz", "/healthz?x=1"] {
        let (head, body) = ask(&stage, "GET", path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 3\r\n"), "{head}");
        assert_eq!(body, "ok\n");
        let (head, body) = ask(&stage, "HEAD", path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 3\r\n"), "{head}");
        assert_eq!(body, "");
        let (head, _) = ask(&stage, "POST", path).await;
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("Allow: GET, HEAD\r\n"), "{head}");
    }
    for path in ["/healthz/x", "/probe", "/Healthz"] {
        assert!(ask(&stage, "GET", path).await.0.starts_with("HTTP/1.1 403 "), "{path}");
    }
    assert!(timeout(Duration::from_millis(100), stage.serve.accept()).await.is_err(), "serve was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_is_ours_only_while_pages_name_it() {
    let stage = Stage::new(&[]).await;
    let (head, body) = ask(&stage, "GET", "/manifest.webmanifest").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/manifest+json"), "{head}");
    let manifest: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&manifest["display"], &manifest["start_url"]), (&"standalone".into(), &"/".into()));
    let without = Stage::new(&["--no-install-tags"]).await;
    let (head, _) = ask(&without, "GET", "/manifest.webmanifest").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "it is serve's page then: {head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_says_back_text_and_binary_and_answers_pings_and_close() {
    let mut stage = Stage::new(&["--trusted-proxy", "192.0.2.0/24"]).await;
    let mut client = connected(&stage).await;
    for first in [0x81, 0x82] {
        client.write_all(&frame(first, b"ping 1700000000000000000", true)).await.unwrap();
        assert_eq!(exactly(&mut client, 26).await, frame(first, b"ping 1700000000000000000", false));
    }
    client.write_all(&frame(0x89, b"p", true)).await.unwrap();
    assert_eq!(exactly(&mut client, 3).await, frame(0x8a, b"p", false));
    assert_eq!(stage.app.pages.echo.count(), 1);
    client.write_all(&frame(0x88, &1000_u16.to_be_bytes(), true)).await.unwrap();
    assert_eq!(closed(&mut client).await, 1000);
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    none(&stage).await;
    stage.no_more_records().await;
    assert_eq!(stage.messages("ws").len(), 0, "a probe is no session");
    assert_eq!(stage.app.websocket.admission.in_use(), (0, 0));
    assert!(timeout(Duration::from_millis(50), stage.serve.accept()).await.is_err(), "serve was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_probe_is_closed_and_a_talking_one_is_not() {
    let stage = Stage::new(&["--probe-silence", "600ms"]).await;
    // Its silence begins when it is connected, however long the other one takes for that.
    let began = Instant::now();
    let mut silent = connected(&stage).await;
    let mut talking = connected(&stage).await;
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
async fn a_probe_that_sends_half_a_message_or_reads_nothing_is_silent_too() {
    let stage = Stage::new(&["--probe-silence", "300ms"]).await;
    let mut half = connected(&stage).await;
    let mut deaf = connected(&stage).await;
    half.write_all(&[0x81, 0xfe]).await.unwrap();
    let mut large = vec![0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0];
    large.resize(8 + 65535, 7);
    // Its answers fill every buffer on the way; then the echo cannot write, and stops to read.
    let flood = async { while deaf.write_all(&large).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the echo takes without end");
    none(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_broken_is_closed_with_its_code() {
    let stage = Stage::new(&[]).await;
    let mut announced = vec![0x82, 0xff];
    announced.extend_from_slice(&(64 * 1024 + 1_u64).to_be_bytes());
    announced.extend_from_slice(&[0; 4]);
    for (bytes, code) in [
        (announced, 1009),
        (frame(0x81, b"not masked", false), 1002),
        (frame(0x81, &[0xff, 0xfe], true), 1007),
    ] {
        let mut client = connected(&stage).await;
        client.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&mut client).await, code);
        assert_eq!(rest(&mut client).await.unwrap(), b"", "an end of file, not a reset");
        drop(client);
        none(&stage).await;
    }
    let mut largest = vec![0x82, 0xff];
    largest.extend_from_slice(&(64 * 1024_u64).to_be_bytes());
    largest.resize(largest.len() + 4 + 64 * 1024, 0);
    let mut client = connected(&stage).await;
    client.write_all(&largest).await.unwrap();
    assert_eq!(exactly(&mut client, 10 + 64 * 1024).await.len(), 10 + 64 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_probes() {
    let stage = Stage::new(&["--max-probes", "2"]).await;
    let (first, second) = (connected(&stage).await, connected(&stage).await);
    assert!(head(&mut probe(&stage).await).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(stage.app.rejections.count(RejectReason::Probes), 1);
    drop((first, second));
    none(&stage).await;
    connected(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_upgrade_hears_what_it_should_have_been() {
    let stage = Stage::new(&[]).await;
    let (head, _) = ask(&stage, "GET", "/probe/ws").await;
    assert!(head.starts_with("HTTP/1.1 426 ") && head.contains("Upgrade: websocket\r\n"), "{head}");
    let mut client = TcpStream::connect(stage.address).await.unwrap();
    let request = "GET /probe/ws HTTP/1.1\r\nHost: t3\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(fixture::head(&mut client).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(stage.app.pages.echo.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_hear_1001_when_dispatch_stops() {
    let stage = Stage::new(&["--drain-time", "3s"]).await;
    let (mut polite, mut silent) = (connected(&stage).await, connected(&stage).await);
    let told = Shutdown { signal: Some(15), at: t3_dispatch::sys::clock::now() };
    let app = std::sync::Arc::clone(&stage.app);
    let drain = tokio::spawn(async move { t3_dispatch::process::run::drain(&app, told).await });
    assert_eq!(closed(&mut polite).await, 1001);
    polite.write_all(&frame(0x88, &1001_u16.to_be_bytes(), true)).await.unwrap();
    assert_eq!(rest(&mut polite).await.unwrap(), b"");
    drop(polite);
    assert_eq!(closed(&mut silent).await, 1001);
    drain.await.unwrap();
    assert_eq!(stage.app.pages.echo.count(), 0, "stopped while a probe was still connected");
}
