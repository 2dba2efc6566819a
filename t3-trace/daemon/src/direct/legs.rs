//! Samples the connections of proxies while they are open, and holds closed ones until it is known
//! whether they are a pair ([`super::pairs`]).

use std::{collections::HashMap, os::fd::OwnedFd, sync::Mutex, time::Duration};

use t3_record::evidence::Nanos;
use t3_trace_host::{
    clock::{self, SECOND},
    kernel::{ClosedConnection, ConnectionsOf, OpenConnection, Opener, ServeTuple, view::KernelView},
    proc::network_namespace,
    sock_diag::{SockDiag, TcpSample},
};

use super::{
    budget::Budget,
    pairs::{Acts, Direction, Ending, Outcome, Pairs, Sample},
    table::End,
};
use crate::{locked::lock, state::Shared};

/// Minimum age of a reported connection of a proxy: those that are open for less have too few
/// samples. Its partner can be older.
const MIN_AGE: Nanos = 5 * SECOND;

/// Age from which the connections that proxies open are reported; `None` without a proxy.
pub(super) fn min_age(ports: &[ConnectionsOf]) -> Option<Nanos> {
    let proxies = ports.iter().filter(|port| port.is_proxy);
    proxies.map(|port| port.min_age.min(MIN_AGE)).min()
}

/// The other end of a connection that a proxy opened, if it is on a watched port.
type ServeEnd = (End, Option<Opener>);

/// Connections of proxies.
pub(super) struct Legs {
    pairs: Mutex<Pairs<End, ClosedConnection>>,
    diag: Option<SockDiag>,
    /// Network namespace of its sockets.
    namespace: Option<u32>,
    /// Of the last two passes: a connection can have closed since the last one.
    serve_ends: Mutex<[HashMap<End, ServeEnd>; 2]>,
    /// Of records of single connections that proxies opened.
    budget: Mutex<Budget>,
}

impl Legs {
    /// With the socket that systemd passed, or with a new one.
    pub(super) fn new(inherited: Option<OwnedFd>) -> Self {
        // systemd opens its socket in its own namespace.
        let (diag, process) = match inherited {
            Some(socket) => (SockDiag::inherited(socket), 1),
            None => (SockDiag::open(), std::process::id()),
        };
        let diag = diag.inspect_err(|error| {
            tracing::debug!(%error, hint = "see t3-trace-netlink.socket", "cannot read counters of sockets");
        });
        Self {
            diag: diag.ok(),
            namespace: network_namespace(process),
            pairs: Mutex::default(),
            serve_ends: Mutex::default(),
            budget: Mutex::default(),
        }
    }

    /// Returns the connection if it cannot be one of a pair.
    pub(super) fn close(&self, closed: ClosedConnection) -> Option<ClosedConnection> {
        let Some(pid) = closed.opener.as_ref().map(|opener| opener.task.pid) else { return Some(closed) };
        let direction = if closed.is_outgoing { Direction::Up } else { Direction::Down };
        let ending = Ending {
            at: closed.at,
            acts: Acts::of(&closed.socket),
            totals: closed
                .counters
                .map(|counters| (counters.received, counters.acked + counters.unacked_bytes)),
        };
        let key = (closed.tuple, closed.generation);
        lock(&self.pairs).close(pid, direction, key, ending, closed)
    }

    /// Takes one of `limit` records per minute of connections that proxies opened and that are not
    /// one of a pair.
    pub(super) fn take_budget(&self, at: Nanos, limit: u32) -> bool {
        lock(&self.budget).take(at, limit).is_granted
    }

    /// Connections whose time has come, or all.
    pub(super) fn due(&self, shared: &Shared, all: bool) -> Vec<Outcome<ClosedConnection>> {
        let mut pairs = lock(&self.pairs);
        if pairs.next_due().is_none() {
            return Vec::new();
        }
        let kernel = shared.kernel();
        let acts = |(tuple, generation): &End| {
            kernel.serve_end(tuple, *generation).as_ref().map(Acts::of).unwrap_or_default()
        };
        pairs.due(clock::monotonic(), all, acts)
    }

    /// Time until the next connection is due, if any is waiting.
    pub(super) fn until_due(&self) -> Option<Duration> {
        let due = lock(&self.pairs).next_due()?;
        Some(Duration::from_nanos(due.saturating_sub(clock::monotonic())))
    }

    /// The other end of a connection that a proxy opened.
    pub(super) fn serve_end(&self, up: End) -> Option<ServeEnd> {
        let ends = lock(&self.serve_ends);
        ends.iter().find_map(|pass| pass.get(&up)).cloned()
    }

    fn set_serve_ends(&self, kernel: &dyn KernelView, open: &[OpenConnection]) {
        let accepted = open.iter().filter(|open| !open.is_outgoing);
        let accepted: HashMap<ServeTuple, &OpenConnection> =
            accepted.map(|open| (open.tuple, open)).collect();
        let ends = open.iter().filter(|open| open.is_outgoing).filter_map(|up| {
            let ServeTuple { local, remote, netns } = up.tuple;
            let end = accepted.get(&ServeTuple { local: remote, remote: local, netns })?;
            let serve_end = ((end.tuple, end.generation), kernel.opener(&end.tuple));
            Some(((up.tuple, up.generation), serve_end))
        });
        let ends = ends.collect();
        let mut passes = lock(&self.serve_ends);
        passes.rotate_right(1);
        if let Some(newest) = passes.first_mut() {
            *newest = ends;
        }
    }
}

/// Reads the counters of the connections of proxies among these, the open ones.
pub(super) fn sample(shared: &Shared, open: &[OpenConnection]) {
    let legs = &shared.direct.legs;
    let Some(diag) = &legs.diag else { return };
    let kernel = shared.kernel();
    let of_proxies: Vec<_> = {
        let table = shared.direct.table();
        let is_sampled = |open: &&OpenConnection| {
            (open.is_outgoing || table.is_proxy(open.tuple.local.port()))
                && open.tuple.netns == legs.namespace
        };
        let of_proxies = open.iter().filter(is_sampled).filter_map(|open| {
            let direction = if open.is_outgoing { Direction::Up } else { Direction::Down };
            Some((kernel.opener(&open.tuple)?.task.pid, direction, (open.tuple, open.generation)))
        });
        of_proxies.collect()
    };
    let wanted = {
        let mut pairs = lock(&legs.pairs);
        pairs.begin_pass(&of_proxies, clock::monotonic());
        pairs.wanted()
    };
    legs.set_serve_ends(&**kernel, if wanted.is_empty() { &[] } else { open });
    drop(kernel);
    if wanted.is_empty() {
        return;
    }
    let at = clock::monotonic();
    let ends: Vec<_> = wanted.iter().map(|(_, _, (tuple, _))| (tuple.local, tuple.remote)).collect();
    let samples = match diag.read(&ends) {
        Ok(samples) => samples,
        Err(error) => {
            tracing::debug!(%error, "cannot read counters of sockets");
            return;
        }
    };
    let mut pairs = lock(&legs.pairs);
    for ((pid, direction, key), sample) in wanted.into_iter().zip(samples) {
        if let Some(sample) = sample {
            pairs.sample(pid, direction, key, at, of(sample));
        }
    }
}

fn of(sample: TcpSample) -> Sample {
    Sample {
        received: sample.received,
        sent: sample.sent,
        last_received: sample.last_received,
        last_sent: sample.last_sent,
        precision: sample.precision,
        retrans: sample.retrans,
        is_queued: sample.unread > 0 || sample.unacked > 0,
    }
}
