//! HTTP through the proxy, with raw sockets at both ends: bodies and trailers, reuse of
//! connections, retries, and error responses. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{path::PathBuf, sync::Arc, time::Duration};

use fixture::{Fixture, TIMEOUT, exactly, head, reset, rest, switching};
use t3_dispatch::routing::table::Table;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn client(fixture: &Fixture) -> TcpStream {
    TcpStream::connect(fixture.address).await.unwrap()
}

fn request(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n{more}\r\n")
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until the text has arrived.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !seen.windows(text.len()).any(|part| part == text.as_bytes()) {
        let read = timeout(TIMEOUT, stream.read_buf(&mut seen)).await;
        let read = read.unwrap_or_else(|_| panic!("no {text:?} in {:?}", String::from_utf8_lossy(&seen)));
        assert!(read.unwrap() > 0, "the end, and no {text:?} in {:?}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

async fn assert_no_data(stream: &mut TcpStream) {
    let read = timeout(Duration::from_millis(150), stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

async fn assert_no_connection(fixture: &Fixture) {
    assert!(
        timeout(Duration::from_millis(150), fixture.serve.accept()).await.is_err(),
        "serve received another connection"
    );
}

/// Waits until this number of upstream connections is idle.
async fn idle(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + TIMEOUT;
    while fixture.app.pool.count() != count {
        assert!(Instant::now() < deadline, "{} idle, not {count}", fixture.app.pool.count());
        sleep(Duration::from_millis(2)).await;
    }
}

/// Completes one request, so that one connection is idle; returns the sockets of client and serve.
async fn answered(fixture: &Fixture) -> (TcpStream, TcpStream) {
    let mut client = client(fixture).await;
    send(&mut client, &request("GET /first", "")).await;
    let (mut serve, _) = fixture.accept().await;
    send(&mut serve, OK).await;
    until(&mut client, "ok").await;
    idle(fixture, 1).await;
    (client, serve)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_connection_is_reused_for_repeatable_requests() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = answered(&fixture).await;
    for line in ["GET /second", "HEAD /third", "OPTIONS /fourth"] {
        send(&mut client, &request(line, "")).await;
        assert!(head(&mut serve).await.starts_with(line));
        send(&mut serve, "HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 204 "));
        idle(&fixture, 1).await;
    }
    assert_no_connection(&fixture).await;
    // An idle connection, which serve may close, is not used for requests that cannot be repeated.
    send(&mut client, &request("POST /fifth", "Content-Length: 0\r\n")).await;
    let (mut fresh, post) = fixture.accept().await;
    assert!(post.starts_with("POST /fifth"));
    send(&mut fresh, OK).await;
    until(&mut client, "ok").await;
    idle(&fixture, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_the_announced_timeout() {
    let fixture = Fixture::new(&["--pool-idle-time", "300ms"]).await;
    let (_client, mut serve) = answered(&fixture).await;
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "closed by dispatch");
    idle(&fixture, 0).await;
    for line in ["Connection: close", "Keep-Alive: timeout=1"] {
        let mut client = client(&fixture).await;
        send(&mut client, &request("GET /", "")).await;
        let (mut serve, _) = fixture.accept().await;
        send(&mut serve, &OK.replace("Content", &format!("{line}\r\nContent"))).await;
        let answer = until(&mut client, "ok").await;
        assert!(!answer.contains(line), "hop-by-hop header: {answer}");
        assert_eq!(rest(&mut serve).await.unwrap(), b"", "{line}");
    }
    let fixture = Fixture::new(&["--pool-size", "0"]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("GET /", "")).await;
    let (mut serve, _) = fixture.accept().await;
    send(&mut serve, OK).await;
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "no pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_reused_for_another_user_on_the_same_port() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = answered(&fixture).await;
    let port = fixture.serve.local_addr().unwrap().port();
    let uid = rustix::process::geteuid().as_raw();
    let table = format!(r#"{{"ann": {{"os_user": "new", "port": {port}, "uid": {uid}}}}}"#);
    let table = Table::parse(&table, &PathBuf::from("test")).unwrap();
    *fixture.app.table.write().unwrap() = Arc::new(table);
    send(&mut client, &request("GET /second", "")).await;
    let (_fresh, second) = fixture.accept().await;
    assert!(second.starts_with("GET /second"));
    assert_no_data(&mut serve).await;
    let table = fixture.app.table();
    fixture.app.pool.retain(|route| table.has(route));
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "closed, as no login has this route");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_retried_once_when_serve_closes_a_reused_connection() {
    for resets in [false, true] {
        let fixture = Fixture::new(&[]).await;
        let (mut client, mut serve) = answered(&fixture).await;
        send(&mut client, &request("GET /second?x=1", "X-Mine: 1\r\n")).await;
        let request = head(&mut serve).await;
        if resets {
            reset(serve);
        } else {
            drop(serve);
        }
        let (fresh, again) = fixture.accept().await;
        assert_eq!(request, again);
        // A request on a new connection is not retried.
        drop(fresh);
        assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
        assert_no_connection(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_idle_connection_is_not_reused() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, serve) = answered(&fixture).await;
    drop(serve);
    send(&mut client, &request("GET /second", "")).await;
    let (mut fresh, second) = fixture.accept().await;
    assert!(second.starts_with("GET /second"));
    send(&mut fresh, OK).await;
    until(&mut client, "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_idempotent_is_never_sent_twice() {
    for (line, more, body) in [
        ("POST /", "Content-Length: 5\r\n", "hel"),
        ("PUT /", "Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n"),
        ("DELETE /", "", ""),
        ("GET /", "Content-Length: 5\r\n", "hel"),
    ] {
        let fixture = Fixture::new(&[]).await;
        let (mut client, _used) = answered(&fixture).await;
        send(&mut client, &(request(line, more) + body)).await;
        let (mut serve, _) = fixture.accept().await;
        if !body.is_empty() {
            until(&mut serve, "hel").await;
        }
        drop(serve);
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{line}: {answer}");
        assert_no_connection(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_decided_by_serve() {
    let fixture = Fixture::new(&[]).await;
    let asks = request("POST /up", "Content-Length: 4\r\nExpect: 100-Continue\r\n");
    let mut client = client(&fixture).await;
    send(&mut client, &asks).await;
    let (mut serve, request) = fixture.accept().await;
    assert!(request.lines().any(|line| line == "Expect: 100-Continue"), "{request}");
    assert_no_data(&mut client).await;
    send(&mut serve, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut client, "body").await;
    assert_eq!(exactly(&mut serve, 4).await, b"body");
    send(&mut serve, OK).await;
    assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200 OK\r\n"));

    // serve rejects the body instead of sending 100, and the missing body does not block.
    send(&mut client, &asks).await;
    let (mut serve, _) = fixture.accept().await;
    send(&mut serve, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(until(&mut client, "no").await.starts_with("HTTP/1.1 417 "));
    assert_eq!(rest(&mut client).await.unwrap(), b"", "closed, as the body may still arrive");
    assert_eq!(rest(&mut serve).await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_ignores_expect_gets_the_body() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("POST /up", "Content-Length: 4\r\nExpect: 100-continue\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut client, "body").await;
    assert_eq!(exactly(&mut serve, 4).await, b"body");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_in_both_directions() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    let asks = request("POST /", "TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n");
    send(&mut client, &(asks + "3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")).await;
    let (mut serve, request) = fixture.accept().await;
    assert!(request.to_lowercase().contains("te: trailers\r\n"), "{request}");
    assert_eq!(until(&mut serve, "\r\n\r\n").await.to_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 43\r\n\r\n";
    send(&mut serve, answer).await;
    let head = head(&mut client).await;
    assert!(head.contains("Trailer: X-Sum\r\n"), "{head}");
    assert_eq!(until(&mut client, "\r\n\r\n").await.to_lowercase(), "2\r\nok\r\n0\r\nx-sum: 43\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_unknown_length_passes_with_every_method() {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "REPORT"] {
        let fixture = Fixture::new(&[]).await;
        let mut client = client(&fixture).await;
        let asks = request(&format!("{method} /"), "Transfer-Encoding: chunked\r\n");
        send(&mut client, &(asks + "3\r\nabc\r\n0\r\n\r\n")).await;
        let (mut serve, request) = fixture.accept().await;
        assert!(request.to_lowercase().contains("transfer-encoding: chunked"), "{request}");
        assert_eq!(until(&mut serve, "0\r\n\r\n").await, "3\r\nabc\r\n0\r\n\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_without_a_body_end_with_their_head() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    for (n, (line, answer, kept)) in [
        ("HEAD /", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: x\r\n\r\n", "Content-Length: 12345"),
        ("HEAD /", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n", "ETag: x"),
        ("GET /", "HTTP/1.1 204 No Content\r\nETag: x\r\n\r\n", "ETag: x"),
        ("GET /", "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", "ETag: x"),
        ("GET /", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n", "ETag: x"),
    ]
    .into_iter()
    .enumerate()
    {
        send(&mut client, &request(line, "")).await;
        let (mut serve, _) = fixture.accept().await;
        send(&mut serve, answer).await;
        if answer.starts_with("HTTP/1.1 103") {
            // Passed on as a head of its own (RFC 9110 section 15.2).
            let interim = head(&mut client).await;
            assert!(interim.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{n}: {interim}");
        }
        let got = head(&mut client).await;
        assert!(got.contains(kept), "{n}: {got}");
        assert_no_data(&mut client).await;
        idle(&fixture, 1).await;
        // A new connection each time.
        fixture.app.pool.retain(|_| false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("GET /events", "Accept: text/event-stream\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    send(
        &mut serve,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    head(&mut client).await;
    for n in 0..50 {
        let event = format!("data: {n:04}\n\n");
        send(&mut serve, &format!("{:x}\r\n{event}\r\n", event.len())).await;
        until(&mut client, &event).await;
    }
    // The client disconnects, and serve sees it.
    drop(client);
    assert!(rest(&mut serve).await.is_ok_and(|rest| rest.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_disconnect_ends_its_request_at_serve() {
    for (line, more, body) in [
        ("GET /", "", ""),
        ("POST /", "Content-Length: 9\r\n", "half"),
        ("POST /", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
    ] {
        for resets in [false, true] {
            let fixture = Fixture::new(&[]).await;
            let mut client = client(&fixture).await;
            send(&mut client, &(request(line, more) + body)).await;
            let (mut serve, _) = fixture.accept().await;
            if !body.is_empty() {
                until(&mut serve, "half").await;
            }
            if resets {
                reset(client);
            } else {
                drop(client);
            }
            let received = rest(&mut serve).await.unwrap_or_default();
            assert!(!received.ends_with(b"0\r\n\r\n"), "the request looks complete: {received:?}");
            idle(&fixture, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_serve_become_responses_with_an_id() {
    enum Act {
        Send(&'static str),
        Leave,
        Wait,
    }
    for (act, status) in [
        (Act::Leave, 502),
        (Act::Wait, 504),
        (Act::Send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502),
        (
            Act::Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            502,
        ),
        (Act::Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"), 502),
        (Act::Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"), 502),
        (
            Act::Send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            ),
            502,
        ),
    ] {
        let fixture = Fixture::new(&["--response-timeout", "300ms"]).await;
        let mut client = client(&fixture).await;
        send(&mut client, &request("GET /a?secret=1", "Cf-Ray: 8d3a-FRA\r\n")).await;
        let (mut serve, _) = fixture.accept().await;
        match act {
            Act::Send(text) => send(&mut serve, text).await,
            Act::Leave => serve.shutdown().await.unwrap(),
            Act::Wait => {}
        }
        let answer = until(&mut client, "(request 8d3a-FRA)\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nx-request-id: 8d3a-fra\r\n"), "{answer}");
        assert!(!answer.contains("secret"), "{answer}");
        rest(&mut serve).await.ok();
    }
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("GET /", "").replace("ann", "gone")).await;
    let answer = until(&mut client, ")\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ")
            && answer.contains("cannot reach t3 serve; is it running? (request "),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_response_does_not_look_complete() {
    for (answer, resets) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nhalf", true),
    ] {
        let fixture = Fixture::new(&[]).await;
        let mut client = client(&fixture).await;
        send(&mut client, &request("GET /", "")).await;
        let (mut serve, _) = fixture.accept().await;
        send(&mut serve, answer).await;
        until(&mut client, "half").await;
        if resets {
            reset(serve);
        } else {
            drop(serve);
        }
        let received = rest(&mut client).await.unwrap_or_default();
        assert!(!received.ends_with(b"0\r\n\r\n"), "{received:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_response_timeout_starts_after_the_request() {
    let fixture = Fixture::new(&["--response-timeout", "300ms"]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("POST /", "Content-Length: 12\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    for _ in 0..4 {
        sleep(Duration::from_millis(200)).await;
        send(&mut client, "abc").await;
        assert_eq!(exactly(&mut serve, 3).await, b"abc");
    }
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "only now: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_stops_reading_causes_backpressure_and_504() {
    let fixture = Fixture::new(&["--response-timeout", "500ms"]).await;
    let mut client = client(&fixture).await;
    send(&mut client, &request("POST /", "Content-Length: 1000000000\r\n")).await;
    let (_serve, _) = fixture.accept().await;
    let piece = vec![0; 65536];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), client.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 100 << 20, "no backpressure");
    }
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_request_is_forwarded_as_1_1() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    send(&mut client, "GET http://t3.example?q HTTP/1.0\r\nX-Authentik-Username: ann\r\n\r\n").await;
    let (mut serve, request) = fixture.accept().await;
    assert!(request.starts_with("GET /?q HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("\r\nhost: 127.0.0.1:"), "{request}");
    send(&mut serve, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn early_bytes_belong_to_the_session_and_a_rejected_upgrade_ends_the_connection() {
    let mut fixture = Fixture::new(&[]).await;
    let mut client = fixture.send_upgrade("ann", "").await;
    client.write_all(&fixture::frame(0x81, b"early", true)).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    assert_no_data(&mut serve).await;
    send(&mut serve, &switching()).await;
    head(&mut client).await;
    assert_eq!(exactly(&mut serve, 11).await, fixture::frame(0x81, b"early", true));
    drop((client, serve));
    assert_eq!(fixture.facts().await.down.msgs, 1);

    let mut client = fixture.send_upgrade("ann", "").await;
    send(&mut client, &request("GET /smuggled", "")).await;
    let (mut serve, _) = fixture.accept().await;
    send(&mut serve, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = until(&mut client, "no").await;
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    assert_eq!(rest(&mut serve).await.unwrap(), b"");
    assert_no_connection(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_native_clients_are_unchanged() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    let more = "Authorization: Bearer ey.J-_~+/==\r\nDPoP: x.y.z\r\nCookie: t3_session=\"a b\"; c=d\r\nCookie: e=f\r\n";
    send(&mut client, &request("GET /api/auth/session?wsTicket=a%2Bb|{c}&d='e'", more)).await;
    let (mut serve, request) = fixture.accept().await;
    assert!(request.starts_with("GET /api/auth/session?wsTicket=a%2Bb|{c}&d='e' HTTP/1.1\r\n"), "{request}");
    assert!(more.lines().all(|line| request.lines().any(|got| got == line)), "{request}");
    let cookies = "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n";
    send(&mut serve, &OK.replace("Content", &format!("{cookies}Content"))).await;
    let answer = until(&mut client, "ok").await;
    assert!(answer.contains(cookies), "{answer}");
}
