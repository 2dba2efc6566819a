//! Record of a proxy's session, with both of its connections.

use std::{sync::Arc, time::Duration};

use t3_record::{
    TcpCloseRecord, assemble_pair,
    evidence::{DirectConnection, KernelFacts, PairFacts, UpstreamConnection},
};
use t3_trace_host::{cgroup, clock, kernel::ClosedConnection};

use super::{
    session_entry::{acceptor, entry},
    table::Known,
};
use crate::{
    evidence::{LateEvents, gather},
    state::Shared,
};

/// The record of a proxy's session; `facts` are those of the connection that it accepted.
pub(super) async fn create(
    shared: &Arc<Shared>,
    connection: DirectConnection,
    facts: KernelFacts,
    up: &ClosedConnection,
) -> TcpCloseRecord {
    let of_serve = shared.direct.legs.serve_end((up.tuple, up.generation));
    let (upstream, unit) = match of_serve {
        None => (None, None),
        Some(((tuple, generation), opener)) => {
            let owner = opener.as_ref().and_then(|opener| acceptor(shared, opener));
            let opened_at = generation.established_at().unwrap_or(connection.opened_at);
            let known = Known { owner, ..Known::default() };
            let entry = entry((tuple, generation), &connection.conn, &known, opened_at);
            let waited = Duration::from_nanos(clock::monotonic().saturating_sub(up.at));
            let facts = gather(shared, Some(&entry), LateEvents::Possible { waited }).await;
            let closer = facts.peer.as_ref().and_then(|process| shared.owners.cgroup_of(process.task.pid));
            let cgroup = closer.or_else(|| known.owner.and_then(|owner| owner.cgroup.clone()));
            (Some(facts), cgroup.as_deref().and_then(cgroup::unit_of))
        }
    };
    // An RST that was sent at the close comes after the report.
    let latest = shared.kernel().serve_end(&up.tuple, up.generation);
    let pair = PairFacts {
        down: facts.serve.clone().unwrap_or_default(),
        up: latest.unwrap_or_else(|| up.socket.clone()),
        proxy: facts,
        upstream,
    };
    let upstream = UpstreamConnection {
        address: up.tuple.remote,
        from: up.tuple.local,
        proxy: up.opener.as_ref().map(|opener| opener.task.clone()),
        proxy_unit: connection.unit.clone(),
        unit,
        counters: up.counters,
    };
    assemble_pair(&connection, &upstream, &pair)
}
