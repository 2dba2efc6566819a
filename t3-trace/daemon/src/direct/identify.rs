//! Finds the processes at both ends of open connections to watched ports.
//!
//! The kernel side knows the process that *closes* a connection. Who accepted it and, on this host,
//! who opened it is read while it is open: from the socket tables and descriptors, only when there
//! is a connection that is not known yet, on a blocking thread.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use t3_record::evidence::Task;
use t3_trace_host::{
    clock::{self, SECOND},
    kernel::{Generation, ServeTuple},
    proc::{self, net, network_namespace, stat},
};
use tokio::time::Instant;

use super::{
    legs, outgoing,
    table::{Client, End, Known, Sockets},
};
use crate::{locked::lock, port_owners, state::Shared};

/// Interval of passes over the open connections.
const EVERY: Duration = Duration::from_secs(2);
/// Age from which a connection is identified: shorter ones are not recorded on serve ports.
const AGE: u64 = 2 * SECOND;
/// Minimum time between searches among the descriptors of all processes.
const SEARCH_EVERY: Duration = Duration::from_secs(10);

/// Identifies connections until the daemon stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut searched_at = None::<Instant>;
    loop {
        let is_due = searched_at.is_none_or(|at| at.elapsed() >= SEARCH_EVERY);
        let state = Arc::clone(&shared);
        let has_searched = tokio::task::spawn_blocking(move || pass(&state, is_due)).await;
        if has_searched.is_ok_and(|searched| searched) {
            searched_at = Some(Instant::now());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shared.direct.changed.notified() => {}
        }
    }
}

/// One pass; returns whether it read the descriptors of all processes.
fn pass(shared: &Shared, may_search: bool) -> bool {
    outgoing::pass(shared);
    let open = shared.kernel.read().unwrap_or_else(PoisonError::into_inner).open_connections();
    legs::sample(shared, &open);
    let (mut unknown, unscanned) = {
        let mut table = shared.direct.table();
        (table.begin_pass(&open, clock::monotonic(), AGE), table.take_unscanned())
    };
    if !unknown.is_empty() || !unscanned.is_empty() {
        let dispatch: Vec<u32> = lock(&shared.connections).values().filter_map(|state| state.pid).collect();
        let tables = SocketTables::read(&dispatch);
        unknown.extend(older(shared, &tables, &unscanned));
        let of_dispatch: HashSet<u64> = dispatch.iter().flat_map(|pid| proc::sockets(*pid)).collect();
        for end in unknown {
            let known = tables.identify(&end.0, &of_dispatch);
            shared.direct.table().set(end, known);
        }
    }
    may_search && search(shared)
}

/// Connections to these ports that were established before the ports were watched.
fn older(shared: &Shared, tables: &SocketTables, ports: &[u16]) -> Vec<End> {
    let ends = tables.rows.iter().filter(|((_, local, _), _)| ports.contains(&local.port()));
    let kernel = shared.kernel();
    let ends = ends.map(|((netns, local, remote), _)| {
        let tuple = ServeTuple { local: *local, remote: *remote, netns: *netns };
        (tuple, kernel.serve_generation(&tuple))
    });
    let older = ends.filter(|(_, generation)| *generation == Generation::UNKNOWN).collect::<Vec<_>>();
    drop(kernel);
    let table = shared.direct.table();
    older.into_iter().filter(|end| !table.knows(*end)).collect()
}

/// A socket: its inode and the uid of its owner.
type Socket = (u64, u32);

/// Connections of the network namespaces of the daemon and of dispatch, by namespace, local and
/// remote address.
struct SocketTables {
    rows: HashMap<(Option<u32>, SocketAddr, SocketAddr), Socket>,
    /// Inodes by local and remote address, of any of the namespaces.
    anywhere: HashMap<(SocketAddr, SocketAddr), u64>,
}

impl SocketTables {
    fn read(dispatch: &[u32]) -> Self {
        let mut rows = HashMap::new();
        let mut read = HashSet::new();
        for pid in std::iter::once(std::process::id()).chain(dispatch.iter().copied()) {
            let namespace = network_namespace(pid);
            if read.insert(namespace) {
                let of = net::connections(pid);
                rows.extend(of.map(|row| ((namespace, row.local, row.remote), (row.inode, row.uid))));
            }
        }
        let anywhere = rows.iter().map(|((_, local, remote), (inode, _))| ((*local, *remote), *inode));
        Self { anywhere: anywhere.collect(), rows }
    }

    fn identify(&self, tuple: &ServeTuple, of_dispatch: &HashSet<u64>) -> Known {
        let server = self.rows.get(&(tuple.netns, tuple.local, tuple.remote));
        // Its client may be in another namespace of this host.
        let client = self.anywhere.get(&(tuple.remote, tuple.local)).copied();
        let is_of_dispatch = client.is_some_and(|inode| of_dispatch.contains(&inode));
        Known {
            client: if is_of_dispatch { Client::Dispatch } else { Client::Unknown },
            uid: server.map(|(_, uid)| *uid),
            pending: server
                .filter(|_| !is_of_dispatch)
                .map(|(server, _)| Sockets { client, server: *server }),
            ..Known::default()
        }
    }
}

/// Searches the processes of all connections whose processes have not been searched.
fn search(shared: &Shared) -> bool {
    let pending = shared.direct.table().pending();
    if pending.is_empty() {
        return false;
    }
    let inodes = pending.iter().flat_map(|(_, sockets)| sockets.client.into_iter().chain([sockets.server]));
    let holders = proc::holders(&inodes.collect());
    for (end, sockets) in pending {
        let opened_at = end.1.established_at().unwrap_or_else(clock::monotonic);
        let of_server = holders.get(&sockets.server).into_iter().flatten();
        let owner = port_owners::acceptor(of_server.filter_map(|pid| shared.owners.read(*pid)), opened_at);
        let of_client = sockets.client.and_then(|inode| holders.get(&inode));
        let client = of_client.and_then(|pids| pids.first()).and_then(|pid| {
            let comm = stat::read(*pid)?.comm;
            Some(Task { pid: *pid, comm })
        });
        shared.direct.table().found(end, client, owner);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_connection_are_found_and_dispatch_is_recognised() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let tuple = ServeTuple {
            local: accepted.local_addr().unwrap(),
            remote: client.local_addr().unwrap(),
            netns: network_namespace(std::process::id()),
        };
        let tables = SocketTables::read(&[]);
        let known = tables.identify(&tuple, &HashSet::new());
        let sockets = known.pending.unwrap();
        assert_eq!(known.client, Client::Unknown);
        let own: HashSet<u64> = proc::sockets(std::process::id()).into_iter().collect();
        assert!(own.contains(&sockets.server) && own.contains(&sockets.client.unwrap()));
        assert!(known.uid.is_some());
        let by_dispatch = tables.identify(&tuple, &own);
        assert_eq!((by_dispatch.client, by_dispatch.pending), (Client::Dispatch, None));
        // A client that is not on this host has no socket here.
        let remote = ServeTuple { remote: "203.0.113.7:9".parse().unwrap(), ..tuple };
        assert_eq!(tables.identify(&remote, &own), Known::default());
    }
}
