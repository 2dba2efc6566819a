//! Connections that end before a request was read: what counts, under which labels, and the summary
//! in the journal. Real sockets; a late accept stands for a t3-dispatch that did not run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fixture::{Fixture, TIMEOUT, exactly, head, reset, rest};
use t3_dispatch::{
    metrics::{
        labels::{AttemptEnd, AttemptKind, Label},
        page,
    },
    server::listener,
};
use t3_record::AttemptsRecord;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};

const PART: &[u8] = b"GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Us";
const REQUEST: &[u8] = b"GET /-/t3-dispatch/health HTTP/1.1\r\nHost: t3\r\n\r\n";
/// Longer than the second from which a wait counts.
const LONG: Duration = Duration::from_millis(1300);
/// Shorter.
const SHORT: Duration = Duration::from_millis(100);

/// Counts by kind and end, without the zeros.
fn counts(fixture: &Fixture) -> Vec<(&'static str, &'static str, u64)> {
    let page = page::render(&fixture.app.metrics, &fixture.app.gauges()).unwrap();
    let mut counts = Vec::new();
    for kind in AttemptKind::ALL {
        for end in AttemptEnd::ALL {
            let (kind, end) = (kind.value(), end.value());
            let series =
                format!("t3_dispatch_connections_without_request_total{{end=\"{end}\",how=\"{kind}\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&series)).expect("the series exists");
            counts.push((kind, end, value.parse().unwrap()));
        }
    }
    counts.retain(|(.., count)| *count > 0);
    counts
}

/// Asserts that the counts become these, and stay so when no connection is open.
async fn expect_counts(fixture: &Fixture, expected: &[(&'static str, &'static str, u64)]) {
    let end = Instant::now() + TIMEOUT;
    while counts(fixture) != expected && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
    // A connection that was accepted last counts as open only then.
    sleep(SHORT).await;
    timeout(TIMEOUT, fixture.app.connections.none()).await.unwrap();
    sleep(SHORT).await;
    assert_eq!(counts(fixture), expected);
}

async fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

/// Sends a complete request and reads its response: with a byte of it left, a close would be an
/// RST.
async fn served(address: SocketAddr) -> TcpStream {
    let mut client = connect(address, REQUEST).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let answer = answer.to_ascii_lowercase();
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    exactly(&mut client, length.parse().unwrap()).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_head_counts_and_a_probe_does_not() {
    let fixture = Fixture::new(&["--no-pairing"]).await;
    // Health probes, with FIN and with RST.
    drop(connect(fixture.address, b"").await);
    reset(connect(fixture.address, b"").await);
    // A served client, gone at once and after a while; a malformed request, which has its answer.
    drop(served(fixture.address).await);
    let idle = served(fixture.address).await;
    sleep(LONG).await;
    drop(idle);
    rest(&mut connect(fixture.address, b"GET  / HTTP/1.1\r\n\r\n").await).await.unwrap();
    expect_counts(&fixture, &[]).await;

    for _ in 0..3 {
        let client = connect(fixture.address, PART).await;
        sleep(SHORT).await;
        drop(client);
    }
    let client = connect(fixture.address, PART).await;
    sleep(SHORT).await;
    reset(client);
    // The second request of a connection.
    let mut client = served(fixture.address).await;
    client.write_all(PART).await.unwrap();
    sleep(SHORT).await;
    drop(client);
    expect_counts(&fixture, &[("partial", "fin", 4), ("partial", "rst", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_counts_after_a_second() {
    let fixture = Fixture::new(&["--no-pairing"]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect(fixture.address, b"").await);
    }
    sleep(LONG).await;
    reset(clients.pop().unwrap());
    drop(clients);
    expect_counts(&fixture, &[("empty", "fin", 2), ("empty", "rst", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_a_shutdown_are_told_apart() {
    let fixture =
        Fixture::new(&["--no-pairing", "--header-timeout", "300ms", "--idle-timeout", "1200ms"]).await;
    let mut slow = connect(fixture.address, PART).await;
    let mut silent = connect(fixture.address, b"").await;
    let answer = String::from_utf8(rest(&mut slow).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    rest(&mut silent).await.unwrap();
    expect_counts(&fixture, &[("partial", "timeout", 1), ("empty", "timeout", 1)]).await;

    let fixture = Fixture::new(&["--no-pairing"]).await;
    let _open = connect(fixture.address, PART).await;
    sleep(SHORT).await;
    let shutdown = t3_record::evidence::Shutdown { signal: None, at: 1 };
    t3_dispatch::process::run::drain(&fixture.app, shutdown).await;
    expect_counts(&fixture, &[("partial", "shutdown", 1)]).await;
    let summaries = fixture.messages("ws attempts");
    assert_eq!(summaries.len(), 1, "{summaries:?}");
}

/// Connections that wait in the accept queue for this time: with FIN or RST in it before it is
/// accepted, with these bytes.
async fn late(fixture: &Fixture, wait: Duration, clients: &[(bool, &[u8])]) {
    let (listener, address) = queue();
    for (resets, bytes) in clients {
        let client = connect(address, bytes).await;
        if *resets {
            reset(client);
        } else {
            drop(client);
        }
    }
    sleep(wait).await;
    tokio::spawn(listener::accept(Arc::clone(&fixture.app), listener));
}

/// A listener that nothing accepts from yet.
fn queue() -> (TcpListener, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(128).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_left_before_dispatch_accepted_them_are_late() {
    let upgrade = t3_testkit::handshake::request("/ws", [("X-Authentik-Username", "ann")]);
    let clients = [
        (false, &b""[..]),
        (false, PART),
        (true, b""),
        (true, PART),
        // Complete, and reset before it was read: no request either.
        (true, upgrade.as_bytes()),
    ];
    let fixture = Fixture::new(&["--no-pairing"]).await;
    let begin = Instant::now();
    late(&fixture, LONG, &clients).await;
    expect_counts(&fixture, &[("late", "fin", 2), ("late", "rst", 3)]).await;
    fixture.app.recorder.write_attempts();
    let summaries = fixture.messages("ws attempts");
    let [summary] = summaries.as_slice() else { panic!("{summaries:?}") };
    let record = AttemptsRecord::from_line(summary).unwrap();
    assert_eq!((record.n, record.late, record.partial, record.empty), (5, 5, 0, 0));
    let wait = Duration::from_millis(record.wait_ms);
    assert!(wait >= LONG - Duration::from_millis(20) && wait <= begin.elapsed(), "{wait:?}");
    // Nothing new: no summary.
    fixture.app.recorder.write_attempts();
    assert_eq!(fixture.messages("ws attempts"), [""; 0]);

    // Control: dispatch accepts them soon.
    let fixture = Fixture::new(&["--no-pairing"]).await;
    late(&fixture, SHORT, &clients).await;
    expect_counts(&fixture, &[("partial", "fin", 1), ("partial", "rst", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_read_late_is_a_request() {
    let mut fixture = Fixture::new(&["--no-pairing"]).await;
    let upgrade = t3_testkit::handshake::request("/ws", [("X-Authentik-Username", "ann")]);
    let (listener, address) = queue();
    let mut clients = Vec::new();
    for request in [upgrade.as_bytes(), REQUEST] {
        clients.push(connect(address, request).await);
    }
    sleep(LONG).await;
    tokio::spawn(listener::accept(Arc::clone(&fixture.app), listener));
    // The upgrade has its record, and the other one its response.
    assert!(head(&mut clients.remove(1)).await.starts_with("HTTP/1.1 "));
    let _serve = fixture.accept().await;
    clients.clear();
    let record = fixture.judgement().await.1;
    assert_eq!(record.user, "ann");
    expect_counts(&fixture, &[]).await;
    fixture.no_more_records().await;

    // Those of a local process that has closed its socket have no user, because the kernel does not
    // know it any more. They are not forwarded.
    late(&fixture, LONG, &[(false, upgrade.as_bytes()), (false, REQUEST)]).await;
    expect_counts(&fixture, &[("late", "fin", 2)]).await;
    fixture.no_more_records().await;
}
