//! A viewer asks which sessions are open: what it is told, what dispatch is asked for because of
//! it, and who is asked for nothing.

use std::time::Duration;

use t3_record::{
    evidence::Nanos,
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
async fn open_sessions(viewer: &Peer) -> (Sessions, Vec<OpenSession>) {
    viewer.say(&ToTrace::Sessions).await;
    let mut told = Vec::new();
    loop {
        match viewer.hear().await {
            Some(FromTrace::Sessions(mut part)) => {
                told.append(&mut part.sessions);
                if !part.more {
                    return (*part, told);
                }
            }
            Some(FromTrace::Closed { .. } | FromTrace::Opened { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn pulse(n: u16, down_bytes: u64, waiting_since: Option<Nanos>) -> ToTrace {
    let pulse = StatsReport {
        conn: format!("conn-{n}"),
        down_bytes,
        up_bytes: 9,
        rtt_ns: Some(2_000_000),
        waiting_since,
    };
    ToTrace::Pulses { pulses: vec![pulse] }
}

/// Waits until the daemon has taken everything that was said before.
async fn taken(dispatch: &Peer) {
    dispatch.say(&ToTrace::Status).await;
    while !matches!(dispatch.hear().await, Some(FromTrace::Status(_))) {}
}

#[tokio::test]
async fn a_viewer_is_told_the_open_sessions_and_what_dispatch_counts() {
    let daemon = Daemon::start().await;
    let (dispatch, viewer) = (daemon.dispatch().await, daemon.subscriber().await);
    for n in 1..=3 {
        dispatch.say(&register(n, 3773)).await;
    }
    let mut opening = session(4, 3773);
    opening.opened_at = None;
    dispatch.say(&ToTrace::Register(Box::new(opening))).await;
    dispatch.say(&pulse(2, 70, Some(monotonic() - 3 * SECOND))).await;
    dispatch.say(&pulse(99, 70, None)).await;
    taken(&dispatch).await;

    let (answer, told) = open_sessions(&viewer).await;
    assert_eq!((answer.open, answer.dispatch, told.len()), (3, true, 3));
    let first = &told[0];
    assert_eq!(
        (first.conn.as_str(), first.user.as_str(), first.ip.as_str()),
        ("conn-2", "wizard", "192.0.2.7")
    );
    let live = first.live.unwrap();
    assert_eq!((live.down_bytes, live.up_bytes, live.rtt_us), (70, 9, Some(2000)));
    assert!(live.wait_ms.is_some_and(|wait| (3000..60_000).contains(&wait)), "{live:?}");
    assert!(told[1..].iter().all(|session| session.live.is_none() && !session.ending));

    // Its end has begun; and then it is over.
    dispatch.say(&ToTrace::Ask { conn: "conn-2".to_owned() }).await;
    while !matches!(dispatch.hear().await, Some(FromTrace::Evidence { .. })) {}
    assert!(open_sessions(&viewer).await.1.iter().any(|session| session.conn == "conn-2" && session.ending));
    dispatch.say(&done("conn-2")).await;
    taken(&dispatch).await;
    assert_eq!(open_sessions(&viewer).await.0.open, 2);
    daemon.stop().await;
}

#[tokio::test]
async fn dispatch_is_asked_to_count_aloud_only_while_somebody_watches() {
    let daemon = Daemon::start().await;
    let (dispatch, viewer) = (daemon.dispatch().await, daemon.subscriber().await);
    dispatch.say(&register(1, 3773)).await;
    // A subscriber that only listens is no reason.
    dispatch.say(&ToTrace::Status).await;
    assert!(matches!(dispatch.hear().await, Some(FromTrace::Status(_))), "the first thing it hears");

    open_sessions(&viewer).await;
    let Some(FromTrace::WantPulses { ms }) = dispatch.hear().await else { panic!("not asked to count") };
    assert!((2000..=60_000).contains(&ms), "{ms}");
    // Asked again and again, it passes the wish on once in a while.
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        open_sessions(&viewer).await;
    }
    dispatch.say(&ToTrace::Status).await;
    let mut wishes = 0;
    while let Some(FromTrace::WantPulses { .. }) = dispatch.hear().await {
        wishes += 1;
    }
    assert!(wishes <= began.elapsed().as_millis() * 2 / u128::from(ms), "{wishes} in {:?}", began.elapsed());

    // A dispatch that comes later is asked too, and the numbers of the one before are not passed
    // off as fresh.
    dispatch.say(&pulse(1, 70, None)).await;
    taken(&dispatch).await;
    drop(dispatch);
    let told = loop {
        let (answer, told) = open_sessions(&viewer).await;
        if !answer.dispatch {
            break told;
        }
    };
    assert!(told.iter().all(|session| session.live.is_none()), "{told:?}");
    let dispatch = daemon.dispatch().await;
    open_sessions(&viewer).await;
    assert!(matches!(dispatch.hear().await, Some(FromTrace::WantPulses { .. })));
    daemon.stop().await;
}

#[tokio::test]
async fn who_asks_without_pause_is_answered_once_a_second_and_records_still_come() {
    let daemon = Daemon::start().await;
    let (dispatch, viewer) = (daemon.dispatch().await, daemon.subscriber().await);
    for _ in 0..50 {
        viewer.say(&ToTrace::Sessions).await;
    }
    for n in 1..=20 {
        dispatch.say(&done(&format!("conn-{n}"))).await;
    }
    let (mut answers, mut closes) = (0, 0);
    let began = tokio::time::Instant::now();
    while closes < 20 || began.elapsed() < Duration::from_millis(1500) {
        match viewer.hear().await {
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
async fn of_very_many_sessions_a_bounded_number_is_told_in_messages_that_fit() {
    let daemon = Daemon::start().await;
    let (dispatch, viewer) = (daemon.dispatch().await, daemon.subscriber().await);
    let many = u16::try_from(2 * MOST_SESSIONS).unwrap();
    for n in 1..=many {
        dispatch.say(&register(n, 3773)).await;
    }
    taken(&dispatch).await;
    viewer.say(&ToTrace::Sessions).await;
    let (mut told, mut parts, mut buffer) = (0, 0, vec![0; MAX_MESSAGE + 1]);
    loop {
        let length = viewer.0.recv(&mut buffer).await.unwrap().bytes_read();
        assert!(length <= MAX_MESSAGE);
        let FromTrace::Sessions(part) = serde_json::from_slice(&buffer[..length]).unwrap() else {
            panic!("no sessions")
        };
        assert_eq!(part.open, u64::from(many));
        (told, parts) = (told + part.sessions.len(), parts + 1);
        if !part.more {
            break;
        }
    }
    assert_eq!(told, MOST_SESSIONS);
    assert!(parts > 1);
    daemon.stop().await;
}

#[tokio::test]
async fn dispatch_may_not_ask_and_a_viewer_may_not_count() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.say(&ToTrace::Sessions).await;
    assert!(dispatch.refused().await.contains("only a subscriber"));
    let viewer = daemon.subscriber().await;
    viewer.say(&pulse(1, 1, None)).await;
    assert!(viewer.refused().await.contains("a subscriber may only ask"));
    daemon.stop().await;
}
