//! Corpus of request smuggling and malformed HTTP: no such request reaches serve, nor does anything
//! after it on its connection, and the client receives the reason. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fixture::{Fixture, TIMEOUT};
use t3_dispatch::routing::table::Table;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Sent after each bad request on its connection.
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n";
/// Valid headers of every request of the corpus, so that only its defect can stop it.
const WHO: &str = "Host: t3\r\nX-Authentik-Username: ann\r\n";

/// A request of the corpus.
struct Bad {
    name: &'static str,
    bytes: Vec<u8>,
    status: u16,
}

fn bad(name: &'static str, text: impl AsRef<[u8]>, status: u16) -> Bad {
    Bad { name, bytes: text.as_ref().to_vec(), status }
}

/// Returns a POST with these lines after [`WHO`], and a body.
fn post(name: &'static str, lines: &str, body: &str) -> Bad {
    bad(name, format!("POST /bad HTTP/1.1\r\n{WHO}{lines}\r\n{body}"), 400)
}

/// Request smuggling, scanners and broken clients. None of it may reach serve.
fn never_forwarded() -> Vec<Bad> {
    let smuggled = format!("0\r\n\r\nGET /smuggled HTTP/1.1\r\n{WHO}\r\n");
    let cl = format!("Content-Length: {}\r\n", smuggled.len());
    let te = "Transfer-Encoding: chunked\r\n";
    let get = |line: &str, more: &str| format!("{line}\r\n{WHO}{more}\r\n");
    let mut all = vec![
        // Two lengths.
        post("CL.TE", &format!("{cl}{te}"), &smuggled),
        post("TE.CL", &format!("{te}Content-Length: 3\r\n"), "8\r\nSMUGGLED\r\n0\r\n\r\n"),
        post("CL.TE, other case", "content-length: 6\r\ntransfer-encoding: CHUNKED\r\n", "0\r\n\r\nX"),
        post("CL.CL", "Content-Length: 0\r\nContent-Length: 5\r\n", "smugg"),
        post("CL.CL, equal", "Content-Length: 5\r\nContent-Length: 5\r\n", "smugg"),
        post("CL list", "Content-Length: 5, 5\r\n", "smugg"),
        post("CL signed", "Content-Length: +5\r\n", "smugg"),
        post("CL negative", "Content-Length: -1\r\n", ""),
        post("CL hexadecimal", "Content-Length: 0x5\r\n", "smugg"),
        post("CL empty", "Content-Length:\r\n", ""),
        post("CL with a space inside", "Content-Length: 1 0\r\n", "0123456789"),
        post("CL overflow", "Content-Length: 99999999999999999999999\r\n", ""),
    ];
    // Codings that only some parsers treat as chunked.
    for (name, value) in [
        ("TE xchunked", "xchunked"),
        ("TE list", "identity, chunked"),
        ("TE chunked twice", "chunked, chunked"),
        ("TE identity", "identity"),
        ("TE gzip, chunked", "gzip, chunked"),
        ("TE chunked, identity", "chunked, identity"),
        ("TE quoted", "\"chunked\""),
        ("TE with a parameter", "chunked;q=1"),
        ("TE with a vertical tab", "\u{b}chunked"),
        ("TE empty", ""),
    ] {
        all.push(post(name, &format!("Transfer-Encoding: {value}\r\n"), &smuggled));
    }
    all.extend([
        post("TE.TE", &format!("{te}Transfer-Encoding: x\r\n"), &smuggled),
        post("TE, a space before the colon", "Transfer-Encoding : chunked\r\n", &smuggled),
        post("TE, a tab before the colon", "Transfer-Encoding\t: chunked\r\n", &smuggled),
        post("TE, a space before the name", " Transfer-Encoding: chunked\r\n", &smuggled),
        post("TE after a bare LF", "X: y\nTransfer-Encoding: chunked\r\n", &smuggled),
        post("TE after a bare CR", "X: y\rTransfer-Encoding: chunked\r\n", &smuggled),
        post("TE folded", "Transfer-Encoding:\r\n chunked\r\n", &smuggled),
        post("a folded field", "X: a\r\n b\r\n", ""),
        post("a NUL in a value", "X: a\0b\r\n", ""),
        post("a control character in a name", "X\u{1}: b\r\n", ""),
        post("no name", ": b\r\n", ""),
        post("no colon", "nonsense\r\n", ""),
        post("a name with brackets", "X[1]: b\r\n", ""),
        bad("TE in HTTP/1.0", format!("POST /bad HTTP/1.0\r\n{WHO}{te}\r\n{smuggled}"), 400),
        bad("LF alone ends the lines", get("GET /bad HTTP/1.1", "").replace('\r', ""), 400),
        bad("a second Host", get("GET /bad HTTP/1.1", "Host: other\r\n"), 400),
        bad("no Host", "GET /bad HTTP/1.1\r\nX-Authentik-Username: ann\r\n\r\n", 400),
        bad("an empty Host", "GET /bad HTTP/1.1\r\nHost:\r\nX-Authentik-Username: ann\r\n\r\n", 400),
        bad(
            "a Host with a path",
            "GET /bad HTTP/1.1\r\nHost: t3/x\r\nX-Authentik-Username: ann\r\n\r\n",
            400,
        ),
        bad("another host in the target", get("GET http://other/bad HTTP/1.1", ""), 400),
        bad("a fragment", get("GET /bad#x HTTP/1.1", ""), 400),
        bad("non-ASCII letters in the target", get("GET /b\u{e4}d HTTP/1.1", ""), 400),
        bad("a target without its slash", get("GET bad HTTP/1.1", ""), 400),
        bad("the target of OPTIONS", get("GET * HTTP/1.1", ""), 400),
        bad("two spaces", get("GET  /bad HTTP/1.1", ""), 400),
        bad("a tab in the request line", get("GET\t/bad HTTP/1.1", ""), 400),
        bad("a method that is not a token", get("G(T /bad HTTP/1.1", ""), 400),
        bad("no version", get("GET /bad", ""), 400),
        bad("CONNECT", get("CONNECT other:443 HTTP/1.1", ""), 405),
        bad("TRACE", get("TRACE /bad HTTP/1.1", ""), 405),
        bad("HTTP/1.2", get("GET /bad HTTP/1.2", ""), 505),
        bad("HTTP/2.0", get("GET /bad HTTP/2.0", ""), 505),
        bad("HTTP/2, from its first byte", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        bad("not HTTP", "\u{1}\u{2}\u{3}\r\n\r\n", 400),
        bad("an endless head", get("GET /bad HTTP/1.1", &"X: y\r\n".repeat(20_000)), 431),
        bad("too many fields", get("GET /bad HTTP/1.1", &"X: y\r\n".repeat(200)), 431),
        bad("an endless target", get(&format!("GET /{} HTTP/1.1", "a".repeat(40_000)), ""), 414),
    ]);
    all
}

/// Bodies with invalid framing: serve receives the head and the valid part, and nothing else.
fn never_finished() -> Vec<Bad> {
    let chunked =
        |name, body: &str| post(name, "Transfer-Encoding: chunked\r\n", &format!("3\r\nabc\r\n{body}"));
    vec![
        chunked("an invalid chunk size", "zz\r\nsmuggled\r\n0\r\n\r\n"),
        chunked("a chunk size with a sign", "+1\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk size with 0x", "0x1\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk size that overflows", "10000000000000003\r\nsmuggled\r\n0\r\n\r\n"),
        chunked("an empty chunk size", "\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk longer than its size", "1\r\nXsmuggled\r\n0\r\n\r\n"),
        chunked("a chunk that ends with LF", "1\r\nX\n0\r\n\r\n"),
        chunked("a chunk size that ends with LF", "1\nX\r\n0\r\n\r\n"),
        chunked("a chunk size that ends with CR", "1\rX\r\n0\r\n\r\n"),
        chunked("a chunk extension with LF in it", "1;a\nb\r\nX\r\n0\r\n\r\n"),
        chunked("an endless chunk extension", &format!("1;{}\r\nX\r\n0\r\n\r\n", "a".repeat(20_000))),
        chunked("a trailer that is folded", "0\r\nX: a\r\n b\r\n\r\n"),
        chunked("a trailer that ends with LF", "0\r\nX: a\n\r\n"),
    ]
}

/// Starts a serve that records all bytes and never responds.
async fn recorder() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let all = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&all);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let record = Arc::clone(&record);
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    record.lock().unwrap().extend_from_slice(&piece[..read]);
                }
            });
        }
    });
    (port, all)
}

async fn start() -> (Fixture, Arc<Mutex<Vec<u8>>>) {
    let fixture =
        Fixture::new(&["--no-pairing", "--max-header-bytes", "65536", "--max-headers", "100"]).await;
    let (port, seen) = recorder().await;
    let uid = rustix::process::geteuid().as_raw();
    let table = format!(r#"{{"ann": {{"os_user": "ann", "port": {port}, "uid": {uid}}}}}"#);
    let table = Table::parse(&table, std::path::Path::new("test")).unwrap();
    *fixture.app.table.write().unwrap() = Arc::new(table);
    (fixture, seen)
}

/// Sends it in pieces of this size, followed by [`AFTER`]; returns the bytes received until the end
/// of the connection.
async fn send(fixture: &Fixture, bad: &Bad, piece: usize) -> String {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut from, mut to) = stream.into_split();
    let bytes = [bad.bytes.as_slice(), AFTER.as_bytes()].concat();
    let sending = tokio::spawn(async move {
        for piece in bytes.chunks(piece) {
            // dispatch may stop reading after the violation.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        to
    });
    let mut answer = Vec::new();
    let read = timeout(TIMEOUT, from.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{}: the connection stays open; {:?}", bad.name, String::from_utf8_lossy(&answer));
    drop(sending.await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts one response, with the expected status and Connection: close.
fn check(bad: &Bad, piece: usize, answer: &str) {
    let name = bad.name;
    assert!(answer.starts_with(&format!("HTTP/1.1 {} ", bad.status)), "{name} by {piece}: {answer:?}");
    let heads =
        answer.split("HTTP/1.1 ").filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    assert_eq!(heads.count(), 1, "{name} by {piece}: {answer:?}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{name} by {piece}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_bad_head_or_after_it_reaches_serve() {
    let (fixture, seen) = start().await;
    let corpus = never_forwarded();
    assert!(corpus.len() >= 60, "{}", corpus.len());
    for bad in &corpus {
        // By single bytes too, where that is fast.
        for piece in if bad.bytes.len() > 4096 { vec![1 << 20, 1000] } else { vec![1 << 20, 7, 1] } {
            check(bad, piece, &send(&fixture, bad, piece).await);
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.is_empty(), "serve received {:?}", String::from_utf8_lossy(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_valid_part_of_a_bad_body_reaches_serve() {
    let (fixture, seen) = start().await;
    for bad in &never_finished() {
        for piece in [1 << 20, 1] {
            check(bad, piece, &send(&fixture, bad, piece).await);
        }
    }
    // Long enough for forbidden bytes to arrive.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(seen.contains("POST /bad HTTP/1.1\r\n"), "no request reached serve, so the test is vacuous");
    for word in ["smuggled", "/after", "\r\n0\r\n"] {
        assert!(!seen.contains(word), "serve received {word:?} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_but_valid_requests_pass() {
    let (fixture, seen) = start().await;
    for (n, request) in [
        format!("GET /odd0 HTTP/1.1\r\n{WHO}\r\n"),
        // RFC 9112 section 2.2: one empty line before a request is ignored.
        format!("\r\nGET /odd1 HTTP/1.1\r\n{WHO}\r\n"),
        format!("GET http://t3/odd2 HTTP/1.1\r\n{WHO}\r\n"),
        format!("GET /odd3?a=%00&b=[] HTTP/1.1\r\n{WHO}\r\n"),
        format!("POST /odd4 HTTP/1.1\r\n{WHO}Content-Length: 005\r\n\r\nhello"),
        format!("POST /odd5 HTTP/1.1\r\n{WHO}transfer-encoding:\tChunked \r\n\r\n005;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        format!("PROPFIND /odd6 HTTP/1.1\r\n{WHO}X:\r\n\r\n"),
        "GET /odd7 HTTP/1.0\r\nX-Authentik-Username: ann\r\n\r\n".to_owned(),
        format!("GET /odd8 HTTP/1.1\r\n{WHO}X: \u{e4} tab\tinside\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let through = timeout(TIMEOUT, async {
            while !String::from_utf8_lossy(&seen.lock().unwrap()).contains(&format!("/odd{n}")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if through.await.is_err() {
            let mut answer = [0; 1024];
            let read = timeout(Duration::from_secs(1), stream.read(&mut answer)).await.unwrap().unwrap();
            panic!("{request:?} got {:?}", String::from_utf8_lossy(&answer[..read]));
        }
    }
}
