//! dispatch disconnects with open sessions. A running dispatch is this process; one that exits is a
//! child: this program again, running only [`killed_dispatch`].

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use super::support::{Daemon, session};
use t3_record::{
    Verdict,
    evidence::{CloseFrame, Fate, LegFacts, RelayFacts, SocketFacts, Task},
    wire::{FromTrace, Role, ToTrace, VERSION},
};
use t3_trace_host::{clock, kernel::ProcessFacts};
use tokio_seqpacket::UnixSeqpacket;

const SOCKET: &str = "T3_TEST_EVIDENCE_SOCKET";
/// A child process; killed on drop.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Time for the child to start and to register its sessions, on a busy host.
const REGISTERED: Duration = Duration::from_secs(30);
const NO_RECORD: Duration = Duration::from_secs(3);

fn register(n: u16) -> ToTrace {
    ToTrace::Register(Box::new(session(n, 3773)))
}

#[tokio::test]
#[ignore = "the body of the child process that the tests of this file kill; run by them"]
async fn killed_dispatch() {
    let path = PathBuf::from(std::env::var_os(SOCKET).expect("run by the tests of this file"));
    let socket = UnixSeqpacket::connect(path).await.unwrap();
    let hello = ToTrace::Hello { v: VERSION, role: Role::Dispatch };
    let [one, two, three] = [1, 2, 3].map(register);
    // The browser of the third closed before dispatch died; dispatch reported it.
    let at = clock::monotonic();
    let frame = CloseFrame { code: Some(1001), reason: String::new(), at };
    let down = LegFacts { close_frame: Some(frame), ..LegFacts::default() };
    let facts = RelayFacts {
        started_at: at - clock::SECOND,
        opened_at: Some(at - clock::SECOND),
        ended_at: at,
        down,
        ..RelayFacts::default()
    };
    let ending = ToTrace::Ending { conn: "conn-3".to_owned(), facts: Box::new(facts) };
    for message in [hello, one, three, ending, two, ToTrace::Ask { conn: "conn-2".to_owned() }] {
        socket.send(&serde_json::to_vec(&message).unwrap()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test]
async fn each_session_of_a_killed_dispatch_gets_one_record() {
    let daemon = Daemon::start().await;
    let subscriber = daemon.subscriber().await;
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "disconnect::killed_dispatch"])
            .env(SOCKET, &daemon.socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let registered = async {
        while subscriber.status().await.sessions < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REGISTERED, registered).await.expect("the child registers its sessions");
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
        let verdict = if n == 3 { Verdict::ClientClosed } else { Verdict::DispatchDied };
        assert_eq!(field("T3_VERDICT"), verdict.as_str());
        assert_eq!(field("T3_CONFIDENCE"), if n == 3 { "likely" } else { "proven" });
        assert_eq!((field("T3_USER"), field("T3_IP"), field("T3_RAY")), ("wizard", "192.0.2.7", "8f00"));
        assert_eq!(field("T3_CAUSE"), if n == 3 { "downstream_closed" } else { "dispatch_closed" });
        assert_eq!(field("SYSLOG_IDENTIFIER"), "t3-dispatch");
        assert_eq!(field("OBJECT_SYSTEMD_UNIT"), "t3-dispatch.service");
        assert!(field("MESSAGE").starts_with("ws close user=wizard ip=192.0.2.7 dur_ms="), "{fields:?}");
        match subscriber.receive().await {
            Some(FromTrace::Closed { record }) => assert_eq!(record.verdict, verdict),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(daemon.written(Duration::from_millis(500)).await, None);
    assert_eq!(subscriber.status().await.sessions, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_dispatch_that_reconnects_gets_no_records() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.send(&register(1)).await;
    dispatch.send(&register(2)).await;
    assert_eq!(dispatch.status().await.sessions, 2);
    drop(dispatch);
    let again = daemon.dispatch().await;
    again.send(&register(1)).await;
    again.send(&register(2)).await;
    assert_eq!(daemon.written(NO_RECORD).await, None);
    assert_eq!(again.status().await.sessions, 2);
    // It works as before.
    daemon.kernel.with(|facts| {
        facts.sockets.insert(2, SocketFacts { fin_in: Some(1), ..SocketFacts::default() });
    });
    assert!(again.ask("conn-1").await.down.is_some());
    daemon.stop().await;
}

#[tokio::test]
async fn a_running_dispatch_without_connection_writes_its_own_records() {
    let daemon = Daemon::start().await;
    let dispatch = daemon.dispatch().await;
    dispatch.send(&register(1)).await;
    assert_eq!(dispatch.status().await.sessions, 1);
    drop(dispatch);
    assert_eq!(daemon.written(NO_RECORD).await, None);
    let stopped = tokio::time::timeout(Duration::from_secs(20), daemon.stop()).await;
    assert!(stopped.is_ok(), "a running dispatch does not delay the stop");
}
