//! PWA manifest and meta tags in pages that pass through dispatch. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use fixture::{Fixture, TIMEOUT, exactly, head, rest};
use t3_dispatch::pages::pwa::TAGS;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Duration, timeout},
};

/// Each request reaches serve on a separate connection, which the test accepts.
const FRESH: &[&str] = &["--pool-size", "0"];

const PAGE: &str = "<!doctype html><html><head><title>t</title></head><body>b</body></html>";

fn tagged() -> String {
    PAGE.replace("</head>", &format!("{TAGS}</head>"))
}

/// Sends a navigation request. Returns client, serve and the request that serve received.
async fn navigate(fixture: &Fixture, method: &str, more: &str) -> (TcpStream, TcpStream, String) {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    // With a cookie, so that no pairing happens first.
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nCookie: t3_session=x\r\nConnection: close\r\n{more}\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, mut request) = fixture.accept().await;
    // The cookie of a navigation is checked first.
    if request.starts_with("GET /api/auth/session ") {
        let valid = r#"{"authenticated":true}"#;
        let length = valid.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{valid}"
        );
        serve.write_all(answer.as_bytes()).await.unwrap();
        (serve, request) = fixture.accept().await;
    }
    (client, serve, request)
}

/// Returns head and body that the client receives when serve sends `answer` and closes.
async fn through(fixture: &Fixture, method: &str, more: &str, answer: &str) -> (String, String) {
    let (mut client, mut serve, _) = navigate(fixture, method, more).await;
    serve.write_all(answer.as_bytes()).await.unwrap();
    drop(serve);
    let head = head(&mut client).await;
    (head, String::from_utf8(rest(&mut client).await.unwrap()).unwrap())
}

/// Returns the data of a chunked body.
fn joined(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").expect("chunk length");
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            assert_eq!(rest, "\r\n");
            return data;
        }
        data.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").expect("chunk end");
    }
}

fn page(more: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{more}Content-Length: {}\r\n\r\n{PAGE}",
        PAGE.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_gets_its_tags_and_the_correct_length() {
    let fixture = Fixture::new(FRESH).await;
    let (head, body) = through(&fixture, "GET", "", &page("")).await;
    assert_eq!(body, tagged());
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{PAGE}\r\n0\r\n\r\n",
        PAGE.len()
    );
    let (head, body) = through(&fixture, "GET", "", &chunked).await;
    assert!(!head.contains("Content-Length") && head.contains("Transfer-Encoding: chunked"), "{head}");
    assert_eq!(joined(&body), tagged());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_responses_are_unchanged() {
    let fixture = Fixture::new(FRESH).await;
    let json = page("").replace("text/html", "application/json");
    for (method, more, answer) in [
        ("GET", "", page("Content-Encoding: br\r\n")),
        ("GET", "", json),
        ("GET", "", page("").replace("200 OK", "404 Not Found")),
        ("GET", "", page("").replace("</head>", "<!head>")),
        ("GET", "Sec-Fetch-Dest: empty\r\n", page("")),
        ("GET", "Range: bytes=0-\r\n", page("").replace("200 OK", "206 Partial Content")),
        ("POST", "Content-Length: 0\r\n", page("")),
        ("HEAD", "", page("").replace(PAGE, "")),
    ] {
        let answer = answer.replace("Content-Type", "ETag: \"abc\"\r\nContent-Type");
        let (head, body) = through(&fixture, method, more, &answer).await;
        let sent = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, sent.1, "{method} {more}");
        for line in sent.0.lines() {
            assert!(head.lines().any(|found| found.eq_ignore_ascii_case(line)), "{line:?} in {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_option_disables_the_tags() {
    let fixture = Fixture::new(&["--no-install-tags", "--pool-size", "0"]).await;
    let (head, body) = through(&fixture, "GET", "", &page("ETag: \"abc\"\r\n")).await;
    assert_eq!(body, PAGE);
    assert!(head.to_lowercase().contains("etag: \"abc\"\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_streamed_after_its_head() {
    let fixture = Fixture::new(FRESH).await;
    let (mut client, mut serve, request) = navigate(&fixture, "GET", "Accept-Encoding: gzip\r\n").await;
    assert!(request.contains("Accept-Encoding: gzip\r\n"), "the encoding of the client is forwarded");
    let (first, last) = PAGE.split_at(PAGE.find("<body>").unwrap());
    let answer = page("").replace(PAGE, first);
    serve.write_all(answer.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    assert!(head.contains(&format!("Content-Length: {}\r\n", tagged().len())), "{head}");
    let before = tagged().len() - last.len();
    assert_eq!(exactly(&mut client, before).await, &tagged().as_bytes()[..before]);
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), client.peek(&mut byte)).await;
    assert!(early.is_err(), "serve has not sent more");
    serve.write_all(last.as_bytes()).await.unwrap();
    assert_eq!(timeout(TIMEOUT, rest(&mut client)).await.unwrap().unwrap(), last.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_page_is_304_with_its_own_etag() {
    let fixture = Fixture::new(FRESH).await;
    let (given, _) =
        through(&fixture, "GET", "Sec-Fetch-Dest: document\r\n", &page("ETag: \"abc\"\r\n")).await;
    let lower = given.to_lowercase();
    let name = lower.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(name.starts_with("w/\"abc") && name != "\"abc\"", "{name}");
    let name = name.replacen("w/", "W/", 1);
    let more = format!("Sec-Fetch-Dest: document\r\nIf-None-Match: {name}\r\n");
    let (mut client, mut serve, request) = navigate(&fixture, "GET", &more).await;
    assert!(request.to_lowercase().contains("if-none-match: \"abc\"\r\n"), "{request}");
    serve.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"abc\"\r\n\r\n").await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 304 ") && answer.contains(&name), "{name} in {answer}");

    let more = "Sec-Fetch-Dest: document\r\nIf-None-Match: \"abc\"\r\n";
    let (_, _, request) = navigate(&fixture, "GET", more).await;
    assert!(!request.to_lowercase().contains("if-none-match"), "a copy without tags is not valid: {request}");
}
