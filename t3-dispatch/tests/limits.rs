//! What turns an upgrade away before serve is asked: too many, too fast, from a foreign page. Needs
//! loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{PATIENCE, Stage, head, rest, switching};
use t3_dispatch::metrics::reject_reason::RejectReason;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

async fn status(mut client: TcpStream) -> String {
    head(&mut client).await
}

/// Ends a WebSocket and waits until its place is free again.
async fn end(stage: &mut Stage, (client, serve): (TcpStream, TcpStream), left: usize) {
    drop((client, serve));
    stage.judgement().await;
    let free = async {
        while stage.app.websocket.admission.in_use().0 > left {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("the place is never given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_sessions_in_all_there_is_503_until_one_ends() {
    let mut stage = Stage::new(&["--max-sessions", "2"]).await;
    let first = stage.open().await;
    let second = stage.open().await;
    for user in ["ann", "gone"] {
        let answer = status(stage.ask(user, "").await).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "), "{answer}");
    }
    assert_eq!(stage.app.rejections.count(RejectReason::Sessions), 2);
    assert!(timeout(Duration::from_millis(100), stage.serve.accept()).await.is_err(), "serve was asked");
    end(&mut stage, first, 1).await;
    let third = stage.open().await;
    end(&mut stage, second, 1).await;
    end(&mut stage, third, 0).await;
    stage.no_more_records().await;
    assert_eq!(stage.messages("ws close").len(), 3, "a refused upgrade opened nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_sessions_of_one_user_there_is_429_for_this_user_alone() {
    let mut stage = Stage::new(&["--max-sessions-per-user", "1"]).await;
    let first = stage.open().await;
    let answer = status(stage.ask("ann", "").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
    let other = status(stage.ask("gone", "").await).await;
    assert!(other.starts_with("HTTP/1.1 502 "), "another user gets as far as serve: {other}");
    stage.judgement().await;
    assert_eq!(stage.app.rejections.count(RejectReason::UserSessions), 1);
    end(&mut stage, first, 0).await;
    stage.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_give_their_place_back() {
    let mut stage = Stage::new(&["--max-sessions", "1", "--upgrade-rate", "0"]).await;
    for _ in 0..5 {
        let answer = status(stage.ask("gone", "").await).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        stage.judgement().await;
    }
    let client = stage.ask("ann", "").await;
    let (serve, _) = stage.accept().await;
    end(&mut stage, (client, serve), 0).await;
    stage.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_too_fast_gets_429_that_says_when_to_come_back_and_leaves_no_record() {
    let mut stage = Stage::new(&["--upgrade-rate", "1", "--upgrade-burst", "3"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(stage.open().await);
    }
    let answer = status(stage.ask("ann", "").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    let other = status(stage.ask("gone", "").await).await;
    assert!(other.starts_with("HTTP/1.1 502 "), "another user has a pace of their own: {other}");
    stage.judgement().await;
    sleep(Duration::from_millis(1100)).await;
    open.push(stage.open().await);
    drop(open);
    for _ in 0..4 {
        stage.judgement().await;
    }
    stage.no_more_records().await;
    assert_eq!(stage.app.rejections.count(RejectReason::Rate), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_tabs_that_come_back_at_once_and_once_more_pass_by_default() {
    let stage = Stage::new(&[]).await;
    for _ in 0..2 {
        let mut open = Vec::new();
        for _ in 0..30 {
            open.push(stage.open().await);
        }
    }
    assert!(RejectReason::ALL.iter().all(|why| stage.app.rejections.count(*why) == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_gets_403_and_serve_is_not_asked() {
    for (options, headers, passes) in [
        (&[][..], "", true),
        (&[][..], "Origin: https://t3.test\r\n", true),
        (&[][..], "Origin: https://t3.test:443\r\n", true),
        (&[][..], "X-Forwarded-Host: t3.example.org\r\nOrigin: https://t3.example.org\r\n", true),
        (
            &["--allowed-origin", "https://a.example", "--allowed-origin", "t3://app"],
            "Origin: t3://app\r\n",
            true,
        ),
        (&["--allowed-origin", "*"], "Origin: https://evil.example\r\n", true),
        (&[][..], "Origin: https://evil.example\r\n", false),
        (&[][..], "Origin: https://t3.test:8443\r\n", false),
        (&[][..], "Origin: null\r\n", false),
        (&[][..], "Origin: https://t3.test\r\nOrigin: https://t3.test\r\n", false),
        (&["--allowed-origin", "https://a.example"], "Origin: https://b.example\r\n", false),
    ] {
        let stage = Stage::new(options).await;
        let mut client = stage.ask("ann", headers).await;
        if passes {
            let (mut serve, request) = stage.accept().await;
            assert!(headers.lines().all(|line| request.contains(line)), "{headers} in {request}");
            serve.write_all(switching().as_bytes()).await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "), "{headers}");
        } else {
            let answer = head(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
            assert!(timeout(Duration::from_millis(50), stage.serve.accept()).await.is_err(), "{headers}");
        }
        assert_eq!(stage.app.rejections.count(RejectReason::Origin), u64::from(!passes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_are_neither_counted_nor_asked_for_their_origin() {
    let stage = Stage::new(&["--max-sessions", "1", "--upgrade-rate", "1", "--upgrade-burst", "1"]).await;
    let (client, serve) = stage.open().await;
    for _ in 0..5 {
        let mut plain = TcpStream::connect(stage.address).await.unwrap();
        let request = "GET /api HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nCookie: t3_session=x\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n";
        plain.write_all(request.as_bytes()).await.unwrap();
        let (mut serve, _) = stage.accept().await;
        serve.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(rest(&mut plain).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
    drop((client, serve));
}
