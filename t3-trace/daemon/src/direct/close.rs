//! A closed direct connection: its evidence and its record.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use t3_record::{
    TcpCloseRecord, assemble_direct,
    evidence::{DirectConnection, KernelFacts, Nanos},
    wire::FromTrace,
};
use t3_trace_host::{
    accounts, cgroup, clock,
    kernel::{ClosedConnection, view::ConnectionStream},
};

use super::{
    outgoing::{self, Holder},
    pair_record,
    pairs::Outcome,
    session_entry::{acceptor, entry},
    table::{Client, Decision, Known},
};
use crate::{
    evidence::{LateEvents, gather},
    locked::lock,
    poll,
    state::Shared,
};

/// uid of the first regular user (`UID_MIN` of login.defs(5)); others are users of services.
const FIRST_USER: u32 = 1_000;
/// `nobody`, of no user.
const NOBODY: u32 = 65_534;

/// Makes a record of each closed connection that dispatch did not carry, until
/// [`Direct::stop`](super::Direct::stop): then of all that have closed, and ends.
pub(crate) async fn follow(shared: Arc<Shared>, mut connections: ConnectionStream) {
    let mut polled = match poll::readable(&connections) {
        Ok(polled) => polled,
        Err(error) => {
            tracing::error!(%error, "cannot poll closed connections; no tcp close records");
            return;
        }
    };
    let mut is_stopping = false;
    while !is_stopping {
        let wait = shared.direct.legs.until_due();
        tokio::select! {
            ready = polled.readable_mut() => {
                let Ok(mut ready) = ready else { return };
                read(&shared, &mut connections);
                ready.clear_ready();
            }
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            () = shared.direct.stopping.notified() => {
                read(&shared, &mut connections);
                is_stopping = true;
            }
        }
        settle(&shared, is_stopping);
    }
}

fn read(shared: &Arc<Shared>, connections: &mut ConnectionStream) {
    while let Some(closed) = connections.next_connection() {
        tracing::debug!(?closed, "connection closed");
        if let Some(closed) = shared.direct.legs.close(closed) {
            decide(shared, closed, None);
        }
    }
}

/// Decides the connections of proxies that waited long enough for another one, or all that wait.
fn settle(shared: &Arc<Shared>, all: bool) {
    for outcome in shared.direct.legs.due(shared, all) {
        match outcome {
            Outcome::Single(closed) => decide(shared, closed, None),
            Outcome::Pair { down, up } => decide(shared, down, Some(up)),
        }
    }
}

/// Makes the record of a connection, or of both connections of a proxy's session.
fn decide(shared: &Arc<Shared>, closed: ClosedConnection, up: Option<ClosedConnection>) {
    if closed.is_outgoing {
        decide_outgoing(shared, closed);
        return;
    }
    let (port, end) = (closed.tuple.local.port(), (closed.tuple, closed.generation));
    let (decision, over_before) = shared.direct.table().close(end, closed.at);
    if over_before > 0 {
        tracing::warn!(port, connections = over_before, "no tcp close records: budget of the port used up");
    }
    match decision {
        Decision::Ignore => {
            if let Some(up) = up {
                decide(shared, up, None);
            }
        }
        Decision::OverBudget { is_first } => {
            shared.direct.over_budget.fetch_add(1, Ordering::Relaxed);
            if is_first {
                tracing::warn!(port, "budget of tcp close records used up for this minute; see watch");
            }
        }
        Decision::Record { port, known, opened_at, is_older } => {
            let state = Arc::clone(shared);
            shared.orphan_writers.spawn(async move {
                let Ok(_turn) = state.direct.turns.acquire().await else { return };
                let record = record(&state, &closed, up.as_ref(), *known, opened_at, is_older).await;
                let (comm, unit) = match up {
                    Some(_) => (&record.proxy_comm, &record.proxy_unit),
                    None => (&record.peer_comm, &record.peer_unit),
                };
                if port.accepts(comm.as_deref(), unit.as_deref()) {
                    write(&state, record);
                }
            });
        }
    }
}

async fn record(
    shared: &Arc<Shared>,
    closed: &ClosedConnection,
    up: Option<&ClosedConnection>,
    mut known: Known,
    opened_at: Nanos,
    is_older: bool,
) -> TcpCloseRecord {
    let conn = connection_id();
    let acceptor = closed.opener.as_ref().and_then(|opener| acceptor(shared, opener));
    known.owner = acceptor.or(known.owner);
    let facts = facts(shared, closed, &conn, &known, opened_at).await;
    let connection = connection(shared, closed, known, &facts, conn, (opened_at, is_older));
    match up {
        Some(up) => pair_record::create(shared, connection, facts, up).await,
        None => assemble_direct(&connection, &facts),
    }
}

async fn facts(
    shared: &Arc<Shared>,
    closed: &ClosedConnection,
    conn: &str,
    known: &Known,
    opened_at: Nanos,
) -> KernelFacts {
    let entry = entry((closed.tuple, closed.generation), conn, known, opened_at);
    let age = clock::monotonic().saturating_sub(closed.at);
    let late = LateEvents::Possible { waited: Duration::from_nanos(age) };
    let mut facts = gather(shared, Some(&entry), late).await;
    // The table has evicted it.
    facts.serve = facts.serve.or_else(|| Some(closed.socket.clone()));
    facts
}

fn decide_outgoing(shared: &Arc<Shared>, closed: ClosedConnection) {
    match shared.direct.units().close(&closed) {
        outgoing::Decision::Ignore => decide_single(shared, closed),
        outgoing::Decision::OverBudget { unit, is_first } => {
            shared.direct.over_budget.fetch_add(1, Ordering::Relaxed);
            if is_first {
                tracing::warn!(unit, "budget of tcp close records used up for this minute; see watch");
            }
        }
        outgoing::Decision::Record { holder, is_older } => {
            let state = Arc::clone(shared);
            shared.orphan_writers.spawn(async move {
                let Ok(_turn) = state.direct.turns.acquire().await else { return };
                write(&state, outgoing_record(&state, &closed, holder, is_older).await);
            });
        }
    }
}

/// Makes the record of a connection that a proxy opened and that is not one of a pair.
fn decide_single(shared: &Arc<Shared>, closed: ClosedConnection) {
    let Some(opener) = closed.opener.clone() else { return };
    let Some((min_age, budget)) = shared.direct.table().limits_of_proxies() else { return };
    let age = closed.generation.established_at().map(|at| closed.at.saturating_sub(at));
    if age.is_some_and(|age| age < min_age) {
        return;
    }
    if !shared.direct.legs.take_budget(closed.at, budget) {
        shared.direct.over_budget.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let state = Arc::clone(shared);
    shared.orphan_writers.spawn(async move {
        let Ok(_turn) = state.direct.turns.acquire().await else { return };
        let owner = acceptor(&state, &opener);
        let unit = owner.and_then(|owner| owner.cgroup.as_deref().and_then(cgroup::unit_of));
        let holder = Holder { task: opener.task, unit };
        write(&state, outgoing_record(&state, &closed, holder, false).await);
    });
}

async fn outgoing_record(
    shared: &Arc<Shared>,
    closed: &ClosedConnection,
    holder: Holder,
    is_older: bool,
) -> TcpCloseRecord {
    let conn = connection_id();
    let opened_at = closed.generation.established_at().unwrap_or(closed.at);
    let owner = shared.owners.read(holder.task.pid).filter(|owner| owner.started_at <= opened_at);
    let known = Known { owner: owner.map(Arc::new), ..Known::default() };
    let facts = facts(shared, closed, &conn, &known, opened_at).await;
    let connection = DirectConnection {
        conn,
        user: None,
        unit: holder.unit,
        client: closed.tuple.remote,
        port: closed.tuple.remote.port(),
        opened_at,
        is_older,
        client_process: Some(holder.task),
        counters: closed.counters,
        is_outgoing: true,
        is_proxy: false,
        close_frames: None,
    };
    assemble_direct(&connection, &facts)
}

fn connection(
    shared: &Shared,
    closed: &ClosedConnection,
    known: Known,
    facts: &KernelFacts,
    conn: String,
    (opened_at, is_older): (Nanos, bool),
) -> DirectConnection {
    let listener = || shared.owners.at(closed.tuple.local, closed.at);
    let closer = facts.peer.as_ref().and_then(|process| shared.owners.cgroup_of(process.task.pid));
    let owner = known.owner.or_else(listener);
    let cgroup = closer.or_else(|| owner.and_then(|owner| owner.cgroup.clone()));
    let user = shared.direct.user(&closed.tuple).or_else(|| {
        let uid = known.uid.filter(|uid| *uid >= FIRST_USER && *uid != NOBODY);
        uid.and_then(accounts::user_name)
    });
    DirectConnection {
        conn,
        user,
        unit: cgroup.as_deref().and_then(cgroup::unit_of),
        client: closed.tuple.remote,
        port: closed.tuple.local.port(),
        opened_at,
        is_older,
        client_process: match known.client {
            Client::Process(task) => Some(task),
            Client::Dispatch | Client::Unknown => None,
        },
        counters: closed.counters,
        is_outgoing: false,
        is_proxy: shared.direct.table().is_proxy(closed.tuple.local.port()),
        close_frames: closed.close_frames,
    }
}

fn write(shared: &Shared, record: TcpCloseRecord) {
    shared.direct.written.fetch_add(1, Ordering::Relaxed);
    let port = Some(record.port).filter(|_| !record.is_outgoing());
    lock(&shared.direct.closes).count(port, record.verdict);
    if !shared.options.publish_only {
        drop(shared.records.write(record.to_fields()));
    }
    shared.subscribers.publish(FromTrace::TcpClosed { record: Box::new(record) });
}

/// A random id of 13 characters, of which the first is never that of a number.
fn connection_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // The keys of each state are random.
    let mut number = RandomState::new().hash_one(clock::monotonic());
    let mut id = String::from("d");
    for _ in 0..12 {
        let digit = usize::try_from(number % 36).unwrap_or(0);
        id.push(DIGITS.get(digit).copied().map_or('0', char::from));
        number /= 36;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_one_form() {
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| connection_id()).collect();
        assert_eq!(ids.len(), 1_000);
        let is_plain =
            |id: &String| id.len() == 13 && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        assert!(ids.iter().all(is_plain));
    }
}
