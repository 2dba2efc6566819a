//! Client of the evidence socket, with a fake t3-trace that is absent, late, silent or restarted.
//! Sessions are not affected. Needs loopback and a Unix socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fixture::{Fixture, TIMEOUT, exactly, frame};
use t3_dispatch::metrics::page;
use t3_record::{
    KernelSource,
    evidence::{KernelFacts, Memory, RelayFacts},
    wire::{FromTrace, JournalState, ToTrace, VERSION, live::StatsReport},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

struct FakeTrace {
    listener: UnixSeqpacketListener,
    path: std::path::PathBuf,
}

impl FakeTrace {
    fn new(fixture: &Fixture) -> Self {
        let path = fixture.dir.path().join("evidence.sock");
        let _ = std::fs::remove_file(&path);
        Self { listener: UnixSeqpacketListener::bind(&path).unwrap(), path }
    }

    async fn welcome(&mut self) -> UnixSeqpacket {
        self.welcome_with(false).await
    }

    /// `ending`: announces support for the facts of a session that ends.
    async fn welcome_with(&mut self, ending: bool) -> UnixSeqpacket {
        let socket = timeout(TIMEOUT, self.listener.accept()).await.expect("no connection").unwrap();
        assert!(matches!(receive(&socket).await, ToTrace::Hello { v: VERSION, .. }));
        send(
            &socket,
            &FromTrace::Welcome {
                v: VERSION,
                kernel: KernelSource::Tracepoint,
                sessions: true,
                ending,
                kept: false,
            },
        )
        .await;
        socket
    }

    fn stop(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn receive(socket: &UnixSeqpacket) -> ToTrace {
    let mut buffer = vec![0; 65536];
    let length = timeout(TIMEOUT, socket.recv(&mut buffer)).await.expect("no message").unwrap().bytes_read();
    serde_json::from_slice(&buffer[..length]).unwrap()
}

async fn send(socket: &UnixSeqpacket, message: &FromTrace) {
    socket.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
}

async fn send_evidence(socket: &UnixSeqpacket, conn: String) {
    let facts = Box::new(KernelFacts { lost: 7, ..KernelFacts::absent(KernelSource::Kprobe) });
    send(socket, &FromTrace::Evidence { conn, facts }).await;
}

const QUERY_TIMEOUT: Duration = Duration::from_millis(250);
const QUERIES: usize = 2000;

/// Sends that many queries at once to a t3-trace that answers one per millisecond, up to `answers`.
/// Returns the sources of the answers, and the longest wait.
async fn many_queries(answers: usize) -> (Vec<KernelSource>, Duration) {
    let fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let client = fixture.app.evidence.clone();
    let socket = trace.welcome().await;
    assert!(matches!(receive(&socket).await, ToTrace::Watch { .. }));
    let answering = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..answers {
            let ToTrace::Ask { conn } = receive(&socket).await else { panic!("not a query") };
            ticks.tick().await;
            send_evidence(&socket, conn).await;
        }
        // Reads no further, and keeps the connection.
        socket
    });
    let queries: Vec<_> = (0..QUERIES)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let asked = Instant::now();
                (client.query(&n.to_string()).await.source, asked.elapsed())
            })
        })
        .collect();
    let mut sources = Vec::new();
    let mut longest = Duration::ZERO;
    for query in queries {
        let (source, wait) = query.await.unwrap();
        sources.push(source);
        longest = longest.max(wait);
    }
    drop(answering.await.unwrap());
    (sources, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_wait_for_each_other_do_not_time_out() {
    let (sources, longest) = many_queries(QUERIES).await;
    assert!(longest > 4 * QUERY_TIMEOUT, "the test shows nothing: {longest:?}");
    assert!(sources.iter().all(|source| *source == KernelSource::Kprobe), "{sources:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_t3_trace_that_stops_answering_costs_one_timeout() {
    for answers in [0, 100] {
        let (sources, longest) = many_queries(answers).await;
        let timeouts = sources.iter().filter(|source| **source == KernelSource::Timeout).count();
        assert_eq!(timeouts, QUERIES - answers);
        assert!(longest >= QUERY_TIMEOUT, "{longest:?}");
        // Far below the limit of a wait, 20 timeouts.
        assert!(longest < 8 * QUERY_TIMEOUT, "{longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_journal_is_on_the_metrics_page_while_t3_trace_reports_it() {
    const NAMES: [&str; 4] = ["missing_total", "rewritten_total", "lost_total", "unverified"];
    let fixture = Fixture::new(&[]).await;
    let values = || {
        let page = page::render(&fixture.app.metrics, &fixture.app.gauges()).unwrap();
        let value = |name: &str| {
            let prefix = format!("t3_dispatch_records_{name} ");
            page.lines().find_map(|line| line.strip_prefix(&prefix)).map(|value| value.parse().unwrap())
        };
        NAMES.map(value)
    };
    let until = async |expected: [Option<u64>; 4]| {
        let reached = async {
            while values() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, reached).await.unwrap_or_else(|_| panic!("{expected:?}, not {:?}", values()));
    };
    until([None; 4]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    receive(&socket).await;
    until([None; 4]).await;
    let state = JournalState { missing: 42, rewritten: 40, lost: 2, waiting: 5 };
    send(&socket, &FromTrace::Journal(state)).await;
    until([Some(42), Some(40), Some(2), Some(5)]).await;
    // A restart of t3-trace: absent, then from its new start.
    drop(socket);
    trace.stop();
    until([None; 4]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    send(&socket, &FromTrace::Journal(JournalState { missing: 1, ..JournalState::default() })).await;
    until([Some(1), Some(0), Some(0), Some(0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_registered_queried_and_done() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    let ToTrace::Watch { listen, serve, users } = receive(&socket).await else { panic!("no ports") };
    assert_eq!(listen, [fixture.address.port()]);
    let port = fixture.serve.local_addr().unwrap().port();
    assert_eq!(serve, [1, port]);
    let users: Vec<_> = users.iter().map(|of| (of.port, of.user.as_str())).collect();
    assert_eq!(users, [(1, "gone"), (port, "ann")]);

    let ends = fixture.open().await;
    let ToTrace::Register(session) = receive(&socket).await else { panic!("no session") };
    assert_eq!(session.down.unwrap().remote, ends.0.local_addr().unwrap());
    assert_eq!(session.up.unwrap().remote, fixture.serve.local_addr().unwrap());
    assert_eq!(session.up.unwrap().local, ends.1.peer_addr().unwrap());
    assert!(session.up.unwrap().cookie != 0 && session.down.unwrap().cookie != session.up.unwrap().cookie);
    assert!(matches!(receive(&socket).await, ToTrace::Opened { .. }));

    drop(ends);
    let ToTrace::Ask { conn } = receive(&socket).await else { panic!("no query") };
    assert_eq!(conn, session.conn);
    send_evidence(&socket, conn.clone()).await;
    let (evidence, record) = fixture.judgement().await;
    assert_eq!((evidence.kernel.source, evidence.kernel.lost), (KernelSource::Kprobe, 7));
    assert_eq!(record.kernel, KernelSource::Kprobe);
    let ToTrace::Done { conn: done, record, lost: false, again: false } = receive(&socket).await else {
        panic!("not done")
    };
    assert_eq!((&done, &record.conn), (&conn, &conn));
    assert_eq!(fixture.messages("ws close").len(), 1, "written before it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_journald_did_not_get_is_handed_to_t3_trace_as_lost() {
    for loses in [true, false] {
        let fixture = Fixture::with_bound(&[], if loses { 0 } else { 100 }).await;
        let mut trace = FakeTrace::new(&fixture);
        let socket = trace.welcome().await;
        let ends = fixture.open().await;
        if loses {
            fixture.stop_journald();
        }
        drop(ends);
        let (conn, record, lost) = loop {
            match receive(&socket).await {
                ToTrace::Ask { conn } => send_evidence(&socket, conn).await,
                ToTrace::Done { conn, record, lost, .. } => break (conn, record, lost),
                _ => {}
            }
        };
        assert_eq!((lost, &conn), (loses, &record.conn));
        let stats = fixture.app.recorder.writer.stats();
        assert_eq!((stats.written, stats.dropped), if loses { (1, 1) } else { (2, 0) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_close_frame_and_the_first_end_are_reported_when_they_happen() {
    let fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome_with(true).await;
    let (mut client, serve) = fixture.open().await;
    client.write_all(&frame(0x88, &1000u16.to_be_bytes(), true)).await.unwrap();
    let facts = ending(&socket).await;
    let code = facts.down.close_frame.as_ref().and_then(|frame| frame.code);
    assert_eq!((code, facts.down.end, facts.up.end), (Some(1000), None, None));
    assert_eq!(facts.ended_at, facts.down.close_frame.unwrap().at);
    assert!(facts.opened_at.is_some_and(|opened| opened < facts.ended_at));
    // No reply before dispatch could die: nothing waits for one.
    drop(serve);
    let facts = ending(&socket).await;
    assert!(facts.up.end.is_some() && facts.down.close_frame.is_some(), "{facts:?}");
    drop(client);
}

/// Returns the next facts of a session that ends; skips other messages.
async fn ending(socket: &UnixSeqpacket) -> RelayFacts {
    loop {
        if let ToTrace::Ending { facts, .. } = receive(socket).await {
            return *facts;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_open_is_registered_before_its_query() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    receive(&socket).await;
    let _client = fixture.send_upgrade("gone", "").await;
    let ToTrace::Register(session) = receive(&socket).await else { panic!("no session") };
    assert_eq!((session.opened_at, session.up), (None, None));
    assert!(matches!(receive(&socket).await, ToTrace::Ask { .. }));
    fixture.judgement().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_t3_trace_delays_only_the_record_that_queries_it() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    receive(&socket).await;
    let (mut client, mut serve) = fixture.open().await;
    let (a, b) = fixture.open().await;
    drop((a, b));
    // The relay continues while the record of the other session waits.
    let ping = frame(0x81, b"x", true);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    let started = Instant::now();
    assert_eq!(fixture.judgement().await.0.kernel.source, KernelSource::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(socket);
}

/// Ids of the records on a connection until there are `count`, with those sent before.
async fn done(socket: &UnixSeqpacket, count: usize) -> BTreeMap<String, bool> {
    let mut done = BTreeMap::new();
    while done.len() < count {
        match receive(socket).await {
            ToTrace::Ask { conn } => send_evidence(socket, conn).await,
            ToTrace::Done { conn, again, .. } => drop(done.insert(conn, again)),
            _ => {}
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_t3_trace_may_not_have_read_are_sent_again() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    drop(fixture.open().await);
    let first = done(&socket, 1).await;
    assert!(first.values().all(|again| !again));
    fixture.judgement().await;
    // t3-trace reads nothing more and ends: records are in its socket or still in dispatch.
    let mut conns: BTreeSet<_> = first.into_keys().collect();
    for _ in 0..3 {
        drop(fixture.open().await);
        conns.insert(fixture.judgement().await.1.conn);
    }
    drop(socket);
    trace.stop();
    for is_first in [true, false] {
        let mut trace = FakeTrace::new(&fixture);
        let socket = trace.welcome().await;
        let again = done(&socket, 4).await;
        assert_eq!(again.keys().cloned().collect::<BTreeSet<_>>(), conns);
        // Some may have waited in dispatch while t3-trace was away.
        assert!(is_first || again.values().all(|again| *again));
        drop(socket);
        trace.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_restarts_of_t3_trace() {
    let mut fixture = Fixture::new(&[]).await;
    drop(fixture.open().await);
    assert_eq!(fixture.judgement().await.0.kernel.source, KernelSource::Off);

    let (mut client, mut serve) = fixture.open().await;
    let ended_meanwhile = fixture.open().await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    let mut registered = Vec::new();
    while registered.len() < 2 {
        if let ToTrace::Register(session) = receive(&socket).await {
            assert!(session.opened_at.is_some());
            registered.push(session.conn);
        }
    }
    drop(socket);
    trace.stop();
    drop(ended_meanwhile);
    let (evidence, ended) = fixture.judgement().await;
    assert_eq!(evidence.kernel.source, KernelSource::Off);

    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    assert!(matches!(receive(&socket).await, ToTrace::Watch { .. }));
    let ToTrace::Register(session) = receive(&socket).await else { panic!("not registered again") };
    assert_ne!(session.conn, ended.conn);
    // The record written in between is sent, so that its session is not considered lost.
    while !matches!(receive(&socket).await, ToTrace::Done { conn, .. } if conn == ended.conn) {}

    let ping = frame(0x81, b"still here", true);
    client.write_all(&ping).await.unwrap();
    assert_eq!(exactly(&mut serve, ping.len()).await, ping);
    drop((client, serve));
    loop {
        if let ToTrace::Ask { conn } = receive(&socket).await {
            assert_eq!(conn, session.conn);
            break send_evidence(&socket, conn).await;
        }
    }
    assert_eq!(fixture.judgement().await.0.kernel.source, KernelSource::Kprobe);
    fixture.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_is_queried_at_the_first_end_and_sockets_at_the_last() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    let (mut client, mut serve) = fixture.open().await;
    client.shutdown().await.unwrap();
    fixture::rest(&mut serve).await.unwrap();
    let mut memory = 10;
    for replies in [1, 2] {
        let conn = loop {
            if let ToTrace::Ask { conn } = receive(&socket).await {
                break conn;
            }
        };
        let memory_now = Memory { current: Some(memory), ..Memory::default() };
        let facts = KernelFacts {
            memory: Some(memory_now),
            lost: memory,
            ..KernelFacts::absent(KernelSource::Tracepoint)
        };
        send(&socket, &FromTrace::Evidence { conn, facts: Box::new(facts) }).await;
        memory = 20;
        if replies == 1 {
            // Time for the reply to be read.
            tokio::time::sleep(Duration::from_millis(50)).await;
            serve.shutdown().await.unwrap();
        }
    }
    let kernel = fixture.judgement().await.0.kernel;
    assert_eq!((kernel.memory.unwrap().current, kernel.lost), (Some(10), 30));
    fixture.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_close_frame_triggers_the_query_for_pressure() {
    let mut fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    let (mut client, serve) = fixture.open().await;
    client.write_all(&frame(0x88, &1000u16.to_be_bytes(), true)).await.unwrap();
    let query = async {
        loop {
            if let ToTrace::Ask { conn } = receive(&socket).await {
                break conn;
            }
        }
    };
    // Neither leg has ended: a browser keeps its connection for a minute and waits for the reply.
    let conn = timeout(TIMEOUT, query).await.expect("no query");
    let facts = KernelFacts {
        memory: Some(Memory { current: Some(10), ..Memory::default() }),
        ..KernelFacts::absent(KernelSource::Tracepoint)
    };
    send(&socket, &FromTrace::Evidence { conn: conn.clone(), facts: Box::new(facts) }).await;

    // The browser reconnects before the old session has ended.
    let _again = fixture.open().await;
    let opens = fixture.messages("ws open");
    let [_, second] = opens.as_slice() else { panic!("{opens:?}") };
    assert!(second.contains(&format!(" prev={conn} gap_ms=")), "{second}");

    drop((client, serve));
    loop {
        if let ToTrace::Ask { conn } = receive(&socket).await {
            break send_evidence(&socket, conn).await;
        }
    }
    let (evidence, record) = fixture.judgement().await;
    assert_eq!((evidence.kernel.memory.unwrap().current, &record.conn), (Some(10), &conn));
}

/// Returns the next live stats of this session; skips other messages.
async fn live_stats(socket: &UnixSeqpacket, conn: &str) -> StatsReport {
    loop {
        if let ToTrace::Pulses { pulses } = receive(socket).await
            && let Some(stats) = pulses.into_iter().find(|stats| stats.conn == conn)
        {
            return stats;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_stats_are_sent_only_during_a_subscription() {
    let fixture = Fixture::new(&[]).await;
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    receive(&socket).await;
    let (mut client, mut serve) = fixture.open().await;
    let ToTrace::Register(session) = receive(&socket).await else { panic!("no session") };
    assert!(matches!(receive(&socket).await, ToTrace::Opened { .. }));
    let ping = frame(0x81, br#"{"_tag":"Ping"}"#, true);
    let pong = frame(0x81, br#"{"_tag":"Pong"}"#, false);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    // Without a subscription nothing is sent, for longer than one interval.
    let mut buffer = vec![0; 65536];
    assert!(timeout(Duration::from_millis(1300), socket.recv(&mut buffer)).await.is_err());

    send(&socket, &FromTrace::WantPulses { ms: 60_000 }).await;
    let waiting = live_stats(&socket, &session.conn).await;
    assert_eq!((waiting.down_bytes, waiting.up_bytes, waiting.rtt_ns), (ping.len() as u64, 0, None));
    assert!(waiting.waiting_since.is_some_and(|since| since > session.opened_at.unwrap()));
    serve.write_all(&pong).await.unwrap();
    exactly(&mut client, pong.len()).await;
    let answered = live_stats(&socket, &session.conn).await;
    assert_eq!((answered.up_bytes, answered.waiting_since), (pong.len() as u64, None));
    assert!(answered.rtt_ns.is_some_and(|rtt| rtt > 0));
    // A session without changes is not reported again.
    assert!(timeout(Duration::from_millis(2300), socket.recv(&mut buffer)).await.is_err());

    // Another t3-trace without a subscription receives nothing.
    drop(socket);
    trace.stop();
    let mut trace = FakeTrace::new(&fixture);
    let socket = trace.welcome().await;
    while !matches!(receive(&socket).await, ToTrace::Register(_)) {}
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    assert!(timeout(Duration::from_millis(1300), socket.recv(&mut buffer)).await.is_err());
    // A short subscription: one report of all sessions, changed or not, and then nothing.
    send(&socket, &FromTrace::WantPulses { ms: 500 }).await;
    assert_eq!(live_stats(&socket, &session.conn).await.down_bytes, 2 * ping.len() as u64);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    assert!(timeout(Duration::from_millis(1800), socket.recv(&mut buffer)).await.is_err());
}
