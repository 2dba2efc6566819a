//! A direct connection in the terms of the evidence of sessions.

use std::{net::SocketAddr, sync::Arc};

use t3_record::{
    evidence::Nanos,
    wire::{Leg, Session},
};
use t3_trace_host::{cgroup, kernel::Opener};

use super::table::{End, Known};
use crate::{
    port_owners::PortOwner,
    sessions::{ConnectionId, Entry},
    state::Shared,
};

/// The connection as a session of the evidence: its only leg is both.
pub(super) fn entry(end: End, conn: &str, known: &Known, opened_at: Nanos) -> Entry {
    let leg = |local: SocketAddr, remote: SocketAddr| Leg { cookie: 0, local, remote };
    let (server, client) = (end.0.local, end.0.remote);
    let session = Session {
        conn: conn.to_owned(),
        user: String::new(),
        ip: client.ip().to_canonical().to_string(),
        ray: None,
        opened_at: Some(opened_at),
        down: Some(leg(server, client)),
        up: Some(leg(client, server)),
        serve_port: server.port(),
        kept: false,
        resumed: 0,
    };
    Entry {
        session,
        // None of dispatch's.
        connection: ConnectionId(0),
        registered_at: opened_at,
        asked_at: None,
        detached_at: None,
        serve: Some(end),
        dispatch_pid: None,
        live_stats: None,
        ending: None,
        holder: known.owner.clone(),
    }
}

/// Process that accepted the connection, if it still has the cgroup that it had then.
pub(super) fn acceptor(shared: &Shared, opener: &Opener) -> Option<Arc<PortOwner>> {
    let owner = shared.owners.read(opener.task.pid).filter(|owner| owner.started_at <= opener.at)?;
    let is_same = owner.cgroup.as_deref().and_then(cgroup::id_of) == Some(opener.cgroup);
    is_same.then(|| Arc::new(owner))
}
