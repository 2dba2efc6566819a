//! HTTP through the proxy, seen from both ends on raw sockets: bodies and trailers, connections
//! that are used again, requests that are repeated or not, who is told what when something goes
//! wrong. Needs loopback only.
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

/// A client's connection.
async fn client(fixture: &Fixture) -> TcpStream {
    TcpStream::connect(fixture.address).await.unwrap()
}

fn request(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n{more}\r\n")
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Reads until the text is there.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !seen.windows(text.len()).any(|part| part == text.as_bytes()) {
        let read = timeout(TIMEOUT, stream.read_buf(&mut seen)).await;
        let read = read.unwrap_or_else(|_| panic!("no {text:?} in {:?}", String::from_utf8_lossy(&seen)));
        assert!(read.unwrap() > 0, "the end, and no {text:?} in {:?}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8(seen).unwrap()
}

async fn nothing_comes(stream: &mut TcpStream) {
    let read = timeout(Duration::from_millis(150), stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

async fn nobody_connects(fixture: &Fixture) {
    assert!(
        timeout(Duration::from_millis(150), fixture.serve.accept()).await.is_err(),
        "serve was asked again"
    );
}

/// Waits until so many connections to serve are idle.
async fn idle(fixture: &Fixture, count: usize) {
    let deadline = Instant::now() + TIMEOUT;
    while fixture.app.pool.count() != count {
        assert!(Instant::now() < deadline, "{} idle, not {count}", fixture.app.pool.count());
        sleep(Duration::from_millis(2)).await;
    }
}

/// One request with an answer, so that one connection is idle: the client's end, serve's end.
async fn answered(fixture: &Fixture) -> (TcpStream, TcpStream) {
    let mut client = client(fixture).await;
    say(&mut client, &request("GET /first", "")).await;
    let (mut serve, _) = fixture.accept().await;
    say(&mut serve, OK).await;
    until(&mut client, "ok").await;
    idle(fixture, 1).await;
    (client, serve)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_serve_is_used_again_for_whatever_can_be_repeated() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = answered(&fixture).await;
    for line in ["GET /second", "HEAD /third", "OPTIONS /fourth"] {
        say(&mut client, &request(line, "")).await;
        assert!(head(&mut serve).await.starts_with(line));
        say(&mut serve, "HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 204 "));
        idle(&fixture, 1).await;
    }
    nobody_connects(&fixture).await;
    // A connection that may be about to close is not for what cannot be repeated.
    say(&mut client, &request("POST /fifth", "Content-Length: 0\r\n")).await;
    let (mut fresh, post) = fixture.accept().await;
    assert!(post.starts_with("POST /fifth"));
    say(&mut fresh, OK).await;
    until(&mut client, "ok").await;
    idle(&fixture, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_in_time_and_when_serve_says_so_sooner() {
    let fixture = Fixture::new(&["--pool-idle-time", "300ms"]).await;
    let (_client, mut serve) = answered(&fixture).await;
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "closed by dispatch");
    idle(&fixture, 0).await;
    for line in ["Connection: close", "Keep-Alive: timeout=1"] {
        let mut client = client(&fixture).await;
        say(&mut client, &request("GET /", "")).await;
        let (mut serve, _) = fixture.accept().await;
        say(&mut serve, &OK.replace("Content", &format!("{line}\r\nContent"))).await;
        let answer = until(&mut client, "ok").await;
        assert!(!answer.contains(line), "that is between serve and dispatch: {answer}");
        assert_eq!(rest(&mut serve).await.unwrap(), b"", "{line}");
    }
    let fixture = Fixture::new(&["--pool-size", "0"]).await;
    let mut client = client(&fixture).await;
    say(&mut client, &request("GET /", "")).await;
    let (mut serve, _) = fixture.accept().await;
    say(&mut serve, OK).await;
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "no pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_never_used_for_another_user_even_on_the_same_port() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = answered(&fixture).await;
    let port = fixture.serve.local_addr().unwrap().port();
    let table = format!(r#"{{"ann": {{"os_user": "new", "port": {port}}}}}"#);
    let table = Table::parse(&table, &PathBuf::from("test")).unwrap();
    *fixture.app.table.write().unwrap() = Arc::new(table);
    say(&mut client, &request("GET /second", "")).await;
    let (_fresh, second) = fixture.accept().await;
    assert!(second.starts_with("GET /second"));
    nothing_comes(&mut serve).await;
    let table = fixture.app.table();
    fixture.app.pool.retain(|route| table.has(route));
    assert_eq!(rest(&mut serve).await.unwrap(), b"", "closed, as nobody is routed there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_repeated_once_when_serve_closes_a_used_connection_instead_of_answering() {
    for resets in [false, true] {
        let fixture = Fixture::new(&[]).await;
        let (mut client, mut serve) = answered(&fixture).await;
        say(&mut client, &request("GET /second?x=1", "X-Mine: 1\r\n")).await;
        let asked = head(&mut serve).await;
        if resets {
            reset(serve);
        } else {
            drop(serve);
        }
        let (fresh, again) = fixture.accept().await;
        assert_eq!(asked, again);
        // The fresh one is not repeated.
        drop(fresh);
        assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
        nobody_connects(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_serve_has_closed_is_not_used() {
    let fixture = Fixture::new(&[]).await;
    let (mut client, serve) = answered(&fixture).await;
    drop(serve);
    say(&mut client, &request("GET /second", "")).await;
    let (mut fresh, second) = fixture.accept().await;
    assert!(second.starts_with("GET /second"));
    say(&mut fresh, OK).await;
    until(&mut client, "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_never_sent_twice() {
    for (line, more, body) in [
        ("POST /", "Content-Length: 5\r\n", "hel"),
        ("PUT /", "Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n"),
        ("DELETE /", "", ""),
        ("GET /", "Content-Length: 5\r\n", "hel"),
    ] {
        let fixture = Fixture::new(&[]).await;
        let (mut client, _used) = answered(&fixture).await;
        say(&mut client, &(request(line, more) + body)).await;
        let (mut serve, _) = fixture.accept().await;
        if !body.is_empty() {
            until(&mut serve, "hel").await;
        }
        drop(serve);
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{line}: {answer}");
        nobody_connects(&fixture).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_decides_whether_a_client_that_asks_may_send_its_body() {
    let fixture = Fixture::new(&[]).await;
    let asks = request("POST /up", "Content-Length: 4\r\nExpect: 100-Continue\r\n");
    let mut client = client(&fixture).await;
    say(&mut client, &asks).await;
    let (mut serve, asked) = fixture.accept().await;
    assert!(asked.lines().any(|line| line == "Expect: 100-Continue"), "{asked}");
    nothing_comes(&mut client).await;
    say(&mut serve, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&mut client, "body").await;
    assert_eq!(exactly(&mut serve, 4).await, b"body");
    say(&mut serve, OK).await;
    assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200 OK\r\n"));

    // A refusal comes instead of 100, and the body that is not wanted holds nothing up.
    say(&mut client, &asks).await;
    let (mut serve, _) = fixture.accept().await;
    say(&mut serve, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(until(&mut client, "no").await.starts_with("HTTP/1.1 417 "));
    assert_eq!(rest(&mut client).await.unwrap(), b"", "nobody knows whether the body comes");
    assert_eq!(rest(&mut serve).await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_knows_no_expectations_gets_the_body_all_the_same() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    say(&mut client, &request("POST /up", "Content-Length: 4\r\nExpect: 100-continue\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&mut client, "body").await;
    assert_eq!(exactly(&mut serve, 4).await, b"body");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    let asks = request("POST /", "TE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n");
    say(&mut client, &(asks + "3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")).await;
    let (mut serve, asked) = fixture.accept().await;
    assert!(asked.to_lowercase().contains("te: trailers\r\n"), "{asked}");
    assert_eq!(until(&mut serve, "\r\n\r\n").await.to_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 42\r\n\r\n");
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 43\r\n\r\n";
    say(&mut serve, answer).await;
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
        say(&mut client, &(asks + "3\r\nabc\r\n0\r\n\r\n")).await;
        let (mut serve, asked) = fixture.accept().await;
        assert!(asked.to_lowercase().contains("transfer-encoding: chunked"), "{asked}");
        assert_eq!(until(&mut serve, "0\r\n\r\n").await, "3\r\nabc\r\n0\r\n\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_end_with_their_head() {
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
        say(&mut client, &request(line, "")).await;
        let (mut serve, _) = fixture.accept().await;
        say(&mut serve, answer).await;
        let got = head(&mut client).await;
        assert!(got.contains(kept), "{n}: {got}");
        nothing_comes(&mut client).await;
        idle(&fixture, 1).await;
        // A fresh one each time.
        fixture.app.pool.retain(|_| false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_before_the_next_is_sent() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    say(&mut client, &request("GET /events", "Accept: text/event-stream\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    say(
        &mut serve,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    head(&mut client).await;
    for n in 0..50 {
        let event = format!("data: {n:04}\n\n");
        say(&mut serve, &format!("{:x}\r\n{event}\r\n", event.len())).await;
        until(&mut client, &event).await;
    }
    // The client leaves, and serve hears of it.
    drop(client);
    assert!(rest(&mut serve).await.is_ok_and(|rest| rest.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_request_at_serve() {
    for (line, more, body) in [
        ("GET /", "", ""),
        ("POST /", "Content-Length: 9\r\n", "half"),
        ("POST /", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
    ] {
        for resets in [false, true] {
            let fixture = Fixture::new(&[]).await;
            let mut client = client(&fixture).await;
            say(&mut client, &(request(line, more) + body)).await;
            let (mut serve, _) = fixture.accept().await;
            if !body.is_empty() {
                until(&mut serve, "half").await;
            }
            if resets {
                reset(client);
            } else {
                drop(client);
            }
            let told = rest(&mut serve).await.unwrap_or_default();
            assert!(!told.ends_with(b"0\r\n\r\n"), "the request looks whole: {told:?}");
            idle(&fixture, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serve_does_wrong_becomes_an_answer_with_an_id() {
    enum Act {
        Say(&'static str),
        Leave,
        Wait,
    }
    for (act, status) in [
        (Act::Leave, 502),
        (Act::Wait, 504),
        (Act::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502),
        (
            Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            502,
        ),
        (Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"), 502),
        (Act::Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"), 502),
        (
            Act::Say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            502,
        ),
    ] {
        let fixture = Fixture::new(&["--response-timeout", "300ms"]).await;
        let mut client = client(&fixture).await;
        say(&mut client, &request("GET /a?secret=1", "Cf-Ray: 8d3a-FRA\r\n")).await;
        let (mut serve, _) = fixture.accept().await;
        match act {
            Act::Say(text) => say(&mut serve, text).await,
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
    say(&mut client, &request("GET /", "").replace("ann", "gone")).await;
    let answer = until(&mut client, ")\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ")
            && answer.contains("cannot reach t3 serve; is it running? (request "),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for (answer, resets) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nhalf", true),
    ] {
        let fixture = Fixture::new(&[]).await;
        let mut client = client(&fixture).await;
        say(&mut client, &request("GET /", "")).await;
        let (mut serve, _) = fixture.accept().await;
        say(&mut serve, answer).await;
        until(&mut client, "half").await;
        if resets {
            reset(serve);
        } else {
            drop(serve);
        }
        let told = rest(&mut client).await.unwrap_or_default();
        assert!(!told.ends_with(b"0\r\n\r\n"), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_an_answer_runs_only_while_serve_is_waited_for() {
    let fixture = Fixture::new(&["--response-timeout", "300ms"]).await;
    let mut client = client(&fixture).await;
    say(&mut client, &request("POST /", "Content-Length: 12\r\n")).await;
    let (mut serve, _) = fixture.accept().await;
    for _ in 0..4 {
        sleep(Duration::from_millis(200)).await;
        say(&mut client, "abc").await;
        assert_eq!(exactly(&mut serve, 3).await, b"abc");
    }
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "only now: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_stops_reading_stops_the_client_and_ends_in_504() {
    let fixture = Fixture::new(&["--response-timeout", "500ms"]).await;
    let mut client = client(&fixture).await;
    say(&mut client, &request("POST /", "Content-Length: 1000000000\r\n")).await;
    let (_serve, _) = fixture.accept().await;
    let piece = vec![0; 65536];
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(300), client.write(&piece)).await {
        sent += written.unwrap();
        assert!(sent < 100 << 20, "no back-pressure");
    }
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_understood_and_serve_gets_1_1() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    say(&mut client, "GET http://t3.example?q HTTP/1.0\r\nX-Authentik-Username: ann\r\n\r\n").await;
    let (mut serve, asked) = fixture.accept().await;
    assert!(asked.starts_with("GET /?q HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("\r\nhost: 127.0.0.1:"), "{asked}");
    say(&mut serve, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_an_upgrade_is_the_sessions_and_a_refused_one_ends_the_connection() {
    let mut fixture = Fixture::new(&[]).await;
    let mut client = fixture.send_upgrade("ann", "").await;
    client.write_all(&fixture::frame(0x81, b"early", true)).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    nothing_comes(&mut serve).await;
    say(&mut serve, &switching()).await;
    head(&mut client).await;
    assert_eq!(exactly(&mut serve, 11).await, fixture::frame(0x81, b"early", true));
    drop((client, serve));
    assert_eq!(fixture.facts().await.down.msgs, 1);

    let mut client = fixture.send_upgrade("ann", "").await;
    say(&mut client, &request("GET /smuggled", "")).await;
    let (mut serve, _) = fixture.accept().await;
    say(&mut serve, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = until(&mut client, "no").await;
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    assert_eq!(rest(&mut serve).await.unwrap(), b"");
    nobody_connects(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn native_clients_pass_unharmed() {
    let fixture = Fixture::new(&[]).await;
    let mut client = client(&fixture).await;
    let more = "Authorization: Bearer ey.J-_~+/==\r\nDPoP: x.y.z\r\nCookie: t3_session=\"a b\"; c=d\r\nCookie: e=f\r\n";
    say(&mut client, &request("GET /api/auth/session?wsTicket=a%2Bb|{c}&d='e'", more)).await;
    let (mut serve, asked) = fixture.accept().await;
    assert!(asked.starts_with("GET /api/auth/session?wsTicket=a%2Bb|{c}&d='e' HTTP/1.1\r\n"), "{asked}");
    assert!(more.lines().all(|line| asked.lines().any(|got| got == line)), "{asked}");
    let cookies = "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n";
    say(&mut serve, &OK.replace("Content", &format!("{cookies}Content"))).await;
    let answer = until(&mut client, "ok").await;
    assert!(answer.contains(cookies), "{answer}");
}
