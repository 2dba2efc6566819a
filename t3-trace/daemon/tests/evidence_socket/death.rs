//! dispatch goes away with sessions open. A dispatch that lives is this process; one that dies is a
//! child: this very program again, running only [`as_a_dispatch_that_is_killed`].

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use super::support::{Daemon, session};
use t3_record::{
    Verdict,
    evidence::{Fate, SocketFacts, Task},
    wire::{FromTrace, Role, ToTrace, VERSION},
};
use t3_trace_host::{clock, kernel::ProcessFacts};
use tokio_seqpacket::UnixSeqpacket;

const SOCKET: &str = "T3_TEST_EVIDENCE_SOCKET";
/// A child that does not outlive its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NEVER: Duration = Duration::from_secs(3);

fn register(n: u16) -> ToTrace {
    ToTrace::Register(Box::new(session(n, 3773)))
}

#[tokio::test]
#[ignore = "the body of the child process that the tests of this file kill; run by them"]
async fn as_a_dispatch_that_is_killed() {
    let path = PathBuf::from(std::env::var_os(SOCKET).expect("run by the tests of this file"));
    let socket = UnixSeqpacket::connect(path).await.unwrap();
    let hello = ToTrace::Hello { v: VERSION, role: Role::Dispatch };
    for message in [hello, register(1), register(2), register(3), ToTrace::Ask { conn: "conn-2".to_owned() }]
    {
        socket.send(&serde_json::to_vec(&message).unwrap()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test]
async fn the_sessions_of_a_dispatch_that_was_killed_get_their_records_each_one() {
    let daemon = Daemon::start().await;
    let viewer = daemon.subscriber().await;
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "death::as_a_dispatch_that_is_killed"])
            .env(SOCKET, &daemon.socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    while viewer.status().await.sessions < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let now = clock::monotonic();
    daemon.kernel.with(|facts| {
        let trace = ProcessFacts {
            task: Task { pid: child.0.id(), comm: "t3-dispatch".to_owned() },
            started_boot_ns: None,
            fate: Fate::Signal(9),
            ended_at: Some(now),
            killer: None,
            signalled_at: Some(now),
            last_signal: None,
            oom_at: None,
        };
        facts.processes.insert(child.0.id(), trace);
        for cookie in 2..8 {
            facts.sockets.insert(cookie, SocketFacts { fin_out: Some(now), ..SocketFacts::default() });
        }
    });
    child.0.kill().unwrap();
    child.0.wait().unwrap();

    for n in 1..=3 {
        let fields = daemon.written(Duration::from_secs(20)).await.expect("a record");
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        assert_eq!(field("T3_CONN"), format!("conn-{n}"));
        assert_eq!(field("T3_VERDICT"), "dispatch_died");
        assert_eq!((field("T3_USER"), field("T3_IP"), field("T3_RAY")), ("wizard", "192.0.2.7", "8f00"));
        assert_eq!(field("T3_CAUSE"), "dispatch_closed");
        assert_eq!(field("SYSLOG_IDENTIFIER"), "t3-dispatch");
        assert_eq!(field("OBJECT_SYSTEMD_UNIT"), "t3-dispatch.service");
        assert!(field("MESSAGE").starts_with("ws close user=wizard ip=192.0.2.7 dur_ms="), "{fields:?}");
        match viewer.hear().await {
            Some(FromTrace::Closed { record }) => assert_eq!(record.verdict, Verdict::DispatchDied),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(daemon.written(Duration::from_millis(500)).await, None);
    assert_eq!(viewer.status().await.sessions, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_dispatch_that_lives_and_comes_back_gets_no_records_written_for_it() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.say(&register(1)).await;
    dispatch.say(&register(2)).await;
    assert_eq!(dispatch.status().await.sessions, 2);
    drop(dispatch);
    let again = daemon.dispatch().await;
    again.say(&register(1)).await;
    again.say(&register(2)).await;
    assert_eq!(daemon.written(NEVER).await, None);
    assert_eq!(again.status().await.sessions, 2);
    // And it works as before.
    daemon.kernel.with(|facts| {
        facts.sockets.insert(2, SocketFacts { fin_in: Some(1), ..SocketFacts::default() });
    });
    assert!(again.ask("conn-1").await.down.is_some());
    daemon.stop().await;
}

#[tokio::test]
async fn a_dispatch_that_lives_without_a_connection_writes_its_records_itself() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.say(&register(1)).await;
    assert_eq!(dispatch.status().await.sessions, 1);
    drop(dispatch);
    assert_eq!(daemon.written(NEVER).await, None);
    let stopped = tokio::time::timeout(Duration::from_secs(20), daemon.stop()).await;
    assert!(stopped.is_ok(), "a dispatch that lives does not hold the end up");
}
