//! The evidence socket, with this test as t3-trace: absent, late, silent, gone and back. Sessions
//! never notice. Needs loopback and a Unix socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{PATIENCE, Stage, exactly, frame};
use t3_record::{
    KernelSource,
    evidence::{KernelFacts, Memory},
    wire::{FromTrace, ToTrace, VERSION, live::StatsReport},
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

struct Trace {
    listener: UnixSeqpacketListener,
    path: std::path::PathBuf,
}

impl Trace {
    fn new(stage: &Stage) -> Self {
        let path = stage.dir.path().join("evidence.sock");
        let _ = std::fs::remove_file(&path);
        Self { listener: UnixSeqpacketListener::bind(&path).unwrap(), path }
    }

    async fn welcome(&mut self) -> UnixSeqpacket {
        let socket = timeout(PATIENCE, self.listener.accept()).await.expect("nobody connects").unwrap();
        assert!(matches!(hear(&socket).await, ToTrace::Hello { v: VERSION, .. }));
        say(&socket, &FromTrace::Welcome { v: VERSION, kernel: KernelSource::Tracepoint, sessions: true })
            .await;
        socket
    }

    fn stop(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn hear(socket: &UnixSeqpacket) -> ToTrace {
    let mut buffer = vec![0; 65536];
    let length =
        timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("nothing is said").unwrap().bytes_read();
    serde_json::from_slice(&buffer[..length]).unwrap()
}

async fn say(socket: &UnixSeqpacket, message: &FromTrace) {
    socket.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
}

async fn answer(socket: &UnixSeqpacket, conn: String) {
    let facts = Box::new(KernelFacts { lost: 7, ..KernelFacts::absent(KernelSource::Kprobe) });
    say(socket, &FromTrace::Evidence { conn, facts }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_registered_asked_for_and_done_with() {
    let mut stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    let ToTrace::Watch { listen, serve } = hear(&socket).await else { panic!("no ports") };
    assert_eq!(listen, [stage.address.port()]);
    assert_eq!(serve, [1, stage.serve.local_addr().unwrap().port()]);

    let ends = stage.open().await;
    let ToTrace::Register(session) = hear(&socket).await else { panic!("no session") };
    assert_eq!(session.down.unwrap().remote, ends.0.local_addr().unwrap());
    assert_eq!(session.up.unwrap().remote, stage.serve.local_addr().unwrap());
    assert_eq!(session.up.unwrap().local, ends.1.peer_addr().unwrap());
    assert!(session.up.unwrap().cookie != 0 && session.down.unwrap().cookie != session.up.unwrap().cookie);
    assert!(matches!(hear(&socket).await, ToTrace::Opened { .. }));

    drop(ends);
    let ToTrace::Ask { conn } = hear(&socket).await else { panic!("no question") };
    assert_eq!(conn, session.conn);
    answer(&socket, conn.clone()).await;
    let (evidence, record) = stage.judgement().await;
    assert_eq!((evidence.kernel.source, evidence.kernel.lost), (KernelSource::Kprobe, 7));
    assert_eq!(record.kernel, KernelSource::Kprobe);
    let ToTrace::Done { conn: done, record } = hear(&socket).await else { panic!("not done") };
    assert_eq!((&done, &record.conn), (&conn, &conn));
    assert_eq!(stage.messages("ws close").len(), 1, "written before it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_open_is_registered_before_it_is_asked_for() {
    let mut stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    hear(&socket).await;
    let _client = stage.ask("gone", "").await;
    let ToTrace::Register(session) = hear(&socket).await else { panic!("no session") };
    assert_eq!((session.opened_at, session.up), (None, None));
    assert!(matches!(hear(&socket).await, ToTrace::Ask { .. }));
    stage.judgement().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_t3_trace_costs_a_quarter_second_of_one_record_and_nothing_of_other_sessions() {
    let mut stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    hear(&socket).await;
    let (mut client, mut serve) = stage.open().await;
    let (a, b) = stage.open().await;
    drop((a, b));
    // While the record of the other one waits, this one is relayed.
    let ping = frame(0x81, b"x", true);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    let began = Instant::now();
    assert_eq!(stage.judgement().await.0.kernel.source, KernelSource::Timeout);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_late_killed_and_back_again_in_the_middle_of_a_session() {
    let mut stage = Stage::new(&[]).await;
    drop(stage.open().await);
    assert_eq!(stage.judgement().await.0.kernel.source, KernelSource::Off);

    let (mut client, mut serve) = stage.open().await;
    let ended_meanwhile = stage.open().await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    let mut registered = Vec::new();
    while registered.len() < 2 {
        if let ToTrace::Register(session) = hear(&socket).await {
            assert!(session.opened_at.is_some());
            registered.push(session.conn);
        }
    }
    drop(socket);
    trace.stop();
    drop(ended_meanwhile);
    let (evidence, ended) = stage.judgement().await;
    assert_eq!(evidence.kernel.source, KernelSource::Off);

    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    assert!(matches!(hear(&socket).await, ToTrace::Watch { .. }));
    let ToTrace::Register(session) = hear(&socket).await else { panic!("not registered again") };
    assert_ne!(session.conn, ended.conn);
    // What was written in between is told, so that nobody takes that session for lost.
    while !matches!(hear(&socket).await, ToTrace::Done { conn, .. } if conn == ended.conn) {}

    let ping = frame(0x81, b"still here", true);
    client.write_all(&ping).await.unwrap();
    assert_eq!(exactly(&mut serve, ping.len()).await, ping);
    drop((client, serve));
    loop {
        if let ToTrace::Ask { conn } = hear(&socket).await {
            assert_eq!(conn, session.conn);
            break answer(&socket, conn).await;
        }
    }
    assert_eq!(stage.judgement().await.0.kernel.source, KernelSource::Kprobe);
    stage.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pressure_is_asked_for_when_the_first_leg_ends_and_sockets_when_both_have() {
    let mut stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    let (mut client, mut serve) = stage.open().await;
    client.shutdown().await.unwrap();
    fixture::rest(&mut serve).await.unwrap();
    let mut memory = 10;
    for expected_answers in [1, 2] {
        let conn = loop {
            if let ToTrace::Ask { conn } = hear(&socket).await {
                break conn;
            }
        };
        let memory_now = Memory { current: Some(memory), ..Memory::default() };
        let facts = KernelFacts {
            memory: Some(memory_now),
            lost: memory,
            ..KernelFacts::absent(KernelSource::Tracepoint)
        };
        say(&socket, &FromTrace::Evidence { conn, facts: Box::new(facts) }).await;
        memory = 20;
        if expected_answers == 1 {
            // Time for the answer to be taken.
            tokio::time::sleep(Duration::from_millis(50)).await;
            serve.shutdown().await.unwrap();
        }
    }
    let kernel = stage.judgement().await.0.kernel;
    assert_eq!((kernel.memory.unwrap().current, kernel.lost), (Some(10), 30));
    stage.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_serve_does_not_answer_is_reason_enough_to_ask_for_pressure() {
    let mut stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    let (mut client, serve) = stage.open().await;
    client.write_all(&frame(0x88, &1000u16.to_be_bytes(), true)).await.unwrap();
    let asked = async {
        loop {
            if let ToTrace::Ask { conn } = hear(&socket).await {
                break conn;
            }
        }
    };
    // Neither leg has ended: a browser holds its connection for a minute and waits for the answer.
    let conn = timeout(PATIENCE, asked).await.expect("not asked");
    let facts = KernelFacts {
        memory: Some(Memory { current: Some(10), ..Memory::default() }),
        ..KernelFacts::absent(KernelSource::Tracepoint)
    };
    say(&socket, &FromTrace::Evidence { conn: conn.clone(), facts: Box::new(facts) }).await;

    // The browser is back before the old session is over.
    let _again = stage.open().await;
    let opens = stage.messages("ws open");
    let [_, second] = opens.as_slice() else { panic!("{opens:?}") };
    assert!(second.contains(&format!(" prev={conn} gap_ms=")), "{second}");

    drop((client, serve));
    loop {
        if let ToTrace::Ask { conn } = hear(&socket).await {
            break answer(&socket, conn).await;
        }
    }
    let (evidence, record) = stage.judgement().await;
    assert_eq!((evidence.kernel.memory.unwrap().current, &record.conn), (Some(10), &conn));
}

/// The next pulses of this session; whatever else is said in between is passed over.
async fn pulse(socket: &UnixSeqpacket, conn: &str) -> StatsReport {
    loop {
        if let ToTrace::Pulses { pulses } = hear(socket).await
            && let Some(pulse) = pulses.into_iter().find(|pulse| pulse.conn == conn)
        {
            return pulse;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_numbers_come_while_somebody_watches_and_stop_when_nobody_does() {
    let stage = Stage::new(&[]).await;
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    hear(&socket).await;
    let (mut client, mut serve) = stage.open().await;
    let ToTrace::Register(session) = hear(&socket).await else { panic!("no session") };
    assert!(matches!(hear(&socket).await, ToTrace::Opened { .. }));
    let ping = frame(0x81, br#"{"_tag":"Ping"}"#, true);
    let pong = frame(0x81, br#"{"_tag":"Pong"}"#, false);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    // Nobody has asked: longer than a round takes, nothing is said.
    let mut buffer = vec![0; 65536];
    assert!(timeout(Duration::from_millis(1300), socket.recv(&mut buffer)).await.is_err());

    say(&socket, &FromTrace::WantPulses { ms: 60_000 }).await;
    let waiting = pulse(&socket, &session.conn).await;
    assert_eq!((waiting.down_bytes, waiting.up_bytes, waiting.rtt_ns), (ping.len() as u64, 0, None));
    assert!(waiting.waiting_since.is_some_and(|since| since > session.opened_at.unwrap()));
    serve.write_all(&pong).await.unwrap();
    exactly(&mut client, pong.len()).await;
    let answered = pulse(&socket, &session.conn).await;
    assert_eq!((answered.up_bytes, answered.waiting_since), (pong.len() as u64, None));
    assert!(answered.rtt_ns.is_some_and(|rtt| rtt > 0));
    // A session in which nothing moves is not told of again.
    assert!(timeout(Duration::from_millis(2300), socket.recv(&mut buffer)).await.is_err());

    // Another t3-trace, which wants nothing, hears nothing.
    drop(socket);
    trace.stop();
    let mut trace = Trace::new(&stage);
    let socket = trace.welcome().await;
    while !matches!(hear(&socket).await, ToTrace::Register(_)) {}
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    assert!(timeout(Duration::from_millis(1300), socket.recv(&mut buffer)).await.is_err());
    // Its wish is short: one round of all sessions, also of what has not moved, and then silence.
    say(&socket, &FromTrace::WantPulses { ms: 500 }).await;
    assert_eq!(pulse(&socket, &session.conn).await.down_bytes, 2 * ping.len() as u64);
    client.write_all(&ping).await.unwrap();
    exactly(&mut serve, ping.len()).await;
    assert!(timeout(Duration::from_millis(1800), socket.recv(&mut buffer)).await.is_err());
}
