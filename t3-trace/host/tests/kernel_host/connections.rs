//! Closed connections to watched ports: what is reported, and what is only counted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::process::Signal;
use t3_record::evidence::Fate;
use t3_trace_host::{
    cgroup,
    kernel::{
        ClosedConnection, Connections, ConnectionsOf, Generation, Kernel, Options, Outgoing, ServeTuple,
    },
};

use crate::{
    fixture::{kernel_with, pair, reset, wait_for},
    serve::Serve,
};

const SECOND: u64 = 1_000_000_000;

/// The next reported connection.
fn next(connections: &mut Connections) -> ClosedConnection {
    let mut found = None;
    wait_for("a connection is reported", || {
        found = connections.next_connection();
        found.is_some()
    });
    found.unwrap()
}

/// A kernel side that reports all connections to these ports.
fn watching(ports: &[u16]) -> Option<(Kernel, Connections)> {
    // Nobody reads the ring of events.
    let mut kernel = kernel_with(&Options { socket_events: false, ..Options::default() })?;
    let connections = kernel.take_connections().unwrap();
    kernel.watch(&[], &[], &[]).unwrap();
    watch(&mut kernel, &ports.iter().map(|port| (*port, 0)).collect::<Vec<_>>());
    Some((kernel, connections))
}

/// Reports connections to these ports from this age on.
pub fn watch(kernel: &mut Kernel, ports: &[(u16, u64)]) {
    let ports = ports.iter().map(|(port, min_age)| ConnectionsOf {
        port: *port,
        min_age: *min_age,
        ..ConnectionsOf::default()
    });
    kernel.watch_connections(&ports.collect::<Vec<_>>(), &Outgoing::default()).unwrap();
}

#[test]
fn a_closed_connection_is_reported_with_its_ends_and_counters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let Some((kernel, mut connections)) = watching(&[address.port()]) else { return };
    let (mut accepted, mut client) = pair(&listener);
    let client_address = client.local_addr().unwrap();
    let open = kernel.open_connections();
    assert_eq!(open.len(), 1, "{open:?}");
    let (tuple, generation) = (open[0].tuple, open[0].generation);
    assert_eq!((tuple.local, tuple.remote, open[0].is_outgoing), (address, client_address, false));
    client.write_all(&[0; 300]).unwrap();
    accepted.read_exact(&mut [0; 300]).unwrap();
    accepted.write_all(&[0; 500]).unwrap();
    client.read_exact(&mut [0; 500]).unwrap();
    assert_eq!(connections.next_connection(), None, "it is open");
    drop(client);
    wait_for("FIN came in", || kernel.serve_end(&tuple, generation).is_some_and(|s| s.fin_in.is_some()));
    drop(accepted);

    let closed = next(&mut connections);
    assert_eq!((closed.tuple, closed.generation, closed.is_outgoing), (tuple, generation, false));
    let opener = closed.opener.clone().unwrap();
    assert_eq!((opener.task.pid, opener.cgroup), (std::process::id(), own_cgroup()));
    let opened = closed.generation.established_at().unwrap();
    assert!(closed.socket.fin_in.is_some_and(|at| at > opened), "{closed:?}");
    assert!(closed.socket.fin_out > closed.socket.fin_in, "{closed:?}");
    assert_eq!(closed.socket.closer.as_ref().map(|task| task.pid), Some(std::process::id()));
    let counters = closed.counters.unwrap();
    assert_eq!((counters.acked, counters.received, counters.unacked_bytes), (500, 300, 0), "{counters:?}");
    assert!(counters.rtt_us > 0 && counters.total_retrans == 0, "{counters:?}");
    assert_eq!(connections.next_connection(), None, "reported once");
    assert_eq!(kernel.open_connections(), []);
    assert_eq!((kernel.unreported().short, kernel.unreported().lost, kernel.lost().total()), (0, 0, 0));
}

/// Inode of the folder of this process's cgroup.
fn own_cgroup() -> u64 {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = cgroup::mount_point(&mountinfo).unwrap();
    cgroup::id_of(&cgroup::dir_of(&mount, std::process::id()).unwrap()).unwrap()
}

#[test]
fn outgoing_connections_of_a_proxy_are_reported_and_those_of_others_are_not() {
    let (front, back) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let Some((mut kernel, mut connections)) = watching(&[]) else { return };
    let port = front.local_addr().unwrap().port();
    let proxy = ConnectionsOf { port, min_age: 0, is_proxy: true, has_websocket: false };
    kernel.watch_connections(&[proxy], &Outgoing::default()).unwrap();
    // Not a proxy yet: this process has not accepted.
    drop(pair(&back));
    let (mut accepted, mut client) = pair(&front);
    client.write_all(b"x").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    let (served, upstream) = pair(&back);
    let mut open = kernel.open_connections();
    open.sort_by_key(|connection| connection.is_outgoing);
    assert_eq!(open.len(), 2, "{open:?}");
    assert_eq!(
        (open[1].tuple.local, open[1].tuple.remote, open[1].is_outgoing),
        (upstream.local_addr().unwrap(), back.local_addr().unwrap(), true)
    );
    assert!(
        open.iter().all(|open| kernel.opener(&open.tuple).is_some_and(|o| o.task.pid == std::process::id())),
        "{open:?}"
    );
    let opener = kernel.opener(&open[1].tuple);
    // A connection of another process from the same port is none of the proxy's.
    drop(served);
    wait_for("FIN came in", || {
        kernel.serve_end(&open[1].tuple, open[1].generation).is_some_and(|end| end.fin_in.is_some())
    });
    drop(upstream);
    let closed = next(&mut connections);
    assert_eq!((closed.tuple, closed.is_outgoing), (open[1].tuple, true));
    assert!(closed.socket.fin_in.is_some() && closed.socket.fin_out > closed.socket.fin_in, "{closed:?}");
    assert_eq!(closed.opener, opener);
    drop((accepted, client));
    assert!(!next(&mut connections).is_outgoing);
    assert_eq!((connections.next_connection(), kernel.open_connections()), (None, Vec::new()));
    // Refused: not a connection.
    let nowhere = back.local_addr().unwrap();
    drop(back);
    TcpStream::connect(nowhere).unwrap_err();
    assert_eq!((connections.next_connection(), kernel.lost().total()), (None, 0));
}

#[test]
fn outgoing_connections_of_a_cgroup_are_reported_also_older_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some((mut kernel, mut connections)) = watching(&[]) else { return };
    let (older_end, older) = pair(&listener);
    let tuple = ServeTuple {
        local: older.local_addr().unwrap(),
        remote: listener.local_addr().unwrap(),
        netns: None,
    };
    let of = |cgroup, older| Outgoing { cgroups: vec![cgroup], min_age: 0, older };
    kernel.watch_connections(&[], &of(own_cgroup() + 1, Vec::new())).unwrap();
    drop(pair(&listener));
    kernel.watch_connections(&[], &of(own_cgroup(), vec![tuple])).unwrap();
    let (end, newer) = pair(&listener);
    let newer_address = newer.local_addr().unwrap();
    assert_eq!(kernel.open_connections().len(), 2);
    drop((end, newer));
    assert_eq!(next(&mut connections).tuple.local, newer_address);
    drop((older_end, older));
    let closed = next(&mut connections);
    assert_eq!((closed.tuple.local, closed.opener), (tuple.local, None));
    assert!(closed.is_outgoing);
    kernel.watch_connections(&[], &Outgoing::default()).unwrap();
    drop(pair(&listener));
    assert_eq!((connections.next_connection(), kernel.open_connections()), (None, Vec::new()));
}

#[test]
fn the_process_of_a_reported_connection_is_known_with_its_fate() {
    let mut serve = Serve::start("127.0.0.1");
    let Some((kernel, mut connections)) = watching(&[serve.address.port()]) else { return };
    serve.order("listen");
    let client = TcpStream::connect(serve.address).unwrap();
    serve.order("accept");
    serve.signal(Signal::KILL);
    // The server acted first, so its socket waits for the FIN of the client.
    drop(client);
    let closed = next(&mut connections);
    assert!(closed.socket.fin_out.is_some(), "{closed:?}");
    assert_eq!(closed.socket.closer.as_ref().map(|task| task.pid), Some(serve.pid()));
    let process = kernel.process(serve.pid()).unwrap();
    assert_eq!(process.fate, Fate::Signal(9));
    assert!(process.ended_at <= closed.socket.fin_out, "{process:?} {closed:?}");
}

#[test]
fn the_reset_after_a_report_is_found_a_moment_later() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some((kernel, mut connections)) = watching(&[listener.local_addr().unwrap().port()]) else { return };
    let (accepted, client) = pair(&listener);
    reset(accepted);
    let closed = next(&mut connections);
    let end = || kernel.serve_end(&closed.tuple, closed.generation).unwrap_or_default();
    wait_for("the RST was recorded", || end().rst_out.is_some());
    assert_eq!((end().fin_out, end().rst_in), (None, None));
    drop(client);
    let (accepted, client) = pair(&listener);
    reset(client);
    let closed = next(&mut connections);
    assert!(closed.socket.rst_in.is_some() && closed.socket.fin_in.is_none(), "{closed:?}");
    drop(accepted);
    assert_eq!(connections.next_connection(), None);
}

#[test]
fn short_connections_are_counted_and_others_ports_are_not_seen() {
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |n: usize| listeners[n].local_addr().unwrap().port();
    let Some((mut kernel, mut connections)) = watching(&[]) else { return };
    watch(&mut kernel, &[(port(0), 3_600 * SECOND), (port(1), 0)]);
    for listener in &listeners {
        for _ in 0..20 {
            drop(pair(listener));
        }
    }
    wait_for("short ones are counted", || kernel.unreported().short == 20);
    let mut reported = Vec::new();
    wait_for("the others are reported", || {
        reported.extend(connections.next_connection().map(|closed| closed.tuple.local.port()));
        reported.len() == 20
    });
    assert_eq!(reported, vec![port(1); 20]);
    // Established before its port was watched: its age is not known.
    watch(&mut kernel, &[]);
    let older = pair(&listeners[0]);
    watch(&mut kernel, &[(port(0), 3_600 * SECOND)]);
    drop(older);
    let closed = next(&mut connections);
    assert_eq!((closed.tuple.local.port(), closed.generation), (port(0), Generation::UNKNOWN));
    assert_eq!(kernel.unreported().short, 20);
    drop(pair(&listeners[1]));
    assert_eq!((connections.next_connection(), kernel.lost().total()), (None, 0));
}

#[test]
fn a_flood_on_a_watched_port_loses_nothing_of_the_others() {
    let (flooded, quiet) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let Some((mut kernel, mut connections)) = watching(&[]) else { return };
    watch(&mut kernel, &[(port(&flooded), 3_600 * SECOND), (port(&quiet), 0)]);
    let kept = pair(&quiet);
    let address: SocketAddr = kept.1.local_addr().unwrap();
    for _ in 0..5_000 {
        drop(pair(&flooded));
    }
    drop(kept);
    assert_eq!(next(&mut connections).tuple.remote, address);
    wait_for("all short ones are counted", || kernel.unreported().short == 5_000);
    assert_eq!((kernel.unreported().lost, kernel.lost().total()), (0, 0));
    let load = kernel.table_load(&kernel.lost());
    assert_eq!((load.added, load.full), (0, 0), "the tables of sessions are not used");
}
