//! Limits on connections, requests, probes and log lines. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{net::SocketAddr, time::Duration};

use fixture::{Fixture, TIMEOUT, head, rest};
use t3_dispatch::metrics::reject_reason::RejectReason;
use t3_testkit::handshake;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

/// No peer of this test is in the network.
const NOBODY: [&str; 2] = ["--trusted-user", fixture::UNTRUSTED];

async fn connect_from(ip: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((ip, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

/// Returns the response to a connection that sends nothing.
async fn silent(mut client: TcpStream) -> String {
    String::from_utf8(rest(&mut client).await.unwrap()).unwrap()
}

async fn get(address: SocketAddr, path: &str, user: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: {user}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    client
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, reached).await.unwrap_or_else(|_| panic!("not reached: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_peer_cannot_take_the_connections_of_others() {
    let limits = [
        "--max-connections",
        "40",
        "--max-connections-per-address",
        "3",
        "--max-connections-per-network",
        "5",
    ];
    let fixture = Fixture::new(&[&NOBODY[..], &limits[..]].concat()).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(connect_from([127, 0, 0, 1], fixture.address).await);
    }
    // Their users are looked up at the same time.
    until("three accepted", || fixture.app.quota.in_use().0 == 3).await;
    let answer = silent(connect_from([127, 0, 0, 1], fixture.address).await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
    assert!(answer.contains("--max-connections-per-address"), "{answer}");
    // A local user has every address of the loopback network, and the same places on all of them.
    for host in 2..4 {
        let answer = silent(connect_from([127, 0, 0, host], fixture.address).await).await;
        assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("per-address"), "{answer}");
    }
    assert_eq!(fixture.app.quota.in_use(), (3, 3));
    assert_eq!(fixture.app.rejections.count(RejectReason::AddressConnections), 3);
    idle.truncate(2);
    until("released", || fixture.app.quota.in_use().0 == 2).await;
    let mut client = connect_from([127, 0, 0, 1], fixture.address).await;
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: t3\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_local_users_share_a_limit() {
    let limits = ["--max-connections-per-address", "3", "--max-connections-per-network", "2"];
    let fixture = Fixture::new(&[&NOBODY[..], &limits[..]].concat()).await;
    let _idle = [
        connect_from([127, 0, 0, 1], fixture.address).await,
        connect_from([127, 0, 0, 2], fixture.address).await,
    ];
    until("both accepted", || fixture.app.quota.in_use().0 == 2).await;
    let answer = silent(connect_from([127, 0, 0, 9], fixture.address).await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("per-network"), "{answer}");
    assert_eq!(fixture.app.rejections.count(RejectReason::NetworkConnections), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_take_all_probes_from_several_addresses() {
    let options = ["--max-probes", "4", "--max-probes-per-address", "2"];
    let fixture = Fixture::new(&[&NOBODY[..], &options[..]].concat()).await;
    let mut open = Vec::new();
    for (host, status) in [(1, 101), (2, 101), (3, 429), (4, 429)] {
        let mut stream = connect_from([127, 0, 0, host], fixture.address).await;
        stream.write_all(handshake::request("/probe/ws", []).as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        open.push(stream);
    }
    assert_eq!(fixture.app.pages.echo.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn above_max_connections_there_is_503_and_open_websockets_do_not_count() {
    let fixture = Fixture::new(&["--max-connections", "2", "--no-pairing"]).await;
    let _session = fixture.open().await;
    until("upgraded", || fixture.app.quota.in_use().0 == 0).await;
    let _idle = [
        TcpStream::connect(fixture.address).await.unwrap(),
        TcpStream::connect(fixture.address).await.unwrap(),
    ];
    until("both accepted", || fixture.app.quota.in_use() == (2, 0)).await;
    let mut client = get(fixture.address, "/", "ann").await;
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("--max-connections"), "{answer}");
    assert_eq!(fixture.app.rejections.count(RejectReason::Connections), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_peer_has_the_time_of_one_head_from_the_accept_on() {
    let times = ["--header-timeout", "2s", "--idle-timeout", "60s"];
    let fixture = Fixture::new(&[&NOBODY[..], &times[..]].concat()).await;
    let idle = TcpStream::connect(fixture.address).await.unwrap();
    assert_eq!(silent(idle).await, "");
    // A byte shortly before the end does not start the time again.
    let mut partial = TcpStream::connect(fixture.address).await.unwrap();
    let accepted = Instant::now();
    sleep(Duration::from_millis(1_500)).await;
    partial.write_all(b"G").await.unwrap();
    let answer = String::from_utf8(rest(&mut partial).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(accepted.elapsed() < Duration::from_millis(3_500), "{:?}", accepted.elapsed());
    // After the refusal of its identity, the connection ends.
    let mut client = get(fixture.address, "/", "ann").await;
    let answer = String::from_utf8(rest(&mut client).await.unwrap()).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_peer_keeps_an_unused_connection() {
    let fixture = Fixture::new(&["--header-timeout", "200ms", "--idle-timeout", "60s"]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: t3\r\n\r\n").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_one_user_are_limited_and_no_others() {
    let fixture = Fixture::new(&["--max-requests-per-user", "3", "--no-pairing"]).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let client = get(fixture.address, "/slow", "ann").await;
        waiting.push((client, fixture.accept().await.0));
    }
    let answer = head(&mut get(fixture.address, "/", "ann").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    let other = head(&mut get(fixture.address, "/", "gone").await).await;
    assert!(other.starts_with("HTTP/1.1 502 "), "{other}");
    // A WebSocket of the same user opens.
    let _session = fixture.open().await;
    assert_eq!(fixture.app.rejections.count(RejectReason::UserRequests), 1);
    // A request counts until its response was sent, and not longer.
    let (mut client, mut serve) = waiting.pop().unwrap();
    serve.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(fixture.app.requests.in_use().0, 3);
    serve.write_all(b"cd").await.unwrap();
    fixture::exactly(&mut client, 4).await;
    until("released", || fixture.app.requests.in_use().0 == 2).await;
    drop(waiting);
    until("released after the client left", || fixture.app.requests.in_use().0 == 0).await;
}

async fn probe(fixture: &Fixture, client: &str, authorization: Option<&str>) -> (TcpStream, String) {
    let mut headers = vec![("X-Forwarded-For", client)];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(handshake::request("/probe/ws", headers).as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    (stream, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_address_cannot_take_all_probes() {
    let fixture = Fixture::new(&["--max-probes", "4", "--max-probes-per-address", "2"]).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let (stream, answer) = probe(&fixture, "198.51.100.1", None).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        open.push(stream);
    }
    let (_, answer) = probe(&fixture, "198.51.100.1", None).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    // All addresses of one /64 are one client.
    for (client, status) in [("2001:db8::1", 101), ("2001:db8::2", 101), ("2001:db8::3", 429)] {
        let (stream, answer) = probe(&fixture, client, None).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{client}: {answer}");
        open.push(stream);
    }
    let (_, answer) = probe(&fixture, "198.51.100.2", None).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(open);
    until("released", || fixture.app.pages.echo.count() == 0).await;
    assert!(probe(&fixture, "198.51.100.1", None).await.1.starts_with("HTTP/1.1 101 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_only_its_owner_gets_a_probe() {
    let fixture = Fixture::new(&[]).await;
    let file = fixture.dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef0123\n").unwrap();
    fixture.app.pages.echo.require(t3_dispatch::pages::probe_token::ProbeToken::read(&file).unwrap());
    for (authorization, status) in [
        (None, 401),
        (Some("Bearer 0123456789abcdef0124"), 401),
        (Some("Basic 0123456789abcdef0123"), 401),
        (Some("Bearer 0123456789abcdef0123"), 101),
    ] {
        let (_, answer) = probe(&fixture, "198.51.100.1", authorization).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{authorization:?}: {answer}");
    }
    assert_eq!(fixture.app.rejections.count(RejectReason::ProbeToken), 3);
}
