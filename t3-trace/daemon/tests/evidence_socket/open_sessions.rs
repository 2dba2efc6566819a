//! Subscribers query the open sessions; dispatch sends live stats only while they do.

use std::time::Duration;

use t3_record::{
    evidence::Nanos,
    vocabulary::HeartbeatSource,
    wire::{
        FromTrace, MAX_MESSAGE, ToTrace,
        live::{MOST_SESSIONS, OpenSession, Sessions, StatsReport},
    },
};
use t3_trace_host::clock::{SECOND, monotonic};

use crate::{
    done, register,
    support::{Daemon, Peer, session},
};

/// All parts of one answer.
async fn open_sessions(subscriber: &Peer) -> (Sessions, Vec<OpenSession>) {
    subscriber.send(&ToTrace::Sessions).await;
    let mut listed = Vec::new();
    loop {
        match subscriber.receive().await {
            Some(FromTrace::Sessions(mut part)) => {
                listed.append(&mut part.sessions);
                if !part.more {
                    return (*part, listed);
                }
            }
            Some(FromTrace::Closed { .. } | FromTrace::Opened { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn live_stats(n: u16, down_bytes: u64, waiting_since: Option<Nanos>) -> ToTrace {
    let stats = StatsReport {
        conn: format!("conn-{n}"),
        down_bytes,
        up_bytes: 9,
        rtt_ns: Some(2_000_000),
        waiting_since,
        hb_by: Some(HeartbeatSource::Rhythm),
    };
    ToTrace::Pulses { pulses: vec![stats] }
}

/// Waits until the daemon has processed all earlier messages.
async fn processed(dispatch: &Peer) {
    dispatch.send(&ToTrace::Status).await;
    while !matches!(dispatch.receive().await, Some(FromTrace::Status(_))) {}
}

#[tokio::test]
async fn a_subscriber_gets_the_open_sessions_with_live_stats() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    for n in 1..=3 {
        dispatch.send(&register(n, 3773)).await;
    }
    let mut opening = session(4, 3773);
    opening.opened_at = None;
    dispatch.send(&ToTrace::Register(Box::new(opening))).await;
    dispatch.send(&live_stats(2, 70, Some(monotonic() - 3 * SECOND))).await;
    dispatch.send(&live_stats(99, 70, None)).await;
    processed(&dispatch).await;

    let (answer, listed) = open_sessions(&subscriber).await;
    assert_eq!((answer.open, answer.dispatch, listed.len()), (3, true, 3));
    let first = &listed[0];
    assert_eq!(
        (first.conn.as_str(), first.user.as_str(), first.ip.as_str()),
        ("conn-2", "wizard", "192.0.2.7")
    );
    let live = first.live.unwrap();
    assert_eq!((live.down_bytes, live.up_bytes, live.rtt_us), (70, 9, Some(2000)));
    assert_eq!(live.hb_by, Some(HeartbeatSource::Rhythm));
    assert!(live.wait_ms.is_some_and(|wait| (3000..60_000).contains(&wait)), "{live:?}");
    assert!(listed[1..].iter().all(|session| session.live.is_none() && !session.ending));

    // It is closing, then closed.
    dispatch.send(&ToTrace::Ask { conn: "conn-2".to_owned() }).await;
    while !matches!(dispatch.receive().await, Some(FromTrace::Evidence { .. })) {}
    assert!(
        open_sessions(&subscriber).await.1.iter().any(|session| session.conn == "conn-2" && session.ending)
    );
    dispatch.send(&done("conn-2")).await;
    processed(&dispatch).await;
    assert_eq!(open_sessions(&subscriber).await.0.open, 2);
    daemon.stop().await;
}

#[tokio::test]
async fn live_stats_are_requested_only_while_a_subscriber_queries() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    dispatch.send(&register(1, 3773)).await;
    // A subscriber without queries does not trigger a request.
    dispatch.send(&ToTrace::Status).await;
    assert!(matches!(dispatch.receive().await, Some(FromTrace::Status(_))), "the first message");

    open_sessions(&subscriber).await;
    let Some(FromTrace::WantPulses { ms }) = dispatch.receive().await else {
        panic!("live stats not requested")
    };
    assert!((2000..=60_000).contains(&ms), "{ms}");
    // Repeated queries renew the lease only at half-life.
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        open_sessions(&subscriber).await;
    }
    dispatch.send(&ToTrace::Status).await;
    let mut requests = 0;
    while let Some(FromTrace::WantPulses { .. }) = dispatch.receive().await {
        requests += 1;
    }
    assert!(
        requests <= began.elapsed().as_millis() * 2 / u128::from(ms),
        "{requests} in {:?}",
        began.elapsed()
    );

    // A dispatch that connects later gets the request, too, and stats of the previous one are not
    // reported.
    dispatch.send(&live_stats(1, 70, None)).await;
    processed(&dispatch).await;
    drop(dispatch);
    let listed = loop {
        let (answer, listed) = open_sessions(&subscriber).await;
        if !answer.dispatch {
            break listed;
        }
    };
    assert!(listed.iter().all(|session| session.live.is_none()), "{listed:?}");
    let dispatch = daemon.dispatch().await;
    open_sessions(&subscriber).await;
    assert!(matches!(dispatch.receive().await, Some(FromTrace::WantPulses { .. })));
    daemon.stop().await;
}

#[tokio::test]
async fn frequent_queries_are_answered_once_a_second_without_blocking_records() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    for _ in 0..50 {
        subscriber.send(&ToTrace::Sessions).await;
    }
    for n in 1..=20 {
        dispatch.send(&done(&format!("conn-{n}"))).await;
    }
    let (mut answers, mut closes) = (0, 0);
    let began = tokio::time::Instant::now();
    while closes < 20 || began.elapsed() < Duration::from_millis(1500) {
        match subscriber.receive().await {
            Some(FromTrace::Sessions(_)) => answers += 1,
            Some(FromTrace::Closed { .. }) => closes += 1,
            other => panic!("{other:?}"),
        }
    }
    let most = 2 + began.elapsed().as_millis() / 900;
    assert!(answers >= 1 && answers <= most, "{answers} answers in {:?}", began.elapsed());
    daemon.stop().await;
}

#[tokio::test]
async fn a_long_list_is_limited_and_split_into_messages() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    let many = u16::try_from(2 * MOST_SESSIONS).unwrap();
    for n in 1..=many {
        dispatch.send(&register(n, 3773)).await;
    }
    processed(&dispatch).await;
    subscriber.send(&ToTrace::Sessions).await;
    let (mut listed, mut parts, mut buffer) = (0, 0, vec![0; MAX_MESSAGE + 1]);
    loop {
        let length = subscriber.0.recv(&mut buffer).await.unwrap().bytes_read();
        assert!(length <= MAX_MESSAGE);
        let FromTrace::Sessions(part) = serde_json::from_slice(&buffer[..length]).unwrap() else {
            panic!("no sessions")
        };
        assert_eq!(part.open, u64::from(many));
        (listed, parts) = (listed + part.sessions.len(), parts + 1);
        if !part.more {
            break;
        }
    }
    assert_eq!(listed, MOST_SESSIONS);
    assert!(parts > 1);
    daemon.stop().await;
}

#[tokio::test]
async fn only_subscribers_query_and_only_dispatch_sends_stats() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.send(&ToTrace::Sessions).await;
    assert!(dispatch.refused().await.contains("only a subscriber"));
    let subscriber = daemon.subscriber().await;
    subscriber.send(&live_stats(1, 1, None)).await;
    assert!(subscriber.refused().await.contains("a subscriber may only query"));
    daemon.stop().await;
}
