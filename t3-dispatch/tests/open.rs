//! Opening a WebSocket, and every way in which that fails: the browser's answer, the record's
//! facts, and exactly one record. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{ACCEPT, Fixture, TIMEOUT, UNTRUSTED, exactly, head, reset, switching};
use t3_record::evidence::{OpenFailure, SeenEnd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_passes_with_its_headers_as_they_were() {
    let fixture = Fixture::new(&["--login-domain", "example.org"]).await;
    let mut client =
        fixture.send_upgrade("ann@example.org", "X-ODD-Case: Kept\r\nX-Forwarded-For: 203.0.113.7\r\n").await;
    let (mut serve, request) = fixture.accept().await;
    assert!(request.starts_with("GET /ws?wsTicket=secret HTTP/1.1\r\n"), "{request}");
    for line in
        ["X-ODD-Case: Kept", "Host: t3.test", "Upgrade: websocket", "X-Forwarded-For: 203.0.113.7, 127.0.0.1"]
    {
        assert!(request.lines().any(|found| found == line), "{line} in {request}");
    }
    let answer = switching().replace("Upgrade: w", "X-FROM-Serve: Yes\r\nUpgrade: w");
    serve.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(head(&mut client).await, answer, "serve's 101 passes as it is");
    let opened = fixture.messages("ws open");
    assert_eq!(opened.len(), 1);
    assert!(opened[0].starts_with("ws open user=ann ip=203.0.113.7 conn="), "{}", opened[0]);
    assert!(!opened[0].contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_is_in_journalds_socket_when_the_client_reads_the_101() {
    let fixture = Fixture::new(&[]).await;
    // Many, since a single one could win a race.
    for _ in 0..100 {
        let ends = fixture.open().await;
        let message = fixture.message_now();
        assert!(message.as_deref().is_some_and(|text| text.starts_with("ws open ")), "{message:?}");
        drop(ends);
        // Its close, so that the next message is the next open.
        timeout(TIMEOUT, fixture.app.recorder.in_flight.none()).await.unwrap();
        assert!(fixture.messages_now().iter().all(|text| text.starts_with("ws close ")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_open_has_its_close_when_the_client_leaves_at_the_101() {
    let fixture = Fixture::new(&[]).await;
    let mut messages = Vec::new();
    for n in 0..100 {
        let client = fixture.send_upgrade("ann", "").await;
        let (mut serve, _) = fixture.accept().await;
        let leave = async {
            sleep(Duration::from_micros(10 * n)).await;
            reset(client);
        };
        let ((), written) = tokio::join!(leave, async { serve.write_all(switching().as_bytes()).await });
        written.unwrap();
        drop(serve);
        timeout(TIMEOUT, fixture.app.recorder.in_flight.none()).await.unwrap();
        messages.extend(fixture.messages_now());
    }
    let conns = |kind: &str| -> Vec<String> {
        let of_kind = messages.iter().filter(|text| text.starts_with(kind));
        let conn =
            |text: &String| text.split(' ').find_map(|pair| pair.strip_prefix("conn=")).unwrap().to_owned();
        of_kind.map(conn).collect()
    };
    let (opens, mut closes) = (conns("ws open"), conns("ws close"));
    assert_eq!(closes.len(), 100, "one for each upgrade");
    closes.sort_unstable();
    closes.dedup();
    assert_eq!(closes.len(), 100);
    assert!(opens.iter().all(|open| closes.contains(open)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serve_does_instead_of_101_is_told_to_the_browser_and_in_the_record() {
    enum Act {
        Say(String),
        Leave,
        Reset,
        Wait,
    }
    let table = [
        (
            Act::Say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nX-Why: no\r\n\r\nno".to_owned()),
            401,
            OpenFailure::Status(401),
            None,
        ),
        (
            Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
            200,
            OpenFailure::Status(200),
            None,
        ),
        (
            Act::Say(switching().replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
            502,
            OpenFailure::BadAccept,
            None,
        ),
        (Act::Say(switching().replace("Sec-WebSocket-Accept", "X-Other")), 502, OpenFailure::BadAccept, None),
        (Act::Say("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned()), 502, OpenFailure::Garbage, None),
        (Act::Leave, 502, OpenFailure::HandshakeEof, Some(SeenEnd::Eof)),
        (Act::Reset, 502, OpenFailure::HandshakeReset, Some(SeenEnd::Reset)),
        (Act::Wait, 504, OpenFailure::HandshakeTimeout, None),
    ];
    for (act, status, failure, end) in table {
        let mut fixture = Fixture::new(&["--handshake-timeout", "400ms"]).await;
        let mut client = fixture.send_upgrade("ann", "").await;
        let (mut serve, _) = fixture.accept().await;
        match act {
            Act::Say(text) => serve.write_all(text.as_bytes()).await.unwrap(),
            Act::Leave => serve.shutdown().await.unwrap(),
            Act::Reset => {
                reset(serve);
                serve = TcpStream::connect(fixture.serve.local_addr().unwrap()).await.unwrap();
            }
            Act::Wait => {}
        }
        let answer = head(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{failure:?}: {answer}");
        let facts = fixture.facts().await;
        assert_eq!((facts.open_failure, facts.opened_at), (Some(failure), None));
        assert_eq!(facts.up.end.map(|(how, _)| how), end, "{failure:?}");
        let ours = !matches!(
            failure,
            OpenFailure::Status(_) | OpenFailure::HandshakeEof | OpenFailure::HandshakeReset
        );
        assert_eq!(facts.up.own_end.is_some(), ours, "{failure:?}");
        assert!(facts.ended_at >= facts.started_at && facts.started_at > 0);
        if status == 401 {
            assert!(answer.contains("X-Why: no") && exactly(&mut client, 2).await == b"no");
        }
        fixture.no_more_records().await;
        drop(serve);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serve_that_is_not_there_is_refused() {
    let mut fixture = Fixture::new(&[]).await;
    let mut client = fixture.send_upgrade("gone", "").await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 502 "));
    let facts = fixture.facts().await;
    assert_eq!(facts.open_failure, Some(OpenFailure::Refused));
    fixture.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_leaves_during_the_handshake_has_one_record() {
    for resets in [false, true] {
        let mut fixture = Fixture::new(&[]).await;
        let client = fixture.send_upgrade("ann", "").await;
        let (serve, _) = fixture.accept().await;
        if resets {
            reset(client);
        } else {
            drop(client);
        }
        let facts = fixture.facts().await;
        assert_eq!((facts.open_failure, facts.opened_at), (Some(OpenFailure::ClientGone), None));
        let seen = if resets { SeenEnd::Reset } else { SeenEnd::Eof };
        assert_eq!(facts.down.end.map(|(end, _)| end), Some(seen));
        fixture.no_more_records().await;
        drop(serve);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_upgrades_get_400_and_never_reach_serve() {
    let fixture = Fixture::new(&[]).await;
    let good = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    for (method, headers) in [
        ("GET", String::new()),
        ("POST", good.to_owned()),
        ("GET", good.replace("13", "12")),
        ("GET", good.replace("ZQ==", "")),
        ("GET", good.repeat(2)),
        ("GET", format!("{good}Content-Length: 1\r\n")),
    ] {
        let mut client = TcpStream::connect(fixture.address).await.unwrap();
        let request = format!(
            "{method} /ws HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{headers}\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
    }
    assert!(timeout(Duration::from_millis(200), fixture.serve.accept()).await.is_err(), "serve was asked");
    assert_eq!(fixture.messages("ws").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_known_identity_from_a_trusted_peer_there_is_403() {
    for (options, user) in [
        (&["--trusted-user", UNTRUSTED][..], "ann"),
        (&[][..], "nobody"),
        (&[][..], ""),
        // A domain that is not configured.
        (&[][..], "ann@example.org"),
    ] {
        let fixture = Fixture::new(options).await;
        let mut client = fixture.send_upgrade(user, "").await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 403 "), "{options:?} {user:?}");
        assert!(
            timeout(Duration::from_millis(100), fixture.serve.accept()).await.is_err(),
            "serve was asked"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_values_forge_nothing() {
    let mut fixture = Fixture::new(&[]).await;
    let odd = "Cf-Ray: a\" cause=graceful verdict=client_closed \\\" x=\r\nX-Forwarded-For: 1.2.3.4 user=root, 5.6.7.8\r\n";
    let mut client = fixture.send_upgrade("ann", odd).await;
    let (mut serve, _) = fixture.accept().await;
    serve.write_all(switching().as_bytes()).await.unwrap();
    head(&mut client).await;
    drop((client, serve));
    let (_, record) = fixture.judgement().await;
    assert_eq!(record.ray.as_deref(), Some("a\" cause=graceful verdict=client_closed \\\" x="));
    assert_eq!(record.ip, "5.6.7.8");
    fixture.no_more_records().await;
    let messages = fixture.messages("ws close");
    assert_eq!(messages.len(), 1);
    let (_, after) = messages[0].split_once(" cause=").unwrap();
    assert!(!after.starts_with("graceful"), "{}", messages[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_streams_both_ways() {
    let fixture = Fixture::new(&[]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let request = "POST /api?x=1 HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nTransfer-Encoding: chunked\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n5\r\nfirst\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, request) = fixture.accept().await;
    assert!(request.starts_with("POST /api?x=1 HTTP/1.1\r\n") && !request.contains("X-Mine"), "{request}");
    assert_eq!(
        exactly(&mut serve, 10).await,
        b"5\r\nfirst\r\n",
        "the body is passed on before it is complete"
    );
    client.write_all(b"0\r\n\r\n").await.unwrap();
    exactly(&mut serve, 5).await;
    serve.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("text/event-stream"), "{answer}");
    let mut seen = Vec::new();
    while !seen.windows(9).any(|bytes| bytes == b"data: 1\n\n") {
        let read =
            timeout(TIMEOUT, client.read_buf(&mut seen)).await.expect("the event is kept back").unwrap();
        assert!(read > 0);
    }
    drop(serve);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_names_its_predecessor() {
    let mut fixture = Fixture::new(&[]).await;
    let (mut client, stalled_serve) = fixture.open().await;
    client.shutdown().await.unwrap();
    sleep(Duration::from_millis(50)).await;
    // serve has not ended its leg yet: the browser comes back all the same.
    let (again, serve) = fixture.open().await;
    drop((client, stalled_serve));
    let (_, first) = fixture.judgement().await;
    let opened = fixture.messages("ws open");
    assert!(opened[1].contains(&format!("prev={}", first.conn)), "{}", opened[1]);
    assert!(opened[1].contains("gap_ms="), "{}", opened[1]);
    drop((again, serve));
}
