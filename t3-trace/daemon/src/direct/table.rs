//! Watched ports and what is known of their open connections. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use t3_record::evidence::{Nanos, Task};
use t3_trace_host::kernel::{ConnectionsOf, Generation, OpenConnection, ServeTuple};

use super::{WatchedPort, budget::Budget};
use crate::port_owners::PortOwner;

/// Limit of known connections: bounds the memory of a privileged process.
const MOST: usize = 100_000;
/// Passes without a connection after which it is forgotten: its close may be reported later than a
/// pass that does not find it open.
const MISSED: u8 = 3;

/// End of a connection on a watched port.
pub(super) type End = (ServeTuple, Generation);

/// Program at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Client {
    /// t3-dispatch.
    Dispatch,
    /// Another process on this host.
    Process(Task),
    /// On another host, or not found.
    #[default]
    Unknown,
}

/// What is known of an open connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) client: Client,
    /// Process that accepted it.
    pub(super) owner: Option<Arc<PortOwner>>,
    /// uid of its socket.
    pub(super) uid: Option<u32>,
    /// Inodes of the sockets whose processes have not been searched.
    pub(super) pending: Option<Sockets>,
    /// Passes in a row that did not find it open.
    pub(super) missed: u8,
}

/// Inodes of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sockets {
    /// The client's, if it is on this host.
    pub(super) client: Option<u64>,
    /// The one on the watched port.
    pub(super) server: u64,
}

#[derive(Debug)]
struct Port {
    watched: WatchedPort,
    /// Time since which it is watched.
    since: Nanos,
    /// The connections that were open by then have been read.
    is_scanned: bool,
    budget: Budget,
}

/// What becomes of a closed connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It gets a record.
    Record {
        port: Box<WatchedPort>,
        known: Box<Known>,
        /// Time of its establishment, or from which its port is watched.
        opened_at: Nanos,
        is_older: bool,
    },
    /// It belongs to dispatch, or to a port that is no longer watched.
    Ignore,
    /// The budget of its port is used up; `is_first` in this minute.
    OverBudget { is_first: bool },
}

#[derive(Debug)]
pub(super) struct Table {
    own_namespace: u32,
    ports: BTreeMap<u16, Port>,
    ends: HashMap<End, Known>,
}

impl Table {
    pub(super) fn new(own_namespace: u32) -> Self {
        Self { own_namespace, ports: BTreeMap::new(), ends: HashMap::new() }
    }

    /// Key of a connection: with the namespace, and IPv4 addresses in their own form.
    fn key(&self, (tuple, generation): End) -> End {
        let canonical =
            |at: std::net::SocketAddr| std::net::SocketAddr::new(at.ip().to_canonical(), at.port());
        let tuple = ServeTuple {
            local: canonical(tuple.local),
            remote: canonical(tuple.remote),
            netns: Some(tuple.netns.unwrap_or(self.own_namespace)),
        };
        (tuple, generation)
    }

    pub(super) fn set_ports(&mut self, wanted: Vec<WatchedPort>, now: Nanos) {
        let mut before = std::mem::take(&mut self.ports);
        for watched in wanted {
            let port = match before.remove(&watched.port) {
                Some(known) => Port { watched, ..known },
                None => Port { watched, since: now, is_scanned: false, budget: Budget::default() },
            };
            self.ports.insert(port.watched.port, port);
        }
        let ports = &self.ports;
        self.ends.retain(|(tuple, _), _| ports.contains_key(&tuple.local.port()));
    }

    /// What the kernel side watches.
    pub(super) fn connections(&self) -> Vec<ConnectionsOf> {
        self.ports.values().map(|port| port.watched.connections()).collect()
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// The process behind this port is a proxy.
    pub(super) fn is_proxy(&self, port: u16) -> bool {
        self.ports.get(&port).is_some_and(|port| port.watched.proxy)
    }

    /// The smallest minimum age and the largest budget of the ports of proxies, if there are any.
    pub(super) fn limits_of_proxies(&self) -> Option<(Nanos, u32)> {
        let proxies = || self.ports.values().map(|port| &port.watched).filter(|watched| watched.proxy);
        let min_age = proxies().map(WatchedPort::min_age).min();
        min_age.zip(proxies().map(|watched| watched.budget).max())
    }

    /// A session of dispatch uses this connection.
    pub(super) fn carried(&mut self, end: End) {
        if self.ports.contains_key(&end.0.local.port()) {
            self.set(end, Known { client: Client::Dispatch, ..Known::default() });
        }
    }

    pub(super) fn set(&mut self, end: End, known: Known) {
        let key = self.key(end);
        if self.ends.len() < MOST || self.ends.contains_key(&key) {
            self.ends.insert(key, known);
        }
    }

    /// Begins a pass over the open connections, of which the kernel side knows these. Returns those
    /// of which nothing is known yet and that are at least `age` old.
    pub(super) fn begin_pass(&mut self, open: &[OpenConnection], now: Nanos, age: Nanos) -> Vec<End> {
        for (end, known) in &mut self.ends {
            // The kernel side does not list those that are older than the watch.
            if end.1 != Generation::UNKNOWN {
                known.missed = known.missed.saturating_add(1);
            }
        }
        let mut unknown = Vec::new();
        for connection in open.iter().filter(|connection| !connection.is_outgoing) {
            let end = self.key((connection.tuple, connection.generation));
            match self.ends.get_mut(&end) {
                Some(known) => known.missed = 0,
                None if end.1.established_at().is_none_or(|at| now.saturating_sub(at) >= age) => {
                    unknown.push(end);
                }
                None => {}
            }
        }
        self.ends.retain(|_, known| known.missed < MISSED);
        unknown
    }

    /// Ports whose older connections have not been read; they count as read from now on.
    pub(super) fn take_unscanned(&mut self) -> Vec<u16> {
        let unscanned = self.ports.values_mut().filter(|port| !port.is_scanned);
        unscanned
            .map(|port| {
                port.is_scanned = true;
                port.watched.port
            })
            .collect()
    }

    pub(super) fn knows(&self, end: End) -> bool {
        self.ends.contains_key(&self.key(end))
    }

    /// Connections whose processes have not been searched.
    pub(super) fn pending(&self) -> Vec<(End, Sockets)> {
        self.ends.iter().filter_map(|(end, known)| Some((*end, known.pending?))).collect()
    }

    /// Sets the result of the search for a connection that is still known.
    pub(super) fn found(&mut self, end: End, client: Option<Task>, owner: Option<Arc<PortOwner>>) {
        if let Some(known) = self.ends.get_mut(&end).filter(|known| known.client != Client::Dispatch) {
            known.pending = None;
            known.client = client.map_or(Client::Unknown, Client::Process);
            known.owner = owner;
        }
    }

    /// A connection closed at `at`.
    pub(super) fn close(&mut self, end: End, at: Nanos) -> (Decision, u64) {
        let known = self.ends.remove(&self.key(end)).unwrap_or_default();
        let Some(port) = self.ports.get_mut(&end.0.local.port()).filter(|_| known.client != Client::Dispatch)
        else {
            return (Decision::Ignore, 0);
        };
        let taken = port.budget.take(at, port.watched.budget);
        if !taken.is_granted {
            return (Decision::OverBudget { is_first: port.budget.is_first_over() }, taken.over_before);
        }
        let established_at = end.1.established_at();
        let decision = Decision::Record {
            port: Box::new(port.watched.clone()),
            known: Box::new(known),
            opened_at: established_at.unwrap_or(port.since),
            is_older: established_at.is_none(),
        };
        (decision, taken.over_before)
    }
}

#[cfg(test)]
mod tests;
