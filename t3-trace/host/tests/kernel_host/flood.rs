//! Many connects on a port that is not watched, while connections to watched ports open and close.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use t3_trace_host::kernel::{Connections, Options};

use crate::{
    connections::watch,
    fixture::{kernel_with, pair, reset, wait_for},
};

/// Threads that connect; more than the CPUs of a small host, so that all of them are busy.
const THREADS: u8 = 4;
/// Duration of the flood.
const DURATION: Duration = Duration::from_secs(3);
/// Connections to each watched port that are open at the same time.
const OPEN: usize = 8;
/// Connections of the flood for each round of connections to watched ports.
const EACH: u64 = 60;
/// Pause while the flood is slower.
const PAUSE: Duration = Duration::from_micros(500);

/// Connects and resets until `is_over`: neither end stays in TIME_WAIT, so that the ports do not
/// run out.
fn flood(listener: &TcpListener, is_over: &AtomicBool, count: &AtomicU64) {
    let address = listener.local_addr().unwrap();
    while !is_over.load(Ordering::Relaxed) {
        let client = TcpStream::connect(address).unwrap();
        let accepted = listener.accept().unwrap();
        reset(client);
        drop(accepted);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Opens and closes connections to these listeners until `is_over`, a round for each [`EACH`] of
/// the flood; returns the addresses of their clients, each with the number of its connections.
fn watched(
    listeners: &[TcpListener],
    is_over: &AtomicBool,
    flooded: &AtomicU64,
) -> BTreeMap<SocketAddr, u64> {
    let mut opened = BTreeMap::new();
    let mut open = VecDeque::new();
    for round in 0.. {
        while flooded.load(Ordering::Relaxed) < round * EACH {
            if is_over.load(Ordering::Relaxed) {
                return opened;
            }
            thread::sleep(PAUSE);
        }
        for listener in listeners {
            let ends = pair(listener);
            *opened.entry(ends.1.local_addr().unwrap()).or_default() += 1;
            open.push_back(ends);
        }
        while open.len() > OPEN * listeners.len() {
            drop(open.pop_front());
        }
    }
    opened
}

/// Adds the reported connections, by the address of their client.
fn read(connections: &mut Connections, reported: &mut BTreeMap<SocketAddr, u64>) {
    while let Some(closed) = connections.next_connection() {
        *reported.entry(closed.tuple.remote).or_default() += 1;
    }
}

#[test]
fn a_flood_on_an_unwatched_port_loses_nothing_of_the_watched_ones() {
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    // One port on several addresses, so that each thread accepts what it has opened.
    let first = TcpListener::bind((Ipv4Addr::new(127, 0, 1, 1), 0)).unwrap();
    let unwatched = first.local_addr().unwrap().port();
    let more = (2..=THREADS).map(|n| TcpListener::bind((Ipv4Addr::new(127, 0, 1, n), unwatched)).unwrap());
    let flooded: Vec<_> = std::iter::once(first).chain(more).collect();
    let Some(mut kernel) = kernel_with(&Options { socket_events: false, ..Options::default() }) else {
        return;
    };
    let mut connections = kernel.take_connections().unwrap();
    kernel.watch(&[], &[], &[]).unwrap();
    let ports = listeners.iter().map(|listener| (listener.local_addr().unwrap().port(), 0));
    watch(&mut kernel, &ports.collect::<Vec<_>>());

    let (is_over, count) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let started = Instant::now();
    let mut reported = BTreeMap::new();
    let opened = thread::scope(|scope| {
        for listener in &flooded {
            scope.spawn(move || flood(listener, is_over, count));
        }
        let opener = scope.spawn(|| watched(&listeners, is_over, count));
        while started.elapsed() < DURATION {
            read(&mut connections, &mut reported);
            thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
        opener.join().unwrap()
    });
    let seconds = started.elapsed().as_secs_f64();
    let (flooded, expected) = (count.load(Ordering::Relaxed), opened.values().sum::<u64>());
    #[expect(clippy::cast_precision_loss, reason = "a printed rate")]
    let rates = (flooded as f64 / seconds, expected as f64 / seconds);
    println!("unwatched port: {:.0} connections/s; watched ports: {:.0} connections/s", rates.0, rates.1);
    assert!(flooded > 10 * expected && expected >= 20, "a flood: {flooded} and {expected}");
    wait_for("all watched connections are reported", || {
        read(&mut connections, &mut reported);
        reported.values().sum::<u64>() >= expected
    });
    assert_eq!(reported, opened, "each once, and no other");
    let unreported = kernel.unreported();
    assert_eq!((unreported.short, unreported.lost), (0, 0), "unwatched ones are not even counted");
    assert_eq!(kernel.lost().total(), 0);
    assert_eq!(kernel.open_connections(), []);
}

/// Without a reader the ring overflows: the count of lost connections is not always 0.
#[test]
fn reports_that_nobody_reads_are_counted_as_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(mut kernel) = kernel_with(&Options { socket_events: false, ..Options::default() }) else {
        return;
    };
    let mut connections = kernel.take_connections().unwrap();
    kernel.watch(&[], &[], &[]).unwrap();
    watch(&mut kernel, &[(listener.local_addr().unwrap().port(), 0)]);
    let mut closed = 0_u64;
    let close = |closed: &mut u64| {
        let (accepted, client): (TcpStream, TcpStream) = pair(&listener);
        reset(client);
        drop(accepted);
        *closed += 1;
    };
    while kernel.unreported().lost == 0 {
        (0..100).for_each(|_| close(&mut closed));
        assert!(closed < 100_000, "the ring does not overflow");
    }
    let mut reported = BTreeMap::new();
    wait_for("every connection is reported or counted", || {
        read(&mut connections, &mut reported);
        reported.values().sum::<u64>() + kernel.unreported().lost >= closed
    });
    assert_eq!(reported.values().sum::<u64>() + kernel.unreported().lost, closed);
    // The next one has room.
    close(&mut closed);
    wait_for("the next one is reported", || connections.next_connection().is_some());
}
