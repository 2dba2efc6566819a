//! A ping is a text and an RFC 6455 Ping, and both need their answer in time. Peers in memory that
//! answer one, both or none, in simulated time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod raw_peer;

use std::time::Duration;

use raw_peer::Answers;
use t3_probe::{
    echo::{Answered, Echo},
    leg::{Address, Leg, Timeouts},
    progress::{Failure, Progress},
};
use t3_record::probe::{Phase, Reason, Way};
use tokio::time::Instant;
use tokio_tungstenite::accept_async;

/// A leg to a peer that completes `complete` pings and then sends only these answers.
async fn established(complete: u32, answers: Answers) -> (Echo<tokio::io::DuplexStream>, Progress) {
    let leg = Leg {
        name: "cloudflare".to_owned(),
        way: Way::Cloudflare,
        url: "ws://t3.test/probe/ws".parse().unwrap(),
        address: Address::System,
        authorization: None,
    };
    let (near, far) = tokio::io::duplex(4096);
    tokio::spawn(async move {
        let socket = accept_async(far).await.unwrap();
        raw_peer::answer(socket.into_inner(), complete, answers).await;
    });
    let progress = Progress::default();
    let echo = Echo::open(&leg, near, &progress).await.unwrap();
    (echo, progress)
}

/// Result of the ping after two complete ones, and the time that it took.
async fn third_ping(answers: Answers) -> (Result<Answered, Failure>, Duration) {
    let timeouts = Timeouts::default();
    let (mut echo, progress) = established(2, answers).await;
    for _ in 0..2 {
        echo.ping(&timeouts, &progress).await.unwrap();
        echo.idle(&timeouts, &progress).await.unwrap();
    }
    let begun = Instant::now();
    let result = echo.ping(&timeouts, &progress).await;
    assert_eq!(progress.now().0, Phase::Echo);
    (result, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn both_answers_are_required_and_each_missing_one_has_its_reason() {
    let limit = Timeouts::default().response_timeout;
    for (echo, pong, reason, detail) in [
        (true, false, Reason::PongTimeout, "no Pong within 5 s, but the echo after 0.000 s"),
        (false, true, Reason::RttTimeout, "no echo within 5 s, but a Pong after 0.000 s"),
        (false, false, Reason::RttTimeout, "no echo within 5 s"),
    ] {
        let (result, time) = third_ping(Answers { echo, pong }).await;
        assert_eq!(result, Err(Failure { reason, detail: detail.to_owned() }));
        assert_eq!(time.as_secs(), limit.as_secs());
    }
    let (result, time) = third_ping(Answers { echo: true, pong: true }).await;
    assert!(result.is_ok_and(|answered| answered.both() < limit) && time < limit);
}
