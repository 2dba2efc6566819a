//! dispatch disconnects with open sessions. A running dispatch is this process; one that exits is a
//! child: this program again, running only [`killed_dispatch`].

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use super::journal::SOCKET;
use super::support::{Daemon, Peer, session};
use t3_record::{
    Verdict,
    evidence::{CloseFrame, Fate, LegFacts, RelayFacts, SocketFacts, Task},
    wire::{FromTrace, Role, Session, ToTrace, VERSION},
};
use t3_trace_host::{clock, kernel::ProcessFacts};
use tokio_seqpacket::UnixSeqpacket;

/// Set: the sessions of the child are kept in a descriptor store.
pub const KEPT: &str = "T3_TEST_KEPT";
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

/// The registration by the next process, after a restart.
pub fn register_kept(n: u16, resumed: u32) -> ToTrace {
    ToTrace::Register(Box::new(Session { kept: true, resumed, ..session(n, 3773) }))
}

/// Starts the child, waits for its three sessions, and tells the fake kernel how it will end.
async fn start_child(daemon: &Daemon, is_kept: bool) -> Killed {
    let subscriber = daemon.subscriber().await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "disconnect::killed_dispatch"]).env(SOCKET, &daemon.socket);
    if is_kept {
        command.env(KEPT, "1");
    }
    let child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
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
    child
}

#[tokio::test]
#[ignore = "the body of the child process that the tests of this file kill; run by them"]
async fn killed_dispatch() {
    let path = PathBuf::from(std::env::var_os(SOCKET).expect("run by the tests of this file"));
    let socket = UnixSeqpacket::connect(path).await.unwrap();
    let hello = ToTrace::Hello { v: VERSION, role: Role::Dispatch };
    let is_kept = std::env::var_os(KEPT).is_some();
    let [one, two, three] = [1, 2, 3].map(|n| if is_kept { register_kept(n, 0) } else { register(n) });
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
    let mut child = start_child(&daemon, false).await;
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
async fn a_successor_continues_the_kept_sessions_of_a_killed_dispatch() {
    let daemon = Daemon::start().await;
    let subscriber = daemon.subscriber().await;
    let mut child = start_child(&daemon, true).await;
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    until_waiting(&subscriber, 3).await;
    assert_eq!(daemon.written(NO_RECORD).await, None, "its successor is awaited");

    let successor = daemon.dispatch().await;
    successor.send(&register_kept(1, 1)).await;
    until_waiting(&subscriber, 2).await;
    // With the evidence that was collected before.
    assert!(successor.ask("conn-1").await.down.is_some_and(|down| down.fin_out.is_some()));
    assert_eq!(daemon.written(NO_RECORD).await, None);
    successor.send(&ToTrace::PickedUp { ended: vec!["conn-2".to_owned()] }).await;
    // The browser of the third had closed before dispatch died.
    let fields = daemon.written(Duration::from_secs(10)).await.expect("the record of the lost session");
    assert_eq!((fields["T3_CONN"].as_str(), fields["T3_VERDICT"].as_str()), ("conn-3", "client_closed"));
    assert!(fields.contains_key("T3_ENDED_AT") && fields["T3_RECONCILED"] == "restart", "{fields:?}");
    assert_eq!(daemon.written(NO_RECORD).await, None);
    let status = subscriber.status_between_records().await;
    assert_eq!((status.sessions, status.open, status.kept), (2, Some(2), Some(1)));
    assert!(successor.ask("conn-2").await.down.is_some());
    let record = super::record("conn-2");
    successor.send(&ToTrace::Done { conn: "conn-2".to_owned(), record, lost: false, again: false }).await;
    assert_eq!(successor.status().await.sessions, 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_successor_that_connects_before_the_death_is_seen_leaves_no_records() {
    let daemon = Daemon::start().await;
    let mut child = start_child(&daemon, true).await;
    let successor = daemon.dispatch().await;
    for n in 1..=3 {
        successor.send(&register_kept(n, 1)).await;
    }
    successor.send(&ToTrace::PickedUp { ended: vec![] }).await;
    assert_eq!(successor.status().await.waiting, Some(0));
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert_eq!(daemon.written(NO_RECORD).await, None);
    assert_eq!(successor.status().await.sessions, 3);
    daemon.stop().await;
}

async fn until_waiting(subscriber: &Peer, sessions: u64) {
    let waiting = async {
        while subscriber.status().await.waiting != Some(sessions) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REGISTERED, waiting).await.expect("sessions wait for a successor");
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
