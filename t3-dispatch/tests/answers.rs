//! Answers of serve that are valid and rare pass, and an early answer to an upload arrives. Needs
//! loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{fmt::Write as _, time::Duration};

use fixture::{Fixture, TIMEOUT, exactly, head, reset, rest};
use rustix::net::{SendFlags, send};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const GET: &str = "GET /x HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n";

/// Sends a request and lets serve answer it; returns all that the client gets until `end`.
async fn answer(fixture: &Fixture, request: &str, response: &[u8], end: &str) -> String {
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    serve.write_all(response).await.unwrap();
    until(&mut client, end).await
}

async fn until(client: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let read =
        async { while !got.ends_with(end.as_bytes()) && client.read_buf(&mut got).await.unwrap_or(0) > 0 {} };
    timeout(TIMEOUT, read).await.expect("no end");
    String::from_utf8(got).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_hundred_fields_pass() {
    let fixture = Fixture::new(&[]).await;
    for (count, passes) in [(101, true), (150, true), (900, true), (1_100, false)] {
        let mut response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_owned();
        for n in 0..count {
            write!(response, "Set-Cookie: c{n}={n}; Path=/\r\n").unwrap();
        }
        let got = answer(
            &fixture,
            &format!("{GET}Connection: close\r\n\r\n"),
            format!("{response}\r\nok").as_bytes(),
            "\r\n\r\nok",
        )
        .await;
        assert_eq!(got.starts_with("HTTP/1.1 200"), passes, "{count}: {}", &got[..80]);
        if passes {
            assert_eq!(got.matches("Set-Cookie: ").count(), count);
        } else {
            assert!(got.starts_with("HTTP/1.1 502"), "{count}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_lengths_are_one_and_unequal_ones_are_502() {
    let fixture = Fixture::new(&[]).await;
    for (lines, passes) in [
        ("Content-Length: 2\r\nContent-Length: 2\r\n", true),
        ("Content-Length: 2, 2\r\n", true),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", false),
        ("Content-Length: 2, 3\r\n", false),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", false),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{lines}\r\nok");
        let request = format!("{GET}Connection: close\r\n\r\n");
        let got = answer(&fixture, &request, response.as_bytes(), "\0").await;
        if passes {
            assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\nok"), "{lines} {got}");
            assert_eq!(got.to_lowercase().matches("content-length: 2\r\n").count(), 1, "{lines} {got}");
        } else {
            assert!(got.starts_with("HTTP/1.1 502"), "{lines} {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_pass_in_order_and_not_to_http_1_0() {
    let fixture = Fixture::new(&[]).await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    for round in 0..3 {
        client.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
        if round == 0 {
            // Alone, before serve has the response.
            let (mut serve, _) = fixture.accept().await;
            serve.write_all(hints.as_bytes()).await.unwrap();
            let got = head(&mut client).await;
            assert_eq!(got.to_lowercase(), hints.to_lowercase());
            serve.write_all(response.as_bytes()).await.unwrap();
            assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200"));
            // Not used again: each round has its own connection.
            drop(serve);
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let (mut serve, _) = fixture.accept().await;
        // Together with the response, in one segment.
        serve.write_all(format!("{}{response}", hints.repeat(round)).as_bytes()).await.unwrap();
        let got = until(&mut client, "ok").await;
        assert_eq!(got.matches("HTTP/1.1 103 ").count(), round, "{got}");
        assert!(got.rfind("HTTP/1.1 103 ").unwrap() < got.find("HTTP/1.1 200 ").unwrap(), "{got}");
        drop(serve);
        sleep(Duration::from_millis(50)).await;
    }
    let old = format!("{}Connection: close\r\n\r\n", GET.replace("HTTP/1.1", "HTTP/1.0"));
    let got = answer(&fixture, &old, format!("{hints}{response}").as_bytes(), "ok").await;
    assert!(!got.contains("103") && got.contains(" 200 OK"), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_before_a_101_pass() {
    let fixture = Fixture::new(&[]).await;
    let mut client = fixture.send_upgrade("ann", "").await;
    let (mut serve, _) = fixture.accept().await;
    let processing = "HTTP/1.1 102 Processing\r\n\r\n";
    serve.write_all(format!("{processing}{}", fixture::switching()).as_bytes()).await.unwrap();
    assert_eq!(head(&mut client).await, processing);
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "));
    serve.write_all(b"\x81\x01x").await.unwrap();
    assert_eq!(exactly(&mut client, 3).await, b"\x81\x01x");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_during_an_upload_arrives_although_serve_resets() {
    let fixture = Fixture::new(&[]).await;
    for round in 0..60 {
        let client = TcpStream::connect(fixture.address).await.unwrap();
        let (mut reading, mut writing) = client.into_split();
        let upload = async move {
            let size = 2 << 20;
            let request = format!(
                "POST /up HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nContent-Length: {size}\r\n\r\n"
            );
            writing.write_all(request.as_bytes()).await.unwrap();
            let block = [b'z'; 64 << 10];
            for _ in 0..size / block.len() {
                if writing.write_all(&block).await.is_err() {
                    break;
                }
            }
            writing
        };
        let serve = async {
            let (mut serve, _) = fixture.accept().await;
            serve
                .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
                .await
                .unwrap();
            // Unread bytes make it an RST; linger 0 would discard the answer.
            drop(serve);
        };
        let mut got = vec![0; 12];
        let read =
            async { timeout(TIMEOUT, reading.read_exact(&mut got)).await.expect("no answer").unwrap() };
        let _ = tokio::join!(upload, serve, read);
        assert_eq!(String::from_utf8_lossy(&got), "HTTP/1.1 413", "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_that_resets_without_an_answer_is_502() {
    let fixture = Fixture::new(&[]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client
        .write_all(
            b"POST /up HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nContent-Length: 900000\r\n\r\n",
        )
        .await
        .unwrap();
    let (serve, _) = fixture.accept().await;
    reset(serve);
    let _ = client.write_all(&[b'z'; 900_000]).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 502"));
}

/// A body that ends with the connection must not look complete after a reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_serve_cuts_is_cut_for_the_client() {
    let fixture = Fixture::new(&[]).await;
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
    let (mut serve, _) = fixture.accept().await;
    serve.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart").await.unwrap();
    head(&mut client).await;
    reset(serve);
    let got = rest(&mut client).await;
    assert!(got.is_err() || !got.unwrap().ends_with(b"0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_data_leaves_nothing_unread() {
    let mut fixture = Fixture::new(&[]).await;
    // In a request head.
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(b"GET /a").await.unwrap();
    send(&client, b"b", SendFlags::OOB).unwrap();
    client.write_all(&format!("{GET}\r\n").as_bytes()["GET /x".len()..]).await.unwrap();
    let (mut serve, request) = timeout(Duration::from_secs(5), fixture.accept()).await.expect("unread");
    assert!(request.starts_with("GET /ab HTTP/1.1\r\n"), "{request}");
    serve.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    head(&mut client).await;
    drop((client, serve));
    // In a WebSocket, in both directions.
    let (client, serve) = fixture.open().await;
    for (mut from, mut to) in [(client, serve)] {
        for _ in 0..2 {
            from.write_all(b"\x82\x04a").await.unwrap();
            send(&from, b"!", SendFlags::OOB).unwrap();
            from.write_all(b"cd").await.unwrap();
            let got = timeout(Duration::from_secs(5), exactly(&mut to, 6)).await.expect("unread");
            assert_eq!(got, b"\x82\x04a!cd");
            std::mem::swap(&mut from, &mut to);
        }
    }
    let facts = fixture.facts().await;
    assert_eq!((facts.down.bytes, facts.up.bytes), (6, 6));
}
