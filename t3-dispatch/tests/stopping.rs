//! Shutdown: Close 1001 to both peers, and a record for every session within the drain timeout,
//! whatever the peers do. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, exactly, frame, rest};
use t3_record::{
    Verdict,
    evidence::{OwnEnd, Shutdown},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

#[tokio::test(flavor = "multi_thread")]
async fn both_peers_receive_1001_and_every_session_has_a_record_in_time() {
    let mut fixture = Fixture::new(&["--drain-time", "2s", "--handshake-timeout", "60s"]).await;
    let (mut replying, mut replying_serve) = fixture.open().await;
    let (mut silent, mut silent_serve) = fixture.open().await;
    let (mut cut, mut cut_serve) = fixture.open().await;
    cut_serve.write_all(&frame(0x81, b"half of it", false)[..5]).await.unwrap();
    exactly(&mut cut, 5).await;
    let _opening = fixture.send_upgrade("ann", "").await;
    let _opening_serve = fixture.accept().await;

    let shutdown = Shutdown { signal: Some(15), at: t3_dispatch::sys::clock::now() };
    let app = std::sync::Arc::clone(&fixture.app);
    let started = Instant::now();
    let drain = tokio::spawn(async move {
        t3_dispatch::process::run::drain(&app, shutdown).await;
        started.elapsed()
    });
    let close = frame(0x88, &1001_u16.to_be_bytes(), false);
    assert_eq!(exactly(&mut replying, close.len()).await, close);
    let at_serve = exactly(&mut replying_serve, 8).await;
    assert_eq!((at_serve[0], at_serve[1]), (0x88, 0x82), "masked towards serve");
    assert_eq!([at_serve[6] ^ at_serve[2], at_serve[7] ^ at_serve[3]], 1001_u16.to_be_bytes());
    replying.write_all(&frame(0x88, &1001_u16.to_be_bytes(), true)).await.unwrap();
    replying_serve.write_all(&close).await.unwrap();
    assert_eq!(rest(&mut replying).await.unwrap(), b"");
    drop((replying, replying_serve));

    assert_eq!(rest(&mut silent).await.unwrap(), close);
    assert_eq!(rest(&mut silent_serve).await.unwrap().len(), 8);
    assert_eq!(rest(&mut cut).await.unwrap(), b"", "no Close frame inside another frame");

    let elapsed = drain.await.unwrap();
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
    for _ in 0..4 {
        let (evidence, record) = fixture.judgement().await;
        let facts = evidence.relay.unwrap();
        assert_eq!(facts.shutdown, Some(shutdown));
        assert_eq!(record.verdict, Verdict::DispatchShutdown, "{}", record.to_line());
        if facts.opened_at.is_some() {
            assert_eq!(facts.down.own_end.map(|end| end.0), Some(OwnEnd::Fin));
        }
    }
    fixture.no_more_records().await;
    assert_eq!(fixture.messages("ws close").len(), 4);
    assert!(TcpStream::connect(fixture.address).await.is_err(), "still listening");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_that_crosses_the_signal_is_answered() {
    let fixture = Fixture::new(&["--drain-time", "10s"]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let drain = drain_accepted(&fixture).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: t3\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("\r\nConnection: close\r\n"), "{answer:?}");
    drain.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_does_not_use_up_the_drain_time() {
    let fixture = Fixture::new(&["--drain-time", "60s"]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let drain = drain_accepted(&fixture).await;
    tokio::time::timeout(Duration::from_secs(20), drain).await.expect("ended early").unwrap();
    assert_eq!(rest(&mut client).await.unwrap(), b"");
}

/// Starts to drain when the connections of the clients are accepted.
async fn drain_accepted(fixture: &Fixture) -> tokio::task::JoinHandle<()> {
    while fixture.app.connections.count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let app = std::sync::Arc::clone(&fixture.app);
    let shutdown = Shutdown { signal: Some(15), at: t3_dispatch::sys::clock::now() };
    tokio::spawn(async move { t3_dispatch::process::run::drain(&app, shutdown).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_before_is_not_attributed_to_the_signal() {
    let mut fixture = Fixture::new(&["--drain-time", "1s"]).await;
    let (mut client, mut serve) = fixture.open().await;
    client.shutdown().await.unwrap();
    rest(&mut serve).await.unwrap();
    let shutdown = Shutdown { signal: Some(2), at: t3_dispatch::sys::clock::now() };
    t3_dispatch::process::run::drain(&std::sync::Arc::clone(&fixture.app), shutdown).await;
    assert_eq!(fixture.facts().await.shutdown, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_dropped_by_a_panic_or_a_cancelled_task_writes_its_record() {
    use t3_dispatch::{record::close::SessionRecorder, relay::session::Session};
    let mut fixture = Fixture::new(&[]).await;
    let who = |conn: &str| t3_record::wire::Session {
        conn: conn.to_owned(),
        user: "ann".to_owned(),
        ip: "127.0.0.1".to_owned(),
        ray: None,
        opened_at: None,
        down: None,
        up: None,
        serve_port: 1,
        kept: false,
        resumed: 0,
    };
    let mut panicking = SessionRecorder::open(&fixture.app.recorder, Session::new(who("panicked"), 1), None);
    let panicked = tokio::spawn(async move {
        panicking.opened(None);
        panic!("on purpose");
    });
    assert!(panicked.await.is_err());
    assert_eq!(fixture.judgement().await.1.conn, "panicked");

    let mut cancelled = SessionRecorder::open(&fixture.app.recorder, Session::new(who("cancelled"), 1), None);
    let task = tokio::spawn(async move {
        cancelled.opened(None);
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    task.abort();
    assert_eq!(fixture.judgement().await.1.conn, "cancelled");
    fixture.no_more_records().await;
}
