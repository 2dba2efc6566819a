//! The evidence socket with real SEQPACKET sockets and a kernel side with the facts of the test.
//! Needs no privilege.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its support code"
)]

mod abuse;
mod direct;
mod disconnect;
mod journal;
mod open_sessions;
mod replaced_serve;
mod restart;
mod support;

use std::{collections::HashSet, time::Duration};

use support::{Daemon, Peer, serve_end, session};
use t3_record::{
    Cause, CloseRecord, KernelSource, OpenRecord, Segment, Verdict,
    evidence::{Fate, Process, SocketFacts, Task},
    wire::{FromTrace, MAX_MESSAGE, Role, Session, ToTrace, VERSION},
};
use t3_trace_host::{clock, kernel::ProcessFacts};

fn record(conn: &str) -> Box<CloseRecord> {
    Box::new(CloseRecord::new(
        "wizard".to_owned(),
        "192.0.2.7".to_owned(),
        1000,
        Cause::Graceful,
        Verdict::ClientClosed,
        Segment::Downstream,
        conn.to_owned(),
        KernelSource::Tracepoint,
    ))
}

fn done(conn: &str) -> ToTrace {
    ToTrace::Done { conn: conn.to_owned(), record: record(conn), lost: false, again: false }
}

fn register(n: u16, port: u16) -> ToTrace {
    ToTrace::Register(Box::new(session(n, port)))
}

#[tokio::test]
async fn a_query_returns_the_kernel_evidence() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    dispatch.send(&ToTrace::Watch { listen: vec![3780], serve: vec![3773, 3774], users: vec![] }).await;
    dispatch.send(&register(1, 3773)).await;
    let serve = serve_end(&session(1, 3773));
    let task = Task { pid: 4_000_001, comm: "node".to_owned() };
    let now = clock::monotonic();
    let killed = ProcessFacts {
        task: task.clone(),
        started_boot_ns: None,
        fate: Fate::Signal(9),
        ended_at: Some(now + clock::SECOND),
        killer: Some(Task { pid: 1, comm: "systemd".to_owned() }),
        last_signal: None,
        signalled_at: Some(now),
        oom_at: None,
    };
    let up = SocketFacts { rst_in: Some(now), ..SocketFacts::default() };
    let end = SocketFacts { rst_out: Some(now), closer: Some(task.clone()), ..SocketFacts::default() };
    daemon.kernel.with(|facts| {
        facts.sockets.insert(3, up.clone());
        facts.serve_ends.insert(serve, end.clone());
        facts.processes.insert(task.pid, killed);
        facts.lost = 7;
    });
    let facts = dispatch.ask("conn-1").await;
    assert_eq!((facts.source, facts.lost), (KernelSource::Tracepoint, 7));
    assert_eq!((facts.down, facts.up, facts.serve), (None, Some(up), Some(end)));
    let peer = facts.peer.unwrap();
    assert_eq!((peer.task, peer.fate), (task, Fate::Signal(9)));
    assert_eq!(peer.killer.unwrap().comm, "systemd");
    assert_eq!(daemon.kernel.with(|facts| facts.watched.clone()), (vec![3780], vec![3773, 3774]));
    // Losses are reported once.
    assert_eq!(dispatch.ask("conn-1").await.lost, 0);
    for (missed, is_overflowed) in [(127, false), (128, true)] {
        daemon.kernel.with(|facts| facts.missed = missed);
        assert_eq!(dispatch.ask("conn-1").await.is_overflowed, is_overflowed, "{missed} skipped runs");
    }

    dispatch.send(&done("conn-1")).await;
    assert_eq!(subscriber.receive().await, Some(FromTrace::Closed { record: record("conn-1") }));
    assert_eq!(dispatch.status().await.sessions, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_late_kernel_event_is_awaited_without_blocking_others() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    // The listener of the port is known, so nothing else is awaited.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    known_listener(&dispatch, 9, port).await;
    dispatch.send(&register(1, port)).await;
    dispatch.send(&register(2, port)).await;
    let end = SocketFacts { fin_in: Some(clock::monotonic()), ..SocketFacts::default() };
    daemon.kernel.with(|facts| facts.sockets.insert(4, end.clone()));
    dispatch.send(&ToTrace::Ask { conn: "conn-1".to_owned() }).await;
    dispatch.send(&ToTrace::Ask { conn: "conn-2".to_owned() }).await;
    // The second has its evidence and overtakes the first.
    let Some(FromTrace::Evidence { conn, .. }) = dispatch.receive().await else { panic!("no evidence") };
    assert_eq!(conn, "conn-2");
    daemon.kernel.with(|facts| facts.sockets.insert(2, end.clone()));
    let Some(FromTrace::Evidence { conn, facts }) = dispatch.receive().await else { panic!("no evidence") };
    assert_eq!(conn, "conn-1");
    // On a slow host the wait may end first; then the evidence is absent.
    if facts.down.is_some() {
        assert_eq!(facts.down, Some(end));
    }
    daemon.stop().await;
}

/// Waits until the listener of a port is known, with session `n`.
async fn known_listener(dispatch: &Peer, n: u16, port: u16) -> Process {
    dispatch.send(&register(n, port)).await;
    for _ in 0..100 {
        if let Some(peer) = dispatch.ask(&format!("conn-{n}")).await.peer {
            return peer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the listener of port {port} is not found");
}

#[tokio::test]
async fn the_listener_of_the_port_is_found() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = known_listener(&dispatch, 9, port).await;
    assert_eq!((peer.task.pid, peer.fate, peer.halted), (std::process::id(), Fate::Alive, None));
    daemon.stop().await;
}

#[tokio::test]
async fn the_first_query_about_an_open_that_failed_has_the_process() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    let (mut found, mut listeners) = (0, Vec::new());
    for n in 1..=10 {
        // A new serve for each, so that nothing is known before.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let failed = Session { opened_at: None, ..session(n, port) };
        dispatch.send(&ToTrace::Register(Box::new(failed))).await;
        let peer = dispatch.ask(&format!("conn-{n}")).await.peer;
        found += usize::from(peer.is_some_and(|peer| peer.task.pid == std::process::id()));
        listeners.push(listener);
    }
    assert!(found >= 9, "{found} of 10; a slow host may miss one");
    daemon.stop().await;
}

#[tokio::test]
async fn a_query_for_an_unknown_session_has_no_evidence() {
    let daemon = Daemon::start().await;
    let facts = daemon.dispatch().await.ask("unknown").await;
    assert_eq!((facts.down, facts.up, facts.serve, facts.peer), (None, None, None, None));
    daemon.stop().await;
}

#[tokio::test]
async fn a_protocol_violation_is_refused_with_a_reason() {
    let daemon = Daemon::start().await;
    let hello = |v, role| ToTrace::Hello { v, role };
    let old = daemon.connect().await;
    old.send(&hello(VERSION + 1, Role::Dispatch)).await;
    assert!(old.refused().await.contains("version"));

    let early = daemon.connect().await;
    early.send(&ToTrace::Status).await;
    assert!(early.refused().await.contains("Hello"));

    for garbage in [&b"\xff\x00garbage"[..], b"{}", b"{\"t\":\"no_such_message\"}", b"[1,2]"] {
        let peer = daemon.dispatch().await;
        peer.0.send(garbage).await.unwrap();
        assert!(peer.refused().await.contains("cannot decode message"));
    }

    let long = daemon.dispatch().await;
    long.0.send(&vec![b' '; MAX_MESSAGE + 1]).await.unwrap();
    assert!(long.refused().await.contains("message too long"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_subscriber_may_not_register_or_query_evidence() {
    let daemon = Daemon::start().await;
    let forbidden = [
        register(1, 3773),
        ToTrace::Ask { conn: "x".to_owned() },
        done("x"),
        ToTrace::Watch { listen: vec![], serve: vec![], users: vec![] },
    ];
    for message in forbidden {
        let subscriber = daemon.subscriber().await;
        subscriber.send(&message).await;
        assert!(subscriber.refused().await.contains("subscriber"), "{message:?}");
    }
    let subscriber = daemon.subscriber().await;
    let status = subscriber.status().await;
    assert_eq!((status.sessions, status.subscribers, status.dispatch), (0, 1, false));
    assert_eq!(status.hooks.len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn the_status_has_watched_ports_counts_and_uptime() {
    let daemon = Daemon::start().await;
    let (dispatch, subscriber) = (daemon.dispatch().await, daemon.subscriber().await);
    dispatch.send(&ToTrace::Watch { listen: vec![3780], serve: vec![3774, 3773], users: vec![] }).await;
    dispatch.send(&register(1, 3773)).await;
    dispatch.status().await;
    let status = subscriber.status().await;
    assert_eq!((status.listen, status.serve), (vec![3780], vec![3773, 3774]));
    assert!(status.dispatch && status.sessions == 1);
    assert!(status.uptime_s.is_some_and(|up| up < 600) && status.clock_moved_ms.is_some());
    let table = |name: &str| status.tables.iter().find(|table| table.name == name);
    assert_eq!(table("FAKE").map(|table| (table.size, table.used)), Some((10, Some(3))));
    assert_eq!((status.events, status.missing.as_slice()), (Some(81), &["a field".to_owned()][..]));
    daemon.stop().await;
}

#[test]
fn a_status_of_an_older_daemon_is_decoded() {
    let old = r#"{"t":"status","version":"0.1.0","kernel":"tracepoint","hooks":[],"sessions":1,"subscribers":0,"dispatch":true,"lost":0,"map_full":0}"#;
    let FromTrace::Status(status) = serde_json::from_str(old).unwrap() else { panic!("no status") };
    assert_eq!((status.sessions, status.uptime_s, status.tables.len()), (1, None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_10000_sessions_gets_one_answer() {
    const SESSIONS: u16 = 10_000;
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    daemon.kernel.with(|facts| {
        for n in 1..=SESSIONS {
            let end = SocketFacts { fin_in: Some(u64::from(n)), ..SocketFacts::default() };
            facts.sockets.insert(u64::from(n) * 2, end);
        }
    });
    for n in 1..=SESSIONS {
        dispatch.send(&register(n, 3773)).await;
    }
    assert_eq!(dispatch.status().await.sessions, u64::from(SESSIONS));
    let asking = async {
        for n in 1..=SESSIONS {
            dispatch.send(&ToTrace::Ask { conn: format!("conn-{n}") }).await;
        }
    };
    let receiving = async {
        let mut answered = HashSet::new();
        while answered.len() < usize::from(SESSIONS) {
            let Some(FromTrace::Evidence { conn, facts }) = dispatch.receive().await else {
                panic!("no evidence")
            };
            let n: u64 = conn.strip_prefix("conn-").unwrap().parse().unwrap();
            assert_eq!(facts.down.unwrap().fin_in, Some(n), "each session has its own evidence");
            assert!(answered.insert(conn), "one answer each");
        }
    };
    tokio::join!(asking, receiving);
    for n in 1..=SESSIONS {
        dispatch.send(&done(&format!("conn-{n}"))).await;
    }
    assert_eq!(dispatch.status().await.sessions, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_slow_subscriber_does_not_block_and_gets_the_number_of_dropped_records() {
    const RECORDS: u64 = 5000;
    let daemon = Daemon::start().await;
    let (dispatch, sleeper) = (daemon.dispatch().await, daemon.subscriber().await);
    let dead = daemon.subscriber().await;
    drop(dead);
    for n in 0..RECORDS {
        let record = Box::new(OpenRecord::new("u".to_owned(), "192.0.2.7".to_owned(), n.to_string()));
        dispatch.send(&ToTrace::Opened { record }).await;
    }
    // Answered immediately although no record has been read.
    assert_eq!(dispatch.status().await.subscribers, 1);
    let (mut received, mut skipped, mut last) = (0, 0, None);
    while received + skipped < RECORDS {
        match sleeper.receive().await {
            Some(FromTrace::Opened { record }) => {
                let n: u64 = record.conn.parse().unwrap();
                assert_eq!(n, received + skipped, "dropped records are reported in place");
                assert!(last.is_none_or(|last| n > last));
                (received, last) = (received + 1, Some(n));
            }
            Some(FromTrace::Skipped { records }) => skipped += records,
            other => panic!("{other:?}"),
        }
    }
    assert!(skipped > 0, "the queue is bounded");
    daemon.stop().await;
}

#[tokio::test]
async fn a_second_daemon_does_not_replace_the_socket() {
    let daemon = Daemon::start().await;
    let second = t3_trace_daemon::listen::bind(&daemon.socket, "root").await;
    assert!(second.is_err_and(|error| error.to_string().contains("another t3-trace")));
    assert_eq!(daemon.dispatch().await.status().await.sessions, 0);
    daemon.stop().await;
}
