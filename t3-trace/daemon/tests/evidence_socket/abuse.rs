//! Peers that do not read, do not speak, or ask without end.

use std::time::{Duration, Instant};

use t3_record::wire::{FromTrace, ToTrace};

use crate::{register, support::Daemon};

/// Answers that wait for a dispatch that does not read: its queue and the socket.
const MOST_WAITING: usize = 3_000;

#[tokio::test]
async fn a_peer_without_a_hello_loses_its_connection_within_a_second() {
    let daemon = Daemon::start().await;
    let before = Instant::now();
    let peer = daemon.connect().await;
    assert!(peer.refused().await.contains("Hello"));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    daemon.stop().await;
}

#[tokio::test]
async fn questions_whose_answers_are_not_read_do_not_pile_up() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    for n in 1..=20 {
        dispatch.send(&register(n, 3773)).await;
    }
    for round in 0..1_000 {
        for n in 1..=20 {
            dispatch.send(&ToTrace::Ask { conn: format!("conn-{n}") }).await;
        }
        if round % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Longer than an answer waits for its place.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut answers = 0;
    while let Ok(Some(FromTrace::Evidence { .. })) =
        tokio::time::timeout(Duration::from_secs(1), dispatch.receive()).await
    {
        answers += 1;
    }
    assert!(answers > 0 && answers <= MOST_WAITING, "{answers} answers to 20000 questions");
    assert_eq!(dispatch.status().await.sessions, 20, "it is served again");
    daemon.stop().await;
}

#[tokio::test]
async fn a_long_text_of_a_client_does_not_end_the_connection() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    let ToTrace::Register(mut session) = register(1, 3773) else { panic!("not a session") };
    session.ray = Some("r".repeat(10_000));
    session.user = "u".repeat(10_000);
    dispatch.send(&ToTrace::Register(session)).await;
    assert_eq!(dispatch.status().await.sessions, 1);
    dispatch.send(&ToTrace::Ask { conn: "c".repeat(10_000) }).await;
    assert!(dispatch.refused().await.contains("conn"));
    daemon.stop().await;
}

/// Default of `--max-sessions` of dispatch.
const ALL_SESSIONS: u16 = 4_096;
/// Time for which dispatch waits for an answer while it receives others.
const DISPATCH_WAITS: Duration = Duration::from_secs(5);

/// Attempts: another program can take the CPU for seconds, but waits do not become shorter.
const ATTEMPTS: usize = 3;

#[tokio::test]
async fn all_sessions_can_end_at_the_same_time_without_an_event() {
    let mut times = Vec::new();
    // Each waits 100 ms for events, and no more than a few of them one after the other.
    while times.len() < ATTEMPTS && times.iter().all(|time| *time >= DISPATCH_WAITS) {
        times.push(end_all_sessions().await);
    }
    assert!(times.iter().any(|time| *time < DISPATCH_WAITS), "{times:?}");
}

/// All sessions end at once. Returns the time until the last answer.
async fn end_all_sessions() -> Duration {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    for n in 1..=ALL_SESSIONS {
        dispatch.send(&register(n, 3773)).await;
    }
    let asking = async {
        for n in 1..=ALL_SESSIONS {
            dispatch.send(&ToTrace::Ask { conn: format!("conn-{n}") }).await;
        }
    };
    let reading = async {
        for _ in 0..ALL_SESSIONS {
            assert!(matches!(dispatch.receive().await, Some(FromTrace::Evidence { .. })));
        }
    };
    let before = Instant::now();
    tokio::join!(asking, reading);
    let time = before.elapsed();
    daemon.stop().await;
    time
}
