//! Cost of the eBPF programs for a connection that dispatch does not carry: on a port that is not
//! watched, on a watched one that is too short for a report, and on one that is reported.
//!
//! Both ends are on this host, so that the programs run for two sockets. A connection from another
//! host has one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use t3_trace_host::kernel::{Connections, ConnectionsOf, Kernel, KernelError, Outgoing};

use super::ebpf_time::{Time, ns, times};
use crate::error::{Attempt, Result, TestError};

/// Connections that are open at the same time.
const BATCH: usize = 250;
/// Minimum age in nanoseconds that no connection of the measurement reaches.
const HOUR: u64 = 3_600_000_000_000;

/// A kind of connection.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Unwatched,
    Short,
    Reported,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Unwatched, Self::Short, Self::Reported];

    const fn name(self) -> &'static str {
        match self {
            Self::Unwatched => "unwatched port",
            Self::Short => "watched port, too short for a report",
            Self::Reported => "watched port, reported",
        }
    }

    /// The watched connections.
    fn watched(self, port: u16) -> Vec<ConnectionsOf> {
        let of = |min_age| vec![ConnectionsOf { port, min_age, ..ConnectionsOf::default() }];
        match self {
            Self::Unwatched => Vec::new(),
            Self::Short => of(HOUR),
            Self::Reported => of(0),
        }
    }
}

/// Measures `count` connections of each kind in every round, and prints the medians.
pub(super) fn run(
    kernel: &mut Kernel,
    connections: &mut Option<Connections>,
    rounds: usize,
    count: usize,
) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).attempt(|| "bind".to_owned())?;
    let port = listener.local_addr().attempt(|| "read the port".to_owned())?.port();
    kernel.watch(&[], &[], &[]).map_err(|error| cannot(&error))?;
    let before = kernel.unreported();
    let mut measured: [(Vec<Time>, u64); 3] = Default::default();
    for _ in 0..rounds {
        for (kind, (phases, reported)) in Kind::ALL.into_iter().zip(&mut measured) {
            watch(kernel, &kind.watched(port))?;
            for _ in 0..count.div_ceil(BATCH) {
                phases.push(times(kernel, || open_and_close(&listener, port))?.0);
                *reported += drain(connections);
            }
        }
    }
    let after = kernel.unreported();
    for (kind, (phases, reported)) in Kind::ALL.into_iter().zip(&measured) {
        let per_connection = phases.iter().map(|time| time.all_ns / BATCH as f64);
        let count = phases.len() * BATCH;
        println!("connection, {}: {} ({reported} of {count} reported)", kind.name(), ns(per_connection));
    }
    println!(
        "connections counted as short: {}, lost: {}",
        after.short - before.short,
        after.lost - before.lost
    );
    watch(kernel, &[])
}

fn watch(kernel: &mut Kernel, connections: &[ConnectionsOf]) -> Result<()> {
    kernel.watch_connections(connections, &Outgoing::default()).map_err(|error| cannot(&error))
}

fn cannot(error: &KernelError) -> TestError {
    TestError::Unexpected { what: "the kernel watches the connections".to_owned(), got: error.to_string() }
}

/// A batch of connections that are open at the same time; the client closes first.
fn open_and_close(listener: &TcpListener, port: u16) -> Result<()> {
    let open = (0..BATCH).map(|n| {
        // As in a session, so that ports in TIME_WAIT do not run out.
        let host = u8::try_from(n % 250 + 1).unwrap_or(1);
        let client = TcpStream::connect(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), port)))?;
        Ok::<_, std::io::Error>((client, listener.accept()?.0))
    });
    let open: Vec<_> = open.collect::<std::io::Result<_>>().attempt(|| "connect".to_owned())?;
    for (client, accepted) in open {
        drop(client);
        drop(accepted);
    }
    Ok(())
}

fn drain(connections: &mut Option<Connections>) -> u64 {
    let connections = connections.iter_mut();
    connections.map(|of| std::iter::from_fn(|| of.next_connection()).count() as u64).sum()
}
