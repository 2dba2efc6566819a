//! Many sessions that end at one instant: each gets its evidence, and what is the same for all of
//! them is read once. A program of its own, because the reads of the process are counted.

#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "evidence_socket/support.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod support;

use std::{
    collections::HashMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use support::{Daemon, Peer, serve_end, session};
use t3_record::{
    evidence::{Fate, KernelFacts, SocketFacts, Task},
    vocabulary::KernelSource,
    wire::{FromTrace, ToTrace},
};
use t3_trace_host::{clock, kernel::ProcessFacts};

const SESSIONS: u16 = 2_000;
/// Wait of dispatch for an answer.
const IN_TIME: Duration = Duration::from_millis(250);

/// Calls of read(2) of this process, of any file (proc_pid_io(5)). Sockets are not read by it.
fn reads() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
}

struct Burst {
    facts: Vec<KernelFacts>,
    reads: u64,
    loss_reads: u64,
}

/// Asks for the evidence of all sessions, as a dispatch whose serve has died does.
async fn ask_all(daemon: &Daemon, dispatch: &Peer, name: &str) -> Burst {
    let before = (reads(), daemon.kernel.with(|facts| facts.loss_reads));
    let begin = Instant::now();
    let asking = async {
        let mut asked = HashMap::new();
        for n in 1..=SESSIONS {
            let conn = format!("conn-{n}");
            asked.insert(conn.clone(), Instant::now());
            dispatch.send(&ToTrace::Ask { conn }).await;
        }
        asked
    };
    let receiving = async {
        let mut answers = HashMap::new();
        while answers.len() < usize::from(SESSIONS) {
            let Some(FromTrace::Evidence { conn, facts }) = dispatch.receive().await else {
                panic!("no evidence")
            };
            assert!(answers.insert(conn, (Instant::now(), facts)).is_none(), "one answer each");
        }
        answers
    };
    let (asked, answers) = tokio::join!(asking, receiving);
    let took = begin.elapsed();
    let burst = Burst {
        reads: reads() - before.0,
        loss_reads: daemon.kernel.with(|facts| facts.loss_reads) - before.1,
        facts: answers.values().map(|(_, facts)| KernelFacts::clone(facts)).collect(),
    };
    let waits = answers.iter().map(|(conn, (at, _))| *at - asked[conn]);
    let late = waits.clone().filter(|wait| *wait > IN_TIME).count();
    eprintln!(
        "{name}: {SESSIONS} answers in {took:.0?}, slowest {:.0?}, {late} after {IN_TIME:?}; {} reads of files, {} of losses",
        waits.max().unwrap_or_default(),
        burst.reads,
        burst.loss_reads,
    );
    burst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_of_one_instant_are_read_once_for_all_its_sessions() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    let serve = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = serve.local_addr().unwrap().port();
    let ends: Vec<_> = (1..=SESSIONS).map(|n| session(n, port)).collect();
    let closed = |closer: &Task| SocketFacts {
        rst_out: Some(clock::monotonic()),
        closer: Some(closer.clone()),
        ..SocketFacts::default()
    };
    let this = Task { pid: std::process::id(), comm: "serve".to_owned() };
    daemon.kernel.with(|facts| {
        for session in &ends {
            let reset = SocketFacts { rst_in: Some(clock::monotonic()), ..SocketFacts::default() };
            facts.sockets.insert(session.up.unwrap().cookie, reset);
            facts.serve_ends.insert(serve_end(session), closed(&this));
        }
    });
    for session in &ends {
        dispatch.send(&ToTrace::Register(Box::new(session.clone()))).await;
    }
    // The search for the listener, and the first samples of its cgroup.
    for _ in 0..100 {
        if dispatch.ask("conn-1").await.peer.is_some_and(|peer| peer.started_at.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // serve closes all of them and lives: its state is in files.
    let alive = ask_all(&daemon, &dispatch, "serve closes").await;
    for facts in &alive.facts {
        let peer = facts.peer.as_ref().expect("the process behind serve's end");
        assert_eq!(
            (facts.source, peer.task.pid, peer.fate),
            (KernelSource::Tracepoint, this.pid, Fate::Alive)
        );
        assert!(facts.up.is_some() && facts.serve.is_some());
    }

    // serve dies: the kernel side has its fate.
    let died = Task { pid: 4_000_001, comm: "serve".to_owned() };
    daemon.kernel.with(|facts| {
        let killed = ProcessFacts {
            task: died.clone(),
            started_boot_ns: Some(1),
            fate: Fate::Signal(9),
            ended_at: Some(clock::monotonic()),
            killer: None,
            last_signal: None,
            signalled_at: None,
            oom_at: None,
        };
        facts.processes.insert(died.pid, killed);
        facts.lost = 7;
        ends.iter().for_each(|session| drop(facts.serve_ends.insert(serve_end(session), closed(&died))));
    });
    let dead = ask_all(&daemon, &dispatch, "serve dies").await;
    for facts in &dead.facts {
        let peer = facts.peer.as_ref().expect("the process behind serve's end");
        assert_eq!(
            (facts.source, peer.task.pid, peer.fate),
            (KernelSource::Tracepoint, died.pid, Fate::Signal(9))
        );
    }
    assert_eq!(dead.facts.iter().map(|facts| facts.lost).sum::<u64>(), 7, "losses are reported once");

    for burst in [alive, dead] {
        // Threads of the daemon read files, too; a query that shares nothing reads 20 to 50 times.
        assert!(burst.reads < u64::from(SESSIONS) * 4, "{} reads of files", burst.reads);
        assert!(burst.loss_reads < u64::from(SESSIONS) / 4, "{} reads of losses", burst.loss_reads);
    }
    daemon.stop().await;
}
