//! Requests made to be read one way by a proxy and another way by what is behind it, and requests
//! that are no HTTP at all: none reaches serve, nothing that follows one on its connection does,
//! and the client hears why. Needs loopback only.
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

use fixture::{PATIENCE, Stage};
use t3_dispatch::routing::table::Table;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Stands behind each bad request on its connection.
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n";
/// What every request of the corpus has, so that only its own fault can keep it from serve.
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

/// With a head of its own lines behind the request line and [`WHO`], and a body.
fn post(name: &'static str, lines: &str, body: &str) -> Bad {
    bad(name, format!("POST /bad HTTP/1.1\r\n{WHO}{lines}\r\n{body}"), 400)
}

/// The families of request smuggling, and what scanners and broken clients send. None of it may
/// reach serve.
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
        post("CL beyond all numbers", "Content-Length: 99999999999999999999999\r\n", ""),
    ];
    // Codings that one parser takes for chunked and another does not.
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
        post("TE behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n", &smuggled),
        post("TE behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n", &smuggled),
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
        bad("letters beyond ASCII in the target", get("GET /b\u{e4}d HTTP/1.1", ""), 400),
        bad("a target without its slash", get("GET bad HTTP/1.1", ""), 400),
        bad("the target of OPTIONS", get("GET * HTTP/1.1", ""), 400),
        bad("two spaces", get("GET  /bad HTTP/1.1", ""), 400),
        bad("a tab in the request line", get("GET\t/bad HTTP/1.1", ""), 400),
        bad("a method that is no token", get("G(T /bad HTTP/1.1", ""), 400),
        bad("no version", get("GET /bad", ""), 400),
        bad("CONNECT", get("CONNECT other:443 HTTP/1.1", ""), 405),
        bad("TRACE", get("TRACE /bad HTTP/1.1", ""), 405),
        bad("HTTP/1.2", get("GET /bad HTTP/1.2", ""), 505),
        bad("HTTP/2.0", get("GET /bad HTTP/2.0", ""), 505),
        bad("HTTP/2, from its first byte", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        bad("what is no HTTP", "\u{1}\u{2}\u{3}\r\n\r\n", 400),
        bad("a head without end", get("GET /bad HTTP/1.1", &"X: y\r\n".repeat(20_000)), 431),
        bad("too many fields", get("GET /bad HTTP/1.1", &"X: y\r\n".repeat(200)), 431),
        bad("a target without end", get(&format!("GET /{} HTTP/1.1", "a".repeat(40_000)), ""), 414),
    ]);
    all
}

/// Bodies that break off their framing: serve has got the head and what was sound, and gets nothing
/// else.
fn never_finished() -> Vec<Bad> {
    let chunked =
        |name, body: &str| post(name, "Transfer-Encoding: chunked\r\n", &format!("3\r\nabc\r\n{body}"));
    vec![
        chunked("a chunk size that is none", "zz\r\nsmuggled\r\n0\r\n\r\n"),
        chunked("a chunk size with a sign", "+1\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk size with 0x", "0x1\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk size that overflows", "10000000000000003\r\nsmuggled\r\n0\r\n\r\n"),
        chunked("an empty chunk size", "\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk longer than its size", "1\r\nXsmuggled\r\n0\r\n\r\n"),
        chunked("a chunk that ends with LF", "1\r\nX\n0\r\n\r\n"),
        chunked("a chunk size that ends with LF", "1\nX\r\n0\r\n\r\n"),
        chunked("a chunk size that ends with CR", "1\rX\r\n0\r\n\r\n"),
        chunked("a chunk extension with LF in it", "1;a\nb\r\nX\r\n0\r\n\r\n"),
        chunked("a chunk extension without end", &format!("1;{}\r\nX\r\n0\r\n\r\n", "a".repeat(20_000))),
        chunked("a trailer that is folded", "0\r\nX: a\r\n b\r\n\r\n"),
        chunked("a trailer that ends with LF", "0\r\nX: a\n\r\n"),
    ]
}

/// A serve that takes everything, keeps it, and never answers.
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

async fn house() -> (Stage, Arc<Mutex<Vec<u8>>>) {
    let stage = Stage::new(&["--no-pairing", "--max-header-bytes", "65536", "--max-headers", "100"]).await;
    let (port, seen) = recorder().await;
    let table = format!(r#"{{"ann": {{"os_user": "ann", "port": {port}}}}}"#);
    let table = Table::parse(&table, std::path::Path::new("test")).unwrap();
    *stage.app.table.write().unwrap() = Arc::new(table);
    (stage, seen)
}

/// Sends it in pieces of this size with [`AFTER`] behind it; gives everything that came until the
/// connection ended.
async fn send(stage: &Stage, bad: &Bad, piece: usize) -> String {
    let stream = TcpStream::connect(stage.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut from, mut to) = stream.into_split();
    let bytes = [bad.bytes.as_slice(), AFTER.as_bytes()].concat();
    let sending = tokio::spawn(async move {
        for piece in bytes.chunks(piece) {
            // What dispatch does not want to hear any more it need not take.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        to
    });
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, from.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{}: the connection stays open; {:?}", bad.name, String::from_utf8_lossy(&answer));
    drop(sending.await.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}

/// One answer with the status it should have, and that it is the last one.
fn check(bad: &Bad, piece: usize, answer: &str) {
    let name = bad.name;
    assert!(answer.starts_with(&format!("HTTP/1.1 {} ", bad.status)), "{name} by {piece}: {answer:?}");
    let heads =
        answer.split("HTTP/1.1 ").filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    assert_eq!(heads.count(), 1, "{name} by {piece}: {answer:?}");
    assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{name} by {piece}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_head_reaches_serve_nor_does_what_follows_it() {
    let (stage, seen) = house().await;
    let corpus = never_forwarded();
    assert!(corpus.len() >= 60, "{}", corpus.len());
    for bad in &corpus {
        // By single bytes too, where that takes no time.
        for piece in if bad.bytes.len() > 4096 { vec![1 << 20, 1000] } else { vec![1 << 20, 7, 1] } {
            check(bad, piece, &send(&stage, bad, piece).await);
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.is_empty(), "serve has seen {:?}", String::from_utf8_lossy(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_body_that_loses_its_framing_serve_gets_what_was_sound_and_nothing_of_what_follows() {
    let (stage, seen) = house().await;
    for bad in &never_finished() {
        for piece in [1 << 20, 1] {
            check(bad, piece, &send(&stage, bad, piece).await);
        }
    }
    // Long enough for what should not come to have come.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let seen = String::from_utf8_lossy(&seen.lock().unwrap()).into_owned();
    assert!(
        seen.contains("POST /bad HTTP/1.1\r\n"),
        "none of them got as far as serve: the test tests nothing"
    );
    for word in ["smuggled", "/after", "\r\n0\r\n"] {
        assert!(!seen.contains(word), "serve has seen {word:?} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_and_allowed_gets_through() {
    let (stage, seen) = house().await;
    for (n, request) in [
        format!("GET /odd0 HTTP/1.1\r\n{WHO}\r\n"),
        // RFC 9112 section 2.2: one empty line before a request is to be ignored.
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
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let through = timeout(PATIENCE, async {
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
