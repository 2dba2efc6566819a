//! Admission of upgrades: session quota, rate limit, origin. Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, TIMEOUT, head, rest, switching};
use t3_dispatch::metrics::reject_reason::RejectReason;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

async fn status(mut client: TcpStream) -> String {
    head(&mut client).await
}

/// Ends a WebSocket and waits until its permit is released.
async fn end(fixture: &mut Fixture, (client, serve): (TcpStream, TcpStream), left: usize) {
    drop((client, serve));
    fixture.judgement().await;
    let free = async {
        while fixture.app.websocket.admission.in_use().0 > left {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, free).await.expect("the permit is not released");
}

#[tokio::test(flavor = "multi_thread")]
async fn above_max_sessions_upgrades_get_503() {
    let mut fixture = Fixture::new(&["--max-sessions", "2"]).await;
    let first = fixture.open().await;
    let second = fixture.open().await;
    for user in ["ann", "gone"] {
        let answer = status(fixture.send_upgrade(user, "").await).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: "), "{answer}");
    }
    assert_eq!(fixture.app.rejections.count(RejectReason::Sessions), 2);
    assert!(
        timeout(Duration::from_millis(100), fixture.serve.accept()).await.is_err(),
        "serve received a connection"
    );
    end(&mut fixture, first, 1).await;
    let third = fixture.open().await;
    end(&mut fixture, second, 1).await;
    end(&mut fixture, third, 0).await;
    fixture.no_more_records().await;
    assert_eq!(fixture.messages("ws close").len(), 3, "a rejected upgrade has no record");
}

#[tokio::test(flavor = "multi_thread")]
async fn above_max_sessions_per_user_only_this_user_gets_429() {
    let mut fixture = Fixture::new(&["--max-sessions-per-user", "1"]).await;
    let first = fixture.open().await;
    let answer = status(fixture.send_upgrade("ann", "").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
    let other = status(fixture.send_upgrade("gone", "").await).await;
    assert!(other.starts_with("HTTP/1.1 502 "), "another user is forwarded to serve: {other}");
    fixture.judgement().await;
    assert_eq!(fixture.app.rejections.count(RejectReason::UserSessions), 1);
    end(&mut fixture, first, 0).await;
    fixture.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_opens_release_their_permit() {
    let mut fixture = Fixture::new(&["--max-sessions", "1", "--upgrade-rate", "0"]).await;
    for _ in 0..5 {
        let answer = status(fixture.send_upgrade("gone", "").await).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        fixture.judgement().await;
    }
    let client = fixture.send_upgrade("ann", "").await;
    let (serve, _) = fixture.accept().await;
    end(&mut fixture, (client, serve), 0).await;
    fixture.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_upgrade_rate_there_is_429_with_retry_after_and_no_record() {
    let mut fixture = Fixture::new(&["--upgrade-rate", "1", "--upgrade-burst", "3"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(fixture.open().await);
    }
    let answer = status(fixture.send_upgrade("ann", "").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 1\r\n"), "{answer}");
    let other = status(fixture.send_upgrade("gone", "").await).await;
    assert!(other.starts_with("HTTP/1.1 502 "), "the rate applies per user: {other}");
    fixture.judgement().await;
    sleep(Duration::from_millis(1100)).await;
    open.push(fixture.open().await);
    drop(open);
    for _ in 0..4 {
        fixture.judgement().await;
    }
    fixture.no_more_records().await;
    assert_eq!(fixture.app.rejections.count(RejectReason::Rate), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bursts_of_thirty_tabs_pass_by_default() {
    let fixture = Fixture::new(&[]).await;
    for _ in 0..2 {
        let mut open = Vec::new();
        for _ in 0..30 {
            open.push(fixture.open().await);
        }
    }
    assert!(RejectReason::ALL.iter().all(|why| fixture.app.rejections.count(*why) == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_gets_403_and_is_not_forwarded() {
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
        let fixture = Fixture::new(options).await;
        let mut client = fixture.send_upgrade("ann", headers).await;
        if passes {
            let (mut serve, request) = fixture.accept().await;
            assert!(headers.lines().all(|line| request.contains(line)), "{headers} in {request}");
            serve.write_all(switching().as_bytes()).await.unwrap();
            assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "), "{headers}");
        } else {
            let answer = head(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
            assert!(timeout(Duration::from_millis(50), fixture.serve.accept()).await.is_err(), "{headers}");
        }
        assert_eq!(fixture.app.rejections.count(RejectReason::Origin), u64::from(!passes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_are_not_subject_to_admission() {
    let fixture = Fixture::new(&["--max-sessions", "1", "--upgrade-rate", "1", "--upgrade-burst", "1"]).await;
    let (client, serve) = fixture.open().await;
    for _ in 0..5 {
        let mut plain = TcpStream::connect(fixture.address).await.unwrap();
        let request = "GET /api HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\nCookie: t3_session=x\r\nOrigin: https://evil.example\r\nConnection: close\r\n\r\n";
        plain.write_all(request.as_bytes()).await.unwrap();
        let (mut serve, _) = fixture.accept().await;
        serve.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(rest(&mut plain).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
    drop((client, serve));
}
