//! Closed connections to watched ports: what is reported, and what is only counted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::process::Signal;
use t3_record::evidence::Fate;
use t3_trace_host::kernel::{ClosedConnection, Connections, Generation, Kernel, Options};

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
    kernel.watch_connections(&ports.iter().map(|port| (*port, 0)).collect::<Vec<_>>()).unwrap();
    Some((kernel, connections))
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
    assert_eq!((open[0].0.local, open[0].0.remote), (address, client_address));
    client.write_all(&[0; 300]).unwrap();
    accepted.read_exact(&mut [0; 300]).unwrap();
    accepted.write_all(&[0; 500]).unwrap();
    client.read_exact(&mut [0; 500]).unwrap();
    assert_eq!(connections.next_connection(), None, "it is open");
    drop(client);
    wait_for("FIN came in", || kernel.serve_end(&open[0].0, open[0].1).is_some_and(|s| s.fin_in.is_some()));
    drop(accepted);

    let closed = next(&mut connections);
    assert_eq!((closed.tuple, closed.generation), open[0]);
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
    kernel.watch_connections(&[(port(0), 3_600 * SECOND), (port(1), 0)]).unwrap();
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
    kernel.watch_connections(&[]).unwrap();
    let older = pair(&listeners[0]);
    kernel.watch_connections(&[(port(0), 3_600 * SECOND)]).unwrap();
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
    kernel.watch_connections(&[(port(&flooded), 3_600 * SECOND), (port(&quiet), 0)]).unwrap();
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
