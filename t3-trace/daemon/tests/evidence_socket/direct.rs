//! Closed connections that dispatch did not carry.

use std::{collections::BTreeMap, fs, time::Duration};

use t3_record::{
    TcpCloseRecord, Verdict,
    evidence::{Counters, Fate, SocketFacts, Task},
    journal,
    wire::{DirectState, FromTrace, ToTrace},
};
use t3_trace_daemon::direct::WatchedPort;
use t3_trace_host::{
    clock::{self, SECOND},
    kernel::{ClosedConnection, ConnectionsOf, Generation, Opener, ProcessFacts, ServeTuple, Unreported},
    proc::network_namespace,
};

use super::support::{Daemon, session, until};

/// A record is there within milliseconds.
const RECORD: Duration = Duration::from_secs(20);
const NO_RECORD: Duration = Duration::from_millis(500);
/// Not the pid of a process of this host.
const PID: u32 = 4_194_400;

/// A connection that a client with this port had for a minute, closed by itself.
fn left(port: u16, client: u16) -> ClosedConnection {
    let now = clock::monotonic();
    ClosedConnection {
        at: now,
        tuple: ServeTuple {
            local: format!("192.0.2.1:{port}").parse().unwrap(),
            remote: format!("203.0.113.7:{client}").parse().unwrap(),
            netns: network_namespace(std::process::id()),
        },
        generation: Generation::of(now - 60 * SECOND),
        socket: SocketFacts { fin_in: Some(now), fin_out: Some(now + 1), ..SocketFacts::default() },
        cookie: None,
        counters: Some(Counters { acked: 500, received: 300, ..Counters::default() }),
        opener: None,
        is_outgoing: false,
        close_frames: None,
    }
}

fn watched(port: u16, min_age: u64) -> ConnectionsOf {
    ConnectionsOf { port, min_age, ..ConnectionsOf::default() }
}

fn watching(ports: &[&str]) -> Vec<WatchedPort> {
    ports.iter().map(|text| WatchedPort::parse(text).unwrap()).collect()
}

/// The next record as it was written.
async fn written(daemon: &Daemon) -> TcpCloseRecord {
    let fields = daemon.written(RECORD).await.expect("a record is written");
    assert_eq!(fields["MESSAGE_ID"], journal::TCP_CLOSE_ID);
    TcpCloseRecord::from_line(&fields["MESSAGE"]).unwrap()
}

#[tokio::test]
async fn the_death_of_the_process_behind_a_watched_port_is_recorded() {
    let daemon = Daemon::watching(watching(&["port=8080,min-duration=1s"])).await;
    until("the port is watched", || {
        daemon.kernel.with(|facts| facts.watched_connections == [watched(8080, SECOND)])
    })
    .await;
    let subscriber = daemon.subscriber().await;
    let mut closed = left(8080, 51_000);
    let node = Task { pid: PID, comm: "node".to_owned() };
    let died = closed.at - 1_000_000;
    closed.socket =
        SocketFacts { fin_out: Some(closed.at), closer: Some(node.clone()), ..SocketFacts::default() };
    daemon.kernel.with(|facts| {
        // Facts that came after the report.
        let later = SocketFacts { fin_in: Some(closed.at + 1), ..closed.socket.clone() };
        facts.serve_ends.insert(closed.tuple, later);
        let process = ProcessFacts {
            task: node,
            started_boot_ns: None,
            fate: Fate::Signal(9),
            ended_at: Some(died),
            killer: Some(Task { pid: 77, comm: "bash".to_owned() }),
            signalled_at: Some(died),
            last_signal: None,
            oom_at: None,
        };
        facts.processes.insert(PID, process);
        facts.unreported = Unreported { short: 7, lost: 1 };
    });
    daemon.kernel.close(closed);
    let record = written(&daemon).await;
    let line = record.to_line();
    let start = "tcp close ip=203.0.113.7 dur_ms=60000 cause=upstream_closed verdict=serve_killed segment=serve conn=d";
    assert!(line.starts_with(start), "{line}");
    let rest = "port=8080 via=direct kernel=tracepoint how=signal:9 closed_by=upstream confidence=proven";
    assert!(line.contains(rest), "{line}");
    assert_eq!((record.up_bytes, record.down_bytes), (Some(500), Some(300)));
    assert_eq!(record.killed_by.as_deref(), Some("bash[77]"));
    assert_eq!(record.chain.as_ref().unwrap().to_string(), "up:peer_sig9@-1,up:fin_in@0,down:fin_in@0");
    let published = FromTrace::TcpClosed { record: Box::new(record) };
    assert_eq!(subscriber.receive().await, Some(published));
    let expected = DirectState { ports: vec![8080], written: 1, short: 7, over_budget: 0, lost: 1 };
    assert_eq!(subscriber.status().await.direct, Some(expected));
    let value = |line: &str| {
        let page = fs::read_to_string(&daemon.metrics).unwrap_or_default();
        page.lines().filter(|found| *found == line).count() == 1
    };
    let closes = |verdict| format!("t3_trace_tcp_closes_total{{port=\"8080\",verdict=\"{verdict}\"}}");
    until("the metrics count it", || value(&format!("{} 1", closes("serve_killed")))).await;
    for line in
        [&format!("{} 0", closes("client_left")), "t3_trace_tcp_short_total 7", "t3_trace_tcp_lost_total 1"]
    {
        assert!(value(line), "{line}");
    }
    assert!(value("t3_trace_watched_ports 1") && value("t3_trace_kernel_evidence 1"));
    let file = daemon.metrics.clone();
    daemon.stop().await;
    assert!(!file.exists(), "its values would stay");
}

#[tokio::test]
async fn connections_of_dispatch_to_a_serve_get_no_record_and_others_do() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.subscriber().await.status().await.direct, None, "no port is watched");
    let dispatch = daemon.dispatch().await;
    dispatch.send(&ToTrace::Watch { listen: vec![3780], serve: vec![3773], users: vec![] }).await;
    let registered = session(9, 3773);
    dispatch.send(&ToTrace::Register(Box::new(registered.clone()))).await;
    dispatch.status().await;
    assert_eq!(daemon.kernel.with(|facts| facts.watched_connections.clone()), [watched(3773, 30 * SECOND)]);
    let leg = registered.up.unwrap();
    let carried = ClosedConnection {
        tuple: ServeTuple {
            local: leg.remote,
            remote: leg.local,
            netns: network_namespace(std::process::id()),
        },
        // The fake kernel side knows no generation.
        generation: Generation::UNKNOWN,
        ..left(3773, 1)
    };
    daemon.kernel.close(carried);
    daemon.kernel.close(left(3773, 51_001));
    let record = written(&daemon).await;
    assert_eq!((record.port, record.ip.as_str(), record.verdict), (3773, "203.0.113.7", Verdict::ClientLeft));
    assert_eq!(record.dur_min, None);
    assert_eq!(daemon.written(NO_RECORD).await, None);
    daemon.stop().await;
}

#[tokio::test]
async fn the_user_of_a_serve_port_is_that_of_the_routing_table() {
    let daemon = Daemon::watching(watching(&["port=8080"])).await;
    let dispatch = daemon.dispatch().await;
    let users = BTreeMap::from([(3773, "ann".to_owned()), (3774, "bob".to_owned())]);
    dispatch.send(&ToTrace::watch(vec![3780], vec![3773, 3774, 3775], &users)).await;
    dispatch.status().await;
    // The socket of none of them exists: nothing else names a user.
    let elsewhere = |mut closed: ClosedConnection| {
        closed.tuple.netns = Some(1);
        closed
    };
    let mut client = 51_000;
    let mut user = async |port, change: &dyn Fn(ClosedConnection) -> ClosedConnection| {
        client += 1;
        daemon.kernel.close(change(left(port, client)));
        written(&daemon).await.user
    };
    assert_eq!(user(3773, &|closed| closed).await.as_deref(), Some("ann"));
    assert_eq!(user(3774, &|closed| closed).await.as_deref(), Some("bob"));
    assert_eq!(user(3775, &|closed| closed).await, None, "of no entry");
    assert_eq!(user(8080, &|closed| closed).await, None, "not a serve port");
    assert_eq!(user(3773, &elsewhere).await, None, "the same port in another network namespace");
    // A reload replaces the users.
    let users = BTreeMap::from([(3773, "zoe".to_owned())]);
    dispatch.send(&ToTrace::watch(vec![3780], vec![3773, 3774], &users)).await;
    dispatch.status().await;
    assert_eq!(user(3773, &|closed| closed).await.as_deref(), Some("zoe"));
    assert_eq!(user(3774, &|closed| closed).await, None);
    daemon.stop().await;
}

#[tokio::test]
async fn other_processes_unwatched_ports_and_a_used_up_budget_get_no_record() {
    let watched = watching(&["port=8080,process=nginx", "port=8081,budget=2"]);
    let daemon = Daemon::watching(watched).await;
    until("the ports are watched", || daemon.kernel.with(|facts| facts.watched_connections.len() == 2)).await;
    for (port, comm) in [(8080, "node"), (8082, "nginx"), (8080, "nginx")] {
        let mut closed = left(port, 51_000);
        let closer = Task { pid: PID, comm: comm.to_owned() };
        daemon.kernel.with(|facts| {
            let process = ProcessFacts {
                task: closer.clone(),
                started_boot_ns: None,
                fate: Fate::Exit(0),
                ended_at: Some(closed.at + SECOND),
                killer: None,
                signalled_at: None,
                last_signal: None,
                oom_at: None,
            };
            facts.processes.insert(PID, process);
            closed.socket.closer = Some(closer);
            facts.serve_ends.insert(closed.tuple, closed.socket.clone());
        });
        daemon.kernel.close(closed);
        if comm == "nginx" && port == 8080 {
            assert_eq!(written(&daemon).await.peer_comm.as_deref(), Some("nginx"));
        } else {
            assert_eq!(daemon.written(NO_RECORD).await, None, "{port} {comm}");
        }
    }
    for client in 0..5 {
        daemon.kernel.close(left(8081, 52_000 + client));
    }
    let ports = [written(&daemon).await.port, written(&daemon).await.port];
    assert_eq!((ports, daemon.written(NO_RECORD).await), ([8081; 2], None));
    let direct = daemon.subscriber().await.status().await.direct.unwrap();
    assert_eq!((direct.written, direct.over_budget), (3, 3));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_writes_the_records_of_all_connections_that_closed() {
    const CLOSED: u16 = 3_000;
    let daemon =
        Daemon::watching(watching(&["port=8080,budget=10000", "port=8081,proxy=true,budget=10000"])).await;
    for client in 0..CLOSED {
        let mut closed = left(8080 + client % 2, 20_000 + client);
        if client % 2 == 1 {
            // Of a proxy: it waits for its partner.
            let task = Task { pid: PID, comm: "nginx".to_owned() };
            closed.opener = Some(Opener { at: closed.at, task, cgroup: 0 });
        }
        daemon.kernel.close(closed);
    }
    assert_eq!(daemon.stop_and_count().await, usize::from(CLOSED));
}
